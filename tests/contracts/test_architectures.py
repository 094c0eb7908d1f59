"""What every architecture in the registry promises; a new entry is tested the day it is added."""

import dataclasses

import numpy as np
import pytest
import torch

from polyrank import config
from polyrank.data.encoders import Encoded, Field, Layout, TaskStatistics
from polyrank.data.loader import Batch, as_batch
from polyrank.data.schema import Feature, Schema, Task
from polyrank.models.home import HoMEConfig
from polyrank.models.mmoe import MMoEConfig
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.models.shared_bottom import SharedBottomConfig
from polyrank.models.single_task import SingleTaskConfig
from polyrank.nn import embeddings
from polyrank.nn.embeddings import NARROW_ROWS
from polyrank.nn.experts import SHARED, Level
from polyrank.nn.towers import Towers
from polyrank.training.checkpoint import load_checkpoint, save_checkpoint

TASKS = (
    Task("click", "binary"),
    Task("watch", "regression", given="click"),
    Task("like", "binary", given="click"),
)
SCHEMA = Schema(
    (
        Feature("user", "id"),
        Feature("video", "id"),
        Feature("history", "sequence", shares="video", max_length=3),
        Feature("age", "number"),
    ),
    TASKS,
)
LAYOUT = Layout(
    (
        Field("user", "id", 0, 1, "user"),
        Field("video", "id", 1, 2, "video"),
        Field("history", "sequence", 2, 5, "video"),
        Field("age", "number", 5, 6, "age", dense=0),
    ),
    {"user": 20, "video": 15, "age": 8},
)
STATISTICS = (TaskStatistics(64, 0.5, 0.5), TaskStatistics(32, 20.0, 9.0), TaskStatistics(32, 0.3, 0.46))
ROWS = 64
CASES = [(name, tasks) for name in ARCHITECTURES for tasks in ((1,) if name == "single_task" else (2, 3))]
# In training snr_trans draws its connections anew at every step, and HoME normalises by the batch's statistics.
OWN_TRAINING = {"snr_trans", "home"}
BY_ROW = {"home": HoMEConfig(layer_norm=True)}  # by default a row matters to others: through the batch's statistics
GATES = ("selectors", "choice")  # whose weights start at zero
ROUNDING = {"home": 1e-6, "stem": 3e-7}  # small gradients there are what is left of large terms that cancel
every_architecture = pytest.mark.parametrize(("name", "tasks"), CASES)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ranker_of(name, tasks, options=None, **common):
    common = {"architecture": name, "embedding_width": 4, "towers": (8,)} | common
    options = options or ARCHITECTURES[name].config()
    return Ranker(TASKS[:tasks], STATISTICS[:tasks], LAYOUT, RankerConfig(**common), options)


def labels_of(rows, seed):
    rng = np.random.default_rng(seed)
    click = rng.random(rows) < 0.5
    labels = np.stack([click, np.where(click, rng.exponential(20, rows), np.nan), np.where(click, 1, np.nan)], axis=1)
    labels[:, 2] *= rng.random(rows) < 0.4
    labels[5, 1] = np.nan  # a click whose watch time was not logged
    return labels.astype(np.float32)


def batch_of(tasks, *, rows=ROWS, labels=None, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, [20, 15, 15, 15, 15, 8], (rows, 6)).astype(np.int32)
    ids[::3, 3] = 0  # padding in the middle of a sequence
    ids[1::8, 2:5] = 0  # an empty one
    labels = labels_of(rows, seed) if labels is None else labels
    dense = rng.normal(size=(rows, 1)).astype(np.float32)
    none = np.zeros((rows, 0), np.float32)
    return as_batch(Encoded(ids, dense, labels, none, np.zeros(0, np.int64)), SCHEMA, range(tasks))


def selected(batch, rows):
    return batch.mapped(lambda part: part[rows])


def still(ranker, name):
    """As it trains; as it predicts where that is another function, by its paper."""
    return ranker.eval() if name in OWN_TRAINING else ranker


def losses_of(ranker, batch):
    """As the training loop computes them."""
    return ranker.losses(ranker(batch), batch)


def touched_of(ranker):
    """(table row, gradient) of every row that the last batch touched."""
    found = []
    for touched in ranker.embeddings.touched():
        for start, count in zip(touched.starts.tolist(), touched.counts.tolist(), strict=True):
            rows = touched.rows[start : start + count].tolist()
            found += zip(rows, touched.sums[start : start + count].clone(), strict=True)
    return found


def gradients(ranker, batch):
    """Losses, every dense parameter's gradient, and the table's as if it were dense; each time with the same noise."""
    torch.manual_seed(0)
    ranker.zero_grad()
    losses = losses_of(ranker, batch)
    losses.sum().backward()
    table = torch.zeros_like(ranker.embeddings.table)
    for row, sums in touched_of(ranker):
        table[row] += sums
    dense = {name: parameter.grad.clone() for name, parameter in ranker.dense_parameters()}
    return losses.detach(), dense | {"table": table}


@every_architecture
def test_shapes(name, tasks):
    ranker, batch = ranker_of(name, tasks), batch_of(tasks)
    model = ranker.architecture
    assert model(ranker.represent(batch)).shape == (tasks, ROWS, model.out_width)
    assert ranker(batch).shape == (ROWS, tasks)


@every_architecture
def test_every_parameter_receives_a_gradient(name, tasks):
    # Towers wide enough that none is dead on the only row of some id.
    ranker, batch = ranker_of(name, tasks, towers=(32,)), batch_of(tasks)
    _, found = gradients(ranker, batch)
    assert [parameter for parameter, gradient in found.items() if not gradient.any()] == []
    losses_of(ranker, batch).sum().backward()
    touched = touched_of(ranker)
    # the users, ages and videos that stand in the batch, each once; no other row is named at all
    users, videos, *history, ages = (set(column.tolist()) for column in batch.ids.t())
    seen = len(users) + len(ages) + len(videos.union(*(ids - {0} for ids in history)))
    assert len(touched) == len({row for row, _ in touched}) == seen
    assert all(sums.any() for _, sums in touched)
    assert ranker.embeddings.table.grad is None


@every_architecture
def test_permuting_rows_permutes_outputs(name, tasks):
    ranker, batch = still(ranker_of(name, tasks), name), batch_of(tasks)
    order = torch.randperm(ROWS)
    torch.testing.assert_close(ranker(selected(batch, order)), ranker(batch)[order], rtol=0, atol=1e-6)


@every_architecture
def test_a_row_alone_is_what_it_is_among_others(name, tasks):
    ranker, batch = still(ranker_of(name, tasks), name), batch_of(tasks)
    whole = ranker(batch)
    for row in (0, 1, ROWS - 1):  # row 1 has an empty sequence
        alone = ranker(selected(batch, slice(row, row + 1)))
        assert alone.shape == (1, tasks)
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-6)


@every_architecture
@pytest.mark.parametrize("row", [0, 1])
def test_a_batch_of_one_row_trains(name, tasks, row):
    losses, found = gradients(ranker_of(name, tasks), selected(batch_of(tasks), slice(row, row + 1)))
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


@every_architecture
def test_a_task_without_rows_has_loss_zero_and_finite_gradients(name, tasks):
    for empty in range(tasks):
        labels = labels_of(ROWS, 0)
        labels[:, empty] = np.nan
        ranker = ranker_of(name, tasks)
        losses, found = gradients(ranker, batch_of(tasks, labels=labels))
        assert losses[empty].item() == 0.0
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
        assert not found["towers.output.weight"][empty].any()
        assert not found["towers.hidden.layers.0.weight"][empty].any()


@every_architecture
def test_a_batch_without_any_label_gives_no_gradient(name, tasks):
    losses, found = gradients(ranker_of(name, tasks), batch_of(tasks, labels=np.full((ROWS, 3), np.nan, np.float32)))
    assert not losses.any()
    assert not any(gradient.any() for gradient in found.values())


@every_architecture
def test_labels_outside_the_sample_space_change_nothing(name, tasks):
    """A missing label, any other label, and a strange number in the batch itself give the same loss and gradient."""
    ranker = ranker_of(name, tasks)
    missing = labels_of(ROWS, 0)
    present = missing.copy()
    outside = missing[:, 0] == 0
    present[outside, 1:] = (1e6, 1.0)
    batch = batch_of(tasks, labels=missing)
    losses, found = gradients(ranker, batch)
    strange = dataclasses.replace(batch, labels=torch.where(batch.where, batch.labels, 1e30))
    for other in (batch_of(tasks, labels=present), strange):
        assert torch.equal(other.where, batch.where)
        again, same = gradients(ranker, other)
        assert torch.equal(again, losses)
        assert all(torch.equal(same[key], found[key]) for key in found)


@every_architecture
def test_a_masked_row_is_as_if_it_were_not_there(name, tasks):
    labels = labels_of(ROWS, 0)
    labels[10:30] = np.nan
    ranker, batch = ranker_of(name, tasks, BY_ROW.get(name)), batch_of(tasks, labels=labels)
    kept = torch.cat([torch.arange(10), torch.arange(30, ROWS)])
    losses, found = gradients(ranker, batch)
    again, same = gradients(ranker, selected(batch, kept))
    torch.testing.assert_close(again, losses, rtol=0, atol=1e-6)
    for key in found:
        torch.testing.assert_close(same[key], found[key], rtol=1e-4, atol=1e-6)


@every_architecture
def test_gates_say_what_they_mix(name, tasks):
    ranker, batch = ranker_of(name, tasks), batch_of(tasks)
    torch.nn.init.normal_(next(ranker.architecture.parameters()))  # gates start uniform
    gates = ranker.gates(batch)
    owners = [(gate.level, gate.owner) for gate in gates]
    assert len(set(owners)) == len(owners)
    if gates:
        first = {owner for level, owner in owners if level == 1}
        assert first >= set(range(tasks)) or SHARED in first
    for gate in gates:
        assert gate.level >= 1
        assert gate.owner in (SHARED, *range(tasks))
        assert gate.weights.shape == (ROWS, len(gate.experts))
        assert (gate.weights >= 0).all()
        torch.testing.assert_close(gate.weights.sum(dim=1), torch.ones(ROWS), rtol=0, atol=1e-6)
        assert len(set(gate.experts)) == len(gate.experts)
        for owner, number in gate.experts:
            assert owner in (SHARED, *range(tasks))
            assert number >= 0


@every_architecture
def test_looking_at_gates_changes_nothing(name, tasks):
    ranker, batch = still(ranker_of(name, tasks), name), batch_of(tasks)
    before = ranker(batch)
    ranker.gates(batch)
    assert torch.equal(ranker(batch), before)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_default_config_survives_a_file(name, tmp_path):
    kind = ARCHITECTURES[name].config
    default = kind()
    assert config.build(kind, config.to_table(default), name) == default
    config.write_toml(tmp_path / "config.toml", config.to_table(default))
    assert config.build(kind, config.read_toml(tmp_path / "config.toml"), name) == default


@every_architecture
def test_a_checkpoint_holds_the_whole_model(name, tasks, tmp_path):
    ranker, batch = ranker_of(name, tasks), batch_of(tasks)
    for parameter in ranker.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"model": ranker.state_dict()})
    torch.manual_seed(1)
    other = still(ranker_of(name, tasks), name)
    still(ranker, name)
    assert not torch.equal(other(batch), ranker(batch))
    other.load_state_dict(load_checkpoint(path)["model"])
    assert torch.equal(other(batch), ranker(batch))
    assert torch.equal(other.predict(batch), ranker.predict(batch))


@every_architecture
def test_no_two_units_start_alike(name, tasks):
    """Neither within an expert nor between experts; gates alone start equal, at zero."""
    for parameter, value in ranker_of(name, tasks).dense_parameters():
        if not parameter.endswith("weight"):
            continue  # biases, and coefficients of which there is one a connection
        units = value.detach().transpose(-1, -2).reshape(-1, value.shape[-2])
        units = units[units.any(dim=1)]
        assert len(units.unique(dim=0)) == len(units), parameter
        assert len(units) > 0 or any(gate in parameter for gate in GATES), parameter


@every_architecture
def test_evaluation_is_deterministic_under_dropout(name, tasks):
    kind = ARCHITECTURES[name].config
    dropouts = {field.name: 0.5 for field in dataclasses.fields(kind) if "dropout" in field.name}
    assert dropouts, "every architecture can drop activations"
    ranker, batch = ranker_of(name, tasks, kind(**dropouts)), batch_of(tasks)
    assert not torch.equal(ranker(batch), ranker(batch))
    plain = ranker_of(name, tasks)
    plain.load_state_dict(ranker.state_dict())
    ranker.eval()
    still(plain, name)
    assert torch.equal(ranker(batch), ranker(batch))
    torch.testing.assert_close(ranker(batch), plain(batch))


@every_architecture
def test_a_few_steps_learn_something(name, tasks):
    ranker, batch = ranker_of(name, tasks), batch_of(tasks)
    optimizer = torch.optim.Adam([parameter for _, parameter in ranker.dense_parameters()], lr=0.01)
    first = losses_of(still(ranker, name), batch).detach()
    ranker.train()
    for _ in range(40):
        optimizer.zero_grad()
        losses_of(ranker, batch).sum().backward()
        optimizer.step()
    assert (losses_of(still(ranker, name), batch) < first).all()


@every_architecture
def test_a_penalty_is_a_number_that_only_its_own_parameters_feel(name, tasks):
    ranker, batch = ranker_of(name, tasks), batch_of(tasks)
    losses = losses_of(ranker, batch)
    penalty = ranker.penalty()
    if penalty is None:
        return
    assert penalty.shape == ()
    assert penalty >= 0
    torch.autograd.backward(penalty, retain_graph=True)
    grown = {n: p.grad for n, p in ranker.dense_parameters() if p.grad is not None}
    assert any(gradient.any() for gradient in grown.values())
    assert all(torch.isfinite(gradient).all() for gradient in grown.values())
    assert not any(n.startswith("towers.") for n in grown)
    losses.sum().backward()  # the losses' graph is still there


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shared_bottom", SharedBottomConfig(widths=(16, 8))),
        ("mmoe", MMoEConfig(experts=1, widths=(16, 8))),
    ],
)
def test_one_task_needs_no_sharing(name, options):
    """With one task (and one expert) these are the single-task network of the same widths."""
    alone, other = ranker_of("single_task", 1, SingleTaskConfig(widths=(16, 8))), ranker_of(name, 1, options)
    state = {key: value for key, value in alone.state_dict().items() if not key.startswith("architecture.")}
    place = "trunk" if name == "shared_bottom" else "level"
    for key, value in alone.architecture.network.state_dict().items():
        state[f"architecture.{place}.{key}"] = value
    if name == "mmoe":
        weight = state["architecture.level.groups.0.weight"]
        gate = torch.randn(len(weight), 1)  # the softmax over one expert is 1 whatever it says
        state["architecture.level.groups.0.weight"] = torch.cat([weight, gate], dim=1)
    other.load_state_dict(state)
    batch = batch_of(1)
    torch.testing.assert_close(other(batch), alone(batch), rtol=0, atol=1e-6)


class TestBothPaths:
    """Compiled kernels and plain torch give the same logits, gate weights and gradients."""

    LAYOUT = Layout(
        (
            Field("user", "id", 0, 1, "user"),  # a large table
            Field("history", "sequence", 1, 4, "video"),
            Field("sex", "category", 4, 5, "sex"),  # small ones: left as ids for the first layer
            Field("video", "id", 5, 6, "video"),  # a shared table
            Field("age", "number", 6, 7, "age", dense=0),
            Field("tags", "tags", 7, 9, "tags"),
            Field("price", "number", 9, 10, "price", dense=1),
        ),
        {"user": NARROW_ROWS + 7, "video": 30, "sex": 3, "age": 12, "tags": 5, "price": 20},
    )
    SIZES = (NARROW_ROWS + 7, 30, 30, 30, 3, 30, 12, 5, 5, 20)

    @classmethod
    def batch(cls, tasks):
        rng = np.random.default_rng(3)
        ids = rng.integers(0, cls.SIZES, (ROWS, len(cls.SIZES))).astype(np.int32)
        ids[:, 4] = np.where(rng.random(ROWS) < 0.7, 2, ids[:, 4])  # a usual value
        ids[:, 9] = 0  # a constant column
        ids[::4, 1:4] = 0  # empty bags
        ids[0, 0], ids[1, 0] = 0, NARROW_ROWS + 6  # a table's ends
        labels = torch.from_numpy(np.nan_to_num(labels_of(ROWS, 0))[:, :tasks])
        numbers = torch.from_numpy(rng.normal(size=(ROWS, 2)).astype(np.float32))
        return Batch(torch.from_numpy(ids), numbers, labels, torch.ones(ROWS, tasks, dtype=torch.bool))

    @classmethod
    def made(cls, name, tasks, dropout, hidden):
        options = dataclasses.replace(BY_ROW.get(name, ARCHITECTURES[name].config()), widths=hidden, dropout=dropout)
        common = RankerConfig(architecture=name, embedding_width=6, towers=(9, 5), tower_dropout=dropout)
        torch.manual_seed(1)
        ranker = Ranker(TASKS[:tasks], STATISTICS[:tasks], cls.LAYOUT, common, options)
        for parameter in ranker.parameters():
            # Gates start uniform, biases at zero; biases below it would leave units without gradient.
            torch.nn.init.normal_(parameter, mean=0.2 * (parameter.ndim in (1, 3)), std=0.2)
        return ranker

    @every_architecture
    @pytest.mark.parametrize("dropout", [0.0, 0.3])
    @pytest.mark.parametrize("hidden", [(32,), (24, 16)])
    def test_agree(self, name, tasks, dropout, hidden, monkeypatch):
        batch = self.batch(tasks)
        ranker = self.made(name, tasks, dropout, hidden)
        assert ranker.represent(batch).narrow is not None
        torch.manual_seed(2)
        losses, found = gradients(ranker, batch)
        gates = ranker.eval().gates(batch)
        logits = ranker(batch)
        with monkeypatch.context() as plain:
            plain.setattr(Level, "forward", Level.plainly)
            plain.setattr(Towers, "forward", Towers.plainly)
            plain.setattr(embeddings, "kernels", None)
            ranker = self.made(name, tasks, dropout, hidden)
            torch.manual_seed(2)
            expected_losses, expected = gradients(ranker, batch)
            expected_gates = ranker.eval().gates(batch)
            expected_logits = ranker(batch)
        torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-6)
        for gate, other in zip(gates, expected_gates, strict=True):
            torch.testing.assert_close(gate.weights, other.weights, rtol=1e-5, atol=1e-6)
        for key, gradient in expected.items():
            largest = gradient.abs().max().item()
            assert largest > 0, key
            torch.testing.assert_close(
                found[key], gradient, rtol=1e-4, atol=max(1e-5 * largest, ROUNDING.get(name, 0.0))
            )
