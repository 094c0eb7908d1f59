"""The Ranker is its parts put together; the battery over all architectures is in tests/contracts."""

import dataclasses

import numpy as np
import pytest
import torch

from polyrank.data.encoders import Field, Layout, TaskStatistics
from polyrank.data.loader import Batch, as_batch
from polyrank.data.schema import Task
from polyrank.models.mmoe import MMoEConfig
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig, input_columns
from polyrank.models.single_task import SingleTaskConfig

LAYOUT = Layout(
    (
        Field("user", "id", 0, 1, "user"),
        Field("history", "sequence", 1, 3, "video"),
        Field("age", "number", 3, 4, "age", dense=0),
        Field("video", "id", 4, 5, "video"),
    ),
    {"user": 5, "video": 6, "age": 4},
)
TASKS = (Task("click", "binary"), Task("watch", "regression"))
STATISTICS = (TaskStatistics(100, 0.2, 0.4), TaskStatistics(20, 30.0, 12.0))
ROWS = 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(**common):
    config = RankerConfig(**({"architecture": "mmoe", "embedding_width": 4, "towers": (5,)} | common))
    return Ranker(TASKS, STATISTICS, LAYOUT, config, MMoEConfig(experts=3, widths=(7,)))


def batch(rows=ROWS):
    tops = torch.tensor([5, 6, 6, 4, 6])
    ids = (torch.rand(rows, 5) * tops).to(torch.int32)
    return Batch(ids, torch.randn(rows, 1), torch.zeros(rows, 2), torch.ones(rows, 2, dtype=torch.bool))


def test_is_its_parts_in_a_row():
    ranker, rows = made(), batch()
    x = ranker.embeddings(rows.ids, rows.dense)
    torch.testing.assert_close(ranker.represent(rows).written(), x.written())
    logits = ranker.towers(ranker.architecture(x))
    torch.testing.assert_close(ranker(rows), logits)
    torch.testing.assert_close(ranker.predict(rows), ranker.heads.predict(logits, rows.ids))
    assert [gate.owner for gate in ranker.gates(rows)] == [0, 1]


def test_the_input_holds_singles_then_bags_then_scaled_numbers():
    ranker, rows = made(), batch()
    table, ids = ranker.embeddings.table, rows.ids.long()
    # Small tables that one feature alone reads come first: users (5 rows), ages (4), then videos.
    user, age, video = table[ids[:, 0]], table[5 + ids[:, 3]], table[9 + ids[:, 4]]
    history = []
    for row in ids[:, 1:3]:
        kept = row[row != 0]
        history.append(table[9 + kept].mean(dim=0) if len(kept) else torch.zeros(4))
    expected = torch.cat([user, age, video, torch.stack(history), rows.dense], dim=1)
    torch.testing.assert_close(ranker.represent(rows).written(), expected)


def test_untrained_with_zero_weights_it_predicts_the_base_rates():
    ranker = made()
    torch.nn.init.zeros_(ranker.towers.output.weight)
    predictions = ranker.predict(batch())
    assert predictions[:, 0].tolist() == pytest.approx([0.2] * ROWS, rel=1e-6)
    assert predictions[:, 1].tolist() == [30.0] * ROWS


def test_predictions_are_no_double_sigmoid():
    ranker, rows = made(), batch()
    logits = ranker(rows).detach()
    predictions = ranker.predict(rows).detach()
    torch.testing.assert_close(torch.logit(predictions[:, 0]), logits[:, 0])
    torch.testing.assert_close(predictions[:, 1], 30 + 12 * logits[:, 1])


def test_dense_parameters_are_all_but_the_table():
    ranker = made()
    names = {name for name, _ in ranker.dense_parameters()}
    assert names == {name for name, _ in ranker.named_parameters()} - {"embeddings.table"}
    assert ranker.parameter_count() == sum(p.numel() for _, p in ranker.dense_parameters()) + 15 * 4
    width = 4 * 4 + 1
    architecture = 3 * (width * 7 + 7) + 2 * 3 * width
    towers = 2 * (7 * 5 + 5 + 5 + 1)
    assert ranker.parameter_count() == 15 * 4 + architecture + towers


def test_dropouts_act_where_they_are_named():
    rows = batch(200)
    ranker = made(embedding_dropout=0.5)
    x = ranker.represent(rows).written()
    whole = ranker.eval().represent(rows).written()
    kept = x != 0
    torch.testing.assert_close(x[kept], 2 * whole[kept])
    assert kept[whole != 0].float().mean().item() == pytest.approx(0.5, abs=0.05)
    towers = made(tower_dropout=0.5)
    assert torch.equal(towers.represent(rows).written(), towers.represent(rows).written())
    assert not torch.equal(towers(rows), towers(rows))


def test_a_layout_without_numbers_has_no_dense_input():
    layout = Layout((Field("user", "id", 0, 1, "user"),), {"user": 5})
    ranker = Ranker(TASKS, STATISTICS, layout, RankerConfig(embedding_width=4), MMoEConfig())
    rows = Batch(torch.zeros(3, 1, dtype=torch.int32), torch.zeros(3, 0), torch.zeros(3, 2), torch.ones(3, 2) > 0)
    assert ranker.represent(rows).written().shape == (3, 4)
    assert ranker(rows).shape == (3, 2)


def test_where_features_and_sets_stand():
    # two sets of two: user | age | video | history (singles first, bags last), then the one number, which is age's
    ranker = made()
    assert ranker.embeddings.order == [0, 2, 3, 1]
    columns = input_columns(LAYOUT, ranker.embeddings.order, 2, 2)
    assert columns.features == {
        "user": [0, 1, 2, 3],
        "age": [4, 5, 6, 7, 16],
        "video": [8, 9, 10, 11],
        "history": [12, 13, 14, 15],
    }
    assert columns.sets == [[0, 1, 4, 5, 8, 9, 12, 13, 16], [2, 3, 6, 7, 10, 11, 14, 15, 16]]


def test_columns_are_those_of_the_input():
    ranker, rows = made(), batch()
    x = ranker.represent(rows).written()
    columns = input_columns(LAYOUT, ranker.embeddings.order, 4, 1)
    table, ids = ranker.embeddings.table, rows.ids.long()
    torch.testing.assert_close(x[:, columns.of(["age"])], torch.cat([table[5 + ids[:, 3]], rows.dense], dim=1))
    torch.testing.assert_close(x[:, columns.of(["video"])], table[9 + ids[:, 4]])
    assert columns.sets == [list(range(17))]


def test_single_task_refuses_two_tasks():
    config = RankerConfig(architecture="single_task")
    with pytest.raises(ValueError, match="one task"):
        Ranker(TASKS, STATISTICS, LAYOUT, config, SingleTaskConfig())


def test_one_seed_gives_one_model():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(made().state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embeddings.table"], other["embeddings.table"])


def test_the_registry_names_configs_that_are_frozen():
    assert list(ARCHITECTURES)[:1] == ["single_task"]
    for entry in ARCHITECTURES.values():
        config = entry.config()
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.widths = (1,)


def test_predicts_what_a_fitted_schema_encodes(fitted):
    encoders, source = fitted(64)
    rows = as_batch(encoders.encode(next(iter(source.batches(encoders.schema.columns(labels=True))))), encoders.schema)
    ranker = Ranker(
        encoders.schema.tasks, encoders.statistics, encoders.layout, RankerConfig(embedding_width=4), MMoEConfig()
    )
    predictions = ranker.predict(rows)
    assert predictions.shape == (rows.rows, 3)
    assert predictions.dtype == torch.float32
    assert np.isfinite(predictions.detach().numpy()).all()
    assert ((predictions[:, :2] > 0) & (predictions[:, :2] < 1)).all()
