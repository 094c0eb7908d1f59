"""What every option of the feature side promises, with every architecture; a new option is a new line in OPTIONS."""

import dataclasses

import numpy as np
import pytest
import torch

from polyrank import config
from polyrank.data.encoders import TaskStatistics
from polyrank.data.layout import Encoded, Field, Layout
from polyrank.data.loader import as_batch
from polyrank.data.schema import Feature, Schema, Task
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.nn import embeddings
from polyrank.nn.cross import CrossConfig
from polyrank.nn.ensemble import EnsembleConfig
from polyrank.nn.gating import FeatureGateConfig
from polyrank.nn.numeric import NumberConfig
from polyrank.nn.sequences import SequenceConfig

TASKS = (Task("click", "binary"), Task("like", "binary", given="click"))
SCHEMA = Schema(
    (
        Feature("user", "id"),
        Feature("video", "id"),
        Feature("seen", "sequence", shares="video"),
        Feature("age", "number"),
    ),
    TASKS,
)
LAYOUT = Layout(
    (
        Field("user", "id", 0, 1, "user"),
        Field("video", "id", 1, 2, "video"),
        Field("seen", "sequence", 2, 5, "video"),
        Field("age", "number", 5, 6, "age", dense=0),
    ),
    {"user": 20, "video": 15, "age": 8},
    {"age": (-1.0, -0.5, 0.0, 0.5, 1.0)},
)
STATISTICS = (TaskStatistics(64, 0.5, 0.5), TaskStatistics(32, 0.3, 0.46))
ROWS = 32
OPTIONS = {
    "din": {"sequence": SequenceConfig("din", units=(6,))},
    "transformer": {"sequence": SequenceConfig("transformer", feedforward=8)},
    "cross": {"cross": CrossConfig(layers=2, rank=3)},
    "cross full": {"cross": CrossConfig(layers=1, rank=0)},
    "cross mixture": {"cross": CrossConfig(layers=2, rank=3, experts=2)},
    "piecewise": {"number": NumberConfig("piecewise", width=3)},
    "periodic": {"number": NumberConfig("periodic", width=3, frequencies=4, frequency_scale=0.5)},
    "gate": {"feature_gate": FeatureGateConfig(on=True, reduction=1)},
    "first order": {"first_order": True},
    "members": {"ensemble": EnsembleConfig(3)},
}
OPTIONS["all"] = {key: value for options in OPTIONS.values() for key, value in options.items()}
every_option = pytest.mark.parametrize("option", OPTIONS)
everywhere = pytest.mark.parametrize(
    ("name", "option"),
    [*((name, "all") for name in ARCHITECTURES), *(("mmoe", option) for option in OPTIONS if option != "all")],
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ranker_of(option, name="mmoe", **common):
    tasks = 1 if name == "single_task" else 2
    common = {"architecture": name, "embedding_width": 4, "towers": (5,)} | common | OPTIONS[option]
    ranker = Ranker(TASKS[:tasks], STATISTICS[:tasks], LAYOUT, RankerConfig(**common), ARCHITECTURES[name].config())
    for parameter in ranker.parameters():  # gates, first-order weights and biases start at zero
        torch.nn.init.normal_(parameter, std=0.4)
    return ranker


def batch_of(ranker, rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, [20, 15, 15, 15, 15, 8], (rows, 6)).astype(np.int32)
    ids[np.arange(rows) % 3 == 1, 4] = 0
    ids[np.arange(rows) % 8 == 1, 2:5] = 0  # an empty sequence
    click = rng.random(rows) < 0.5
    labels = np.stack([click, np.where(click, rng.random(rows) < 0.5, np.nan)], axis=1).astype(np.float32)
    dense, none = rng.normal(size=(rows, 1)).astype(np.float32), np.zeros((rows, 0), np.float32)
    tasks = range(len(ranker.heads.kinds))
    return as_batch(Encoded(ids, dense, labels, none, np.zeros(0, np.int64)), SCHEMA, tasks)


def selected(batch, rows):
    return batch.mapped(lambda part: part[rows])


def losses_of(ranker, batch):
    """As the training loop computes them."""
    return ranker.losses(ranker(batch), ranker.views(batch))


def gradients(ranker, batch):
    ranker.zero_grad()
    losses = losses_of(ranker, batch)
    losses.sum().backward()
    table = torch.zeros_like(ranker.embeddings.table)
    for touched in ranker.embeddings.touched():
        for start, count in zip(touched.starts.tolist(), touched.counts.tolist(), strict=True):
            table[touched.rows[start : start + count]] += touched.sums[start : start + count]
    return losses.detach(), {n: p.grad.clone() for n, p in ranker.dense_parameters()} | {"table": table}


@everywhere
def test_every_parameter_receives_a_gradient(name, option):
    ranker = ranker_of(option, name)
    _, found = gradients(ranker, batch_of(ranker))
    assert [parameter for parameter, gradient in found.items() if not gradient.any()] == []


@everywhere
def test_rows_do_not_see_each_other(name, option):
    """Permuted rows give permuted predictions; a row alone is what it is among others, with an empty sequence too."""
    ranker = ranker_of(option, name).eval()
    batch = batch_of(ranker)
    whole, order = ranker.predict(batch), torch.randperm(ROWS)
    assert whole.shape == (ROWS, len(ranker.heads.kinds))
    torch.testing.assert_close(ranker.predict(selected(batch, order)), whole[order], rtol=0, atol=1e-5)
    for row in (0, 1):
        torch.testing.assert_close(ranker.predict(selected(batch, [row])), whole[row : row + 1], rtol=0, atol=1e-5)


@every_option
@pytest.mark.parametrize("row", [0, 1])
def test_a_batch_of_one_row_trains(option, row):
    ranker = ranker_of(option)
    losses, found = gradients(ranker, selected(batch_of(ranker), [row]))
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


@every_option
def test_a_checkpoint_holds_the_whole_model(option):
    ranker, other = ranker_of(option), ranker_of(option)
    batch = batch_of(ranker)
    assert not torch.equal(other.predict(batch), ranker.predict(batch))
    other.load_state_dict(ranker.state_dict())
    assert torch.equal(other.predict(batch), ranker.predict(batch))


@every_option
def test_evaluation_is_deterministic_under_dropout(option):
    ranker = ranker_of(option, embedding_dropout=0.5, tower_dropout=0.5)
    batch = batch_of(ranker)
    assert not torch.equal(ranker(batch), ranker(batch))
    ranker.eval()
    assert torch.equal(ranker(batch), ranker(batch))


@every_option
def test_a_few_steps_learn_something(option):
    ranker = ranker_of(option)
    batch = batch_of(ranker)
    optimizer = torch.optim.Adam([parameter for _, parameter in ranker.dense_parameters()], lr=0.01)
    first = losses_of(ranker, batch).detach()
    for _ in range(40):
        optimizer.zero_grad()
        losses_of(ranker, batch).sum().backward()
        optimizer.step()
    assert (losses_of(ranker, batch) < first).all()


@everywhere
def test_gates_are_a_mean_over_the_members(name, option):
    ranker = ranker_of(option, name)
    for gate in ranker.gates(batch_of(ranker)):
        assert gate.weights.shape == (ROWS, len(gate.experts))
        torch.testing.assert_close(gate.weights.sum(dim=1), torch.ones(ROWS), rtol=0, atol=1e-5)


@every_option
def test_kernels_and_plain_torch_agree(option, monkeypatch):
    ranker = ranker_of(option)
    batch = batch_of(ranker)
    losses, found = gradients(ranker, batch)
    monkeypatch.setattr(embeddings, "kernels", None)
    expected_losses, expected = gradients(ranker, batch)
    torch.testing.assert_close(losses, expected_losses)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6)


@every_option
def test_options_survive_a_file(option, tmp_path):
    wanted = RankerConfig(**OPTIONS[option])
    config.write_toml(tmp_path / "model.toml", config.to_table(wanted))
    assert config.build(RankerConfig, config.read_toml(tmp_path / "model.toml"), "model") == wanted


def test_members_each_have_their_own_loss():
    """ℓ of each member, averaged; the prediction is the mean of probabilities, not the probability of the mean."""
    ranker = ranker_of("members")
    batch = batch_of(ranker)
    logits = ranker(batch).view(3, ROWS, 2)
    each = torch.stack([ranker.losses(z, batch) for z in logits])
    torch.testing.assert_close(losses_of(ranker, batch), each.mean(dim=0))
    torch.testing.assert_close(ranker.predict(batch), torch.sigmoid(logits).mean(dim=0))
    assert (ranker.predict(batch) - torch.sigmoid(logits.mean(dim=0))).abs().max() > 1e-4
    assert torch.sigmoid(torch.tensor([0.0, 2.0])).mean().item() == pytest.approx(0.690399, abs=1e-6)


def test_a_members_towers_are_its_own():
    ranker = ranker_of("members")
    logits = ranker(batch_of(ranker)).view(3, ROWS, 2)
    with torch.no_grad():
        ranker.towers.output.bias[1] += 1.0  # task 0, member 1
    after = ranker(batch_of(ranker)).view(3, ROWS, 2)
    changed = (after - logits).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [[False, False], [True, False], [False, False]]


def test_options_are_off_by_default():
    plain = RankerConfig()
    assert all(getattr(plain, key) != value for key, value in OPTIONS["all"].items())
    assert dataclasses.replace(plain, **{key: getattr(plain, key) for key in OPTIONS["all"]}) == plain
