"""What every kind of task and every head promises; a new one is tested the day it is added."""

import dataclasses
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import torch

from polyrank.config import build, to_table
from polyrank.data.durations import DurationHead
from polyrank.data.encoders import Encoders, TaskStatistics
from polyrank.data.labels import read_labels
from polyrank.data.loader import as_batch
from polyrank.data.readers import table_source
from polyrank.data.schema import Feature, Schema, Task, TaskKind, load_schema, save_schema
from polyrank.errors import DataError
from polyrank.evaluation.boosting import OBJECTIVES
from polyrank.evaluation.predict import MEASURES, PRIMARY, task_metrics, with_truth
from polyrank.heads.build import DURATION_HEADS
from polyrank.models.mmoe import MMoEConfig
from polyrank.models.ranker import Ranker, RankerConfig
from polyrank.nn.ensemble import EnsembleConfig
from polyrank.nn.towers import RaggedLinear, Towers
from polyrank.training.checkpoint import load_checkpoint, save_checkpoint

KINDS = get_args(TaskKind)
HEADS = get_args(DurationHead)
CASES = [*((kind, None) for kind in KINDS if kind != "duration"), *(("duration", head) for head in HEADS)]
every_task = pytest.mark.parametrize(("kind", "head"), CASES, ids=[head or kind for kind, head in CASES])
ROWS = 400


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def schema_of(kind, head, given=""):
    task = Task("it", kind, given=given, head=head, item_duration="length" if head == "d2q" else "")
    return Schema(
        (Feature("video", "id"), Feature("length", "number", bins=4)), (task, Task("click", "binary")), "user"
    )


def log_of(kind, rows=ROWS, seed=0):
    """A log in which the label depends on the video, and for durations on the item's length; some of it is missing."""
    rng = np.random.default_rng(seed)
    video, length = rng.integers(0, 6, rows), rng.exponential(60.0, rows)
    strength = (video - 2.5) / 2
    label = {
        "binary": (rng.random(rows) < 1 / (1 + np.exp(-strength))).astype(float),
        "regression": 40 * strength + rng.normal(size=rows) - 7,
        "count": rng.poisson(np.exp(strength)).astype(float),
        "duration": length * np.exp(strength + 0.3 * rng.normal(size=rows)) * (rng.random(rows) < 0.8),
    }[kind]
    label[rng.random(rows) < 0.1] = np.nan
    length[rng.random(rows) < 0.1] = np.nan
    label[:8] = 0.0
    click = (rng.random(rows) < 0.5).astype(float)
    table = {"video": video, "length": length, "it": label, "click": click, "user": np.arange(rows) // 4}
    return pa.table(table)


def fitted(kind, head, given="", table=None):
    schema = schema_of(kind, head, given)
    return Encoders.fit(schema, table_source("the log", log_of(kind) if table is None else table, ""))


def ranker_of(encoders):
    config = RankerConfig(architecture="mmoe", embedding_width=4, towers=(16,))
    return Ranker(
        encoders.schema.tasks, encoders.statistics, encoders.layout, config, MMoEConfig(experts=2, widths=(16,))
    )


def batch_of(encoders, table):
    [chunk] = table.to_batches()
    return as_batch(encoders.encode(chunk), encoders.schema)


def trained(kind, head, steps=150):
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    optimizer = torch.optim.Adam([p for _, p in ranker.dense_parameters()], lr=0.01)
    first = ranker.losses(ranker(batch), batch).detach()
    for _ in range(steps):
        optimizer.zero_grad()
        ranker.losses(ranker(batch), batch).sum().backward()
        optimizer.step()
    return encoders, ranker, batch, first


def test_every_kind_is_known_everywhere():
    assert set(MEASURES) == set(PRIMARY) == set(OBJECTIVES) == set(KINDS)
    assert set(DURATION_HEADS) == set(HEADS)


@every_task
def test_one_value_a_task_in_the_label_s_unit(kind, head):
    """Untrained, with the output's weights at 0, a task answers what is usual."""
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    torch.nn.init.zeros_(ranker.towers.output.weight)
    predictions = ranker.predict(batch)
    assert predictions.shape == (ROWS, 2)
    assert torch.isfinite(predictions).all()
    mean = encoders.statistics[0].mean
    # D2Q answers each group's median; the others the mean of all
    close = pytest.approx(mean, rel=0.6 if head == "d2q" else 0.2, abs=0.1)
    assert predictions[:, 0].mean().item() == close


@every_task
def test_the_loss_is_about_one_at_the_start(kind, head):
    """So that no kind of task, and no unit, drowns the others before training has begun."""
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    torch.nn.init.zeros_(ranker.towers.output.weight)
    assert 0.2 < ranker.losses(ranker(batch), batch)[0].item() < 3.0


@every_task
def test_a_few_steps_learn_to_rank(kind, head):
    encoders, ranker, batch, first = trained(kind, head)
    assert (ranker.losses(ranker(batch), batch) < first).all()
    table = with_truth(
        encoders.schema,
        encoders.schema.tasks,
        ranker.predict(batch).detach().numpy(),
        np.where(batch.where, batch.labels, np.nan),
        np.arange(ROWS) // 4,
    )
    found = task_metrics(table, replicates=0)["it"]
    assert found["rows"] == batch.where[:, 0].sum()
    assert found[PRIMARY[kind]] > 0.72
    if kind == "duration":
        assert 0.6 < found["mean_ratio"] < 1.3


@every_task
def test_every_parameter_receives_a_gradient(kind, head):
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    ranker.losses(ranker(batch), batch).sum().backward()
    assert [name for name, p in ranker.dense_parameters() if p.grad is None or not p.grad.any()] == []


@every_task
def test_labels_that_do_not_count_change_nothing(kind, head):
    encoders = fitted(kind, head, given="click")
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    assert not batch.where[:, 0].all()
    losses = ranker.losses(ranker(batch), batch)
    for strange in (1e30, -1.0, float("nan")):
        other = dataclasses.replace(batch, labels=torch.where(batch.where, batch.labels, strange))
        assert torch.equal(ranker.losses(ranker(other), other), losses)
    kept = batch.where[:, 0]
    alone = batch.mapped(lambda part: part[kept])
    torch.testing.assert_close(ranker.losses(ranker(alone), alone)[0], losses[0])


@every_task
def test_no_row_of_the_task_gives_loss_zero_and_no_gradient(kind, head):
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    nowhere = dataclasses.replace(batch, where=torch.zeros_like(batch.where))
    losses = ranker.losses(ranker(nowhere), nowhere)
    losses.sum().backward()
    assert not losses.any()
    assert not any(p.grad.any() for _, p in ranker.dense_parameters())


@every_task
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_give_finite_losses_and_predictions(kind, head, scale):
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    logits = torch.full((ROWS, ranker.heads.starts[-1]), scale, requires_grad=True)
    losses = ranker.losses(logits, batch)
    losses.sum().backward()
    predictions = ranker.heads.predict(logits, batch.ids)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(predictions).all()
    if kind in ("count", "duration"):
        assert (predictions[:, 0] >= 0).all()


@every_task
def test_a_row_alone_is_what_it_is_among_others(kind, head):
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    whole = ranker.predict(batch)
    alone = ranker.predict(batch.mapped(lambda part: part[7:8]))
    torch.testing.assert_close(alone[0], whole[7], rtol=1e-5, atol=1e-5)


@every_task
def test_what_training_learned_of_labels_survives_files(kind, head, tmp_path):
    encoders = fitted(kind, head)
    save_schema(encoders.schema, tmp_path / "schema.toml")
    encoders.save(tmp_path)
    schema = load_schema(tmp_path / "schema.toml")
    loaded = Encoders.load(tmp_path, schema)
    assert schema == encoders.schema
    assert loaded.statistics == encoders.statistics
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    save_checkpoint(tmp_path / "model.safetensors", {"model": ranker.state_dict()})
    torch.manual_seed(1)
    other = ranker_of(loaded)
    other.load_state_dict(load_checkpoint(tmp_path / "model.safetensors")["model"])
    assert torch.equal(other.predict(batch), ranker.predict(batch))


@every_task
def test_a_label_with_one_value_is_refused(kind, head):
    table = log_of(kind).set_column(2, "it", pa.array(np.zeros(ROWS)))
    with pytest.raises(DataError, match="in the training data"):
        fitted(kind, head, table=table)


@every_task
def test_two_values_are_enough(kind, head):
    """Nearly all labels zero."""
    label = np.zeros(ROWS)
    label[3] = 1.0
    encoders = fitted(kind, head, table=log_of(kind).set_column(2, "it", pa.array(label)))
    ranker = ranker_of(encoders)
    batch = batch_of(encoders, log_of("binary"))
    assert torch.isfinite(ranker.losses(ranker(batch), batch)).all()
    assert torch.isfinite(ranker.predict(batch)).all()


@pytest.mark.parametrize(
    ("kind", "label", "rule"),
    [
        ("binary", 2.0, "must be 0 or 1"),
        ("count", -1.0, "0 or more"),
        ("count", 1.5, "whole number"),
        ("duration", -0.5, "0 or more"),
        ("duration", float("inf"), "finite"),
        ("regression", float("-inf"), "finite"),
    ],
)
def test_a_label_outside_its_kind_is_refused(kind, label, rule):
    schema = schema_of(kind, None)
    [chunk] = pa.table({"it": [0.0, None, label], "click": [0, 1, 0]}).to_batches()
    with pytest.raises(DataError, match=rule):
        read_labels(schema, chunk)


def test_tasks_of_one_logit_keep_the_one_product():
    for kind, head in CASES:
        towers = ranker_of(fitted(kind, head)).towers
        assert isinstance(towers, Towers)
        assert isinstance(towers.output, RaggedLinear) == (head in ("log_normal", "ordinal", "cread"))


@every_task
def test_both_paths_agree(kind, head, monkeypatch):
    encoders = fitted(kind, head)
    ranker, batch = ranker_of(encoders), batch_of(encoders, log_of(kind))
    found = ranker(batch)
    monkeypatch.setattr(Towers, "forward", Towers.plainly)
    torch.testing.assert_close(ranker(batch), found, rtol=1e-5, atol=1e-5)


@every_task
def test_members_and_first_order_terms_suit_every_head(kind, head):
    """k·B rows of logits, member after member; the prediction is the mean over members of one value a task."""
    encoders = fitted(kind, head)
    config = RankerConfig(embedding_width=4, towers=(16,), first_order=True, ensemble=EnsembleConfig(members=3))
    options = MMoEConfig(experts=2, widths=(16,))
    ranker = Ranker(encoders.schema.tasks, encoders.statistics, encoders.layout, config, options)
    batch = batch_of(encoders, log_of(kind))
    logits = ranker(batch)
    width = ranker.heads.starts[-1]
    assert logits.shape == (3 * ROWS, width)
    each = [ranker.heads.predict(part, batch.ids) for part in logits.view(3, ROWS, width)]
    torch.testing.assert_close(ranker.predict(batch), torch.stack(each).mean(dim=0))
    x, first_order = ranker.read(batch)
    states = ranker.architecture(x).reshape(6, ROWS, -1)  # task by task the members
    for member in range(3):
        place = 0
        for task, logit_count in enumerate(ranker.heads.widths):
            hidden = torch.relu(states[3 * task + member] @ ranker.towers.hidden.layers[0].weight[3 * task + member])
            output = ranker.towers.output
            if isinstance(output, RaggedLinear):
                first, end = output.columns[3 * task + member]
                expected = hidden @ output.weight[:, first:end] + output.bias[first:end]
            else:
                expected = hidden @ output.weight[3 * task + member] + output.bias[3 * task + member]
            expected = expected.clone()
            expected[:, 0] += first_order.view(3, ROWS, 2)[member, :, task]
            found = logits.view(3, ROWS, width)[member, :, place : place + logit_count]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            place += logit_count


def test_the_heads_knobs_survive_a_file():
    config = RankerConfig()
    assert build(RankerConfig, to_table(config), "model") == config


def test_statistics_of_an_older_run_are_read():
    """Runs of versions before counts and durations have no quantiles."""
    assert TaskStatistics(3, 1.0, 2.0).quantiles == ()
