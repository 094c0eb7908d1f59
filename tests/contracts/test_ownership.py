"""Every architecture says truly which of its parameters belong to one task, and balancers treat them so."""

import numpy as np
import pytest
import torch

from polyrank.data.encoders import Encoded, Field, Layout, TaskStatistics
from polyrank.data.loader import as_batch
from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import ConfigError
from polyrank.models.dselect_k import DSelectKConfig
from polyrank.models.home import HoMEConfig
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.nn.experts import SHARED
from polyrank.training.step import Junction, TrainingStep

TASKS = tuple(Task(name, "binary") for name in ("click", "like", "watch"))
SCHEMA = Schema((Feature("user", "id"), Feature("age", "number")), TASKS)
LAYOUT = Layout(
    (Field("user", "id", 0, 1, "user"), Field("age", "number", 1, 2, "age", dense=0)), {"user": 30, "age": 8}
)
STATISTICS = tuple(TaskStatistics(64, 0.4, 0.5) for _ in TASKS)
ROWS = 60
CASES = {name: (name, entry.config()) for name, entry in ARCHITECTURES.items() if name != "single_task"}
CASES["dselect_k"] = "dselect_k", DSelectKConfig(gamma=20.0)  # wide steps: no gate is shut
CASES["home of two categories"] = "home", HoMEConfig(categories={"one": ("click", "watch"), "two": ("like",)})
every_architecture = pytest.mark.parametrize("case", CASES)


def made(case, spread=0.3):
    """A ranker with random weights, and a batch with missing labels."""
    torch.manual_seed(0)
    name, options = CASES[case]
    ranker = Ranker(TASKS, STATISTICS, LAYOUT, RankerConfig(architecture=name, embedding_width=4, towers=(8,)), options)
    for key, parameter in ranker.architecture.named_parameters():
        torch.nn.init.normal_(parameter, mean=float(key.endswith("bias")), std=spread)
        if key.endswith("log_alpha"):
            torch.nn.init.constant_(parameter, 1.0)  # routes: most of them open
    rng = np.random.default_rng(0)
    ids = rng.integers(0, [30, 8], (ROWS, 2)).astype(np.int32)
    labels = (rng.random((ROWS, 3)) < 0.4).astype(np.float32)
    labels[rng.random((ROWS, 3)) < 0.2] = np.nan
    dense, none = rng.normal(size=(ROWS, 1)).astype(np.float32), np.zeros((ROWS, 0), np.float32)
    return ranker, as_batch(Encoded(ids, dense, labels, none, np.zeros(0, np.int64)), SCHEMA, range(3))


def losses_of(ranker, batch):
    torch.manual_seed(1)  # the same noise each time
    return ranker.losses(ranker(batch), batch)


def owners_of(ranker):
    """Of every element of every parameter of the architecture."""
    slices = {id(parameter): owners for parameter, owners in Junction(ranker, 3).slices}
    named = dict(ranker.architecture.named_parameters())
    return {key: slices.get(id(p), torch.tensor(SHARED)).expand_as(p) for key, p in named.items()}


@every_architecture
def test_own_is_what_one_tasks_vector_alone_depends_on(case):
    ranker, batch = made(case, spread=0.05)  # beside biases of 1, so that hardly a unit is dead
    named = dict(ranker.architecture.named_parameters())
    vectors = ranker.architecture(ranker.represent(batch))
    reached = []
    for vector in vectors:
        found = torch.autograd.grad(
            vector, list(named.values()), torch.randn(vector.shape), retain_graph=True, allow_unused=True
        )
        reached.append([torch.zeros_like(p) if f is None else f for p, f in zip(named.values(), found, strict=True)])
    for (key, owners), *by_task in zip(owners_of(ranker).items(), *reached, strict=True):
        tasks = torch.stack(by_task) != 0
        for task in range(3):
            assert not (tasks[task] & (owners >= 0) & (owners != task)).any(), f"{key}: task {task} reads another's"
        for dim in range(owners.dim()):
            for index in range(owners.shape[dim]):
                part, own = tasks.select(dim + 1, index), owners.select(dim, index)
                if sum(each.any() for each in part) == 1:
                    assert not (part.any(dim=0) & (own == SHARED)).any(), f"{key}[{index}] (axis {dim}): one task's own"


@every_architecture
def test_own_parts_get_their_own_gradient_and_shared_ones_the_combination(case):
    ranker, batch = made(case)
    weights, named = torch.tensor([2.0, 0.5, 0.1]), dict(ranker.architecture.named_parameters())
    alone = []
    for task in range(3):
        losses_of(ranker, batch)[task].backward()
        alone.append({k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in named.items()})
        ranker.zero_grad(set_to_none=True)
    owners = owners_of(ranker)
    losses = losses_of(ranker, batch)
    step = TrainingStep(Junction(ranker, 3), losses_of(ranker, batch), losses.detach() > 0, lambda metric: None)
    step.pull()
    gramian = step.gramian("parameters")
    step.push(weights)
    rows = []
    for key, parameter in named.items():
        parts = torch.stack([part[key] for part in alone])
        combined = torch.einsum("t,t...->...", weights, parts)
        expected = torch.where(owners[key] >= 0, parts.sum(dim=0), combined)
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        bound = 3e-5 * max(expected.abs().max().item(), 1e-4)
        torch.testing.assert_close(found, expected, rtol=0, atol=bound, msg=lambda text, k=key: f"{k}: {text}")
        rows.append((parts * (owners[key] == SHARED)).flatten(1).double())
    shared = torch.cat(rows, dim=1)
    expected = shared @ shared.T
    torch.testing.assert_close(gramian, expected, rtol=1e-3, atol=1e-5 * expected.max().item())


@every_architecture
def test_units_are_masked_where_tasks_read_common_experts_and_refused_elsewhere(case):
    ranker, batch = made(case)
    junction = Junction(ranker, 3)
    step = TrainingStep(junction, losses_of(ranker, batch), torch.ones(3, dtype=torch.bool), lambda metric: None)
    step.pull()
    if step.cheap:
        assert step.units().shape == (3, ranker.architecture.out_width)
        assert torch.equal(step.gramian(), step.gramian("representation"))
    else:
        assert torch.equal(step.gramian(), step.gramian("parameters"))
        with pytest.raises(ConfigError, match="experts that all tasks read"):
            step.units()
