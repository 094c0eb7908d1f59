"""What balancers are promised of a step, on real rankers: against each task's own backward pass through everything."""

import numpy as np
import pytest
import torch

from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.data.encoders import Encoded, Field, Layout, TaskStatistics
from polyrank.data.loader import as_batch
from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import ConfigError
from polyrank.models.cgc import CGCConfig
from polyrank.models.mmoe import MMoEConfig
from polyrank.models.ple import PLEConfig
from polyrank.models.ranker import Ranker, RankerConfig
from polyrank.models.shared_bottom import SharedBottomConfig
from polyrank.spaces import OWN, SpaceConfig
from polyrank.training.precision import computing_in
from polyrank.training.step import Junction, TrainingStep

TASKS = tuple(Task(name, "binary") for name in ("click", "like", "watch"))
CHAIN = (Task("click", "binary"), Task("like", "binary", given="click"), Task("watch", "binary"))
SCHEMA = Schema((Feature("user", "id"), Feature("age", "number")), TASKS)
LAYOUT = Layout(
    (Field("user", "id", 0, 1, "user"), Field("age", "number", 1, 2, "age", dense=0)), {"user": 3000, "age": 8}
)
STATISTICS = tuple(TaskStatistics(64, 0.4, 0.5) for _ in TASKS)
ROWS = 60
ARCHITECTURES = {
    "shared_bottom": SharedBottomConfig(widths=(16, 16)),
    "mmoe": MMoEConfig(experts=3, widths=(20, 16)),
    "cgc": CGCConfig(specific_experts=1, shared_experts=2, widths=(16,)),
    "ple": PLEConfig(levels=2, specific_experts=1, shared_experts=2, widths=(12, 16)),
    "ple of three levels": PLEConfig(levels=3, specific_experts=1, shared_experts=2, widths=(16,)),
}
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


class Case:
    """A ranker with random gates, a batch, and how to run it."""

    def __init__(self, name, seed=0, absent=(), space=OWN):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        config = RankerConfig(architecture=name.split()[0], embedding_width=4, towers=(8,))
        tasks = TASKS if space == OWN else CHAIN
        self.ranker = Ranker(tasks, STATISTICS, LAYOUT, config, ARCHITECTURES[name], space)
        for parameter in self.ranker.architecture.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        ids = rng.integers(0, [3000, 8], (ROWS, 2)).astype(np.int32)
        labels = (rng.random((ROWS, 3)) < 0.4).astype(np.float32)
        labels[rng.random((ROWS, 3)) < 0.2] = np.nan
        labels[:, list(absent)] = np.nan
        none = np.zeros((ROWS, 0), np.float32)
        dense = rng.normal(size=(ROWS, 1)).astype(np.float32)
        rows = Encoded(ids, dense, labels, none, np.zeros(0, np.int64))
        self.batch = as_batch(rows, Schema(SCHEMA.features, tasks), range(3))
        self.present = self.ranker.mass(self.batch) > 0

    def losses(self):
        return self.ranker.losses(self.ranker(self.batch), self.batch)

    def gradients(self):
        """Of every dense parameter, and of the input's rows and small tables (which embeddings are updated from)."""
        taken = self.ranker.embeddings._taken
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in self.ranker.dense_parameters()}
        found["wide"] = taken.wide.grad
        if taken.narrow is not None:
            found["narrow"] = taken.narrow.tables.grad
        found = {name: value.clone() for name, value in found.items() if value is not None}
        self.ranker.zero_grad(set_to_none=True)
        return found

    def by_task(self):
        """What each task alone gives everything: the plain backward pass, before any junction is there."""
        found = []
        for task in range(3):
            self.losses()[task].backward()
            found.append(self.gradients())
        return found

    def step(self, **more):
        if not hasattr(self, "junction"):
            self.junction = Junction(self.ranker, 3)
        return TrainingStep(self.junction, self.losses(), self.present, lambda metric: torch.zeros(3), **more)


def close(found, expected, tolerance=2e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        bound = tolerance * max(value.abs().max().item(), 1e-4)
        torch.testing.assert_close(found[name], value, rtol=0, atol=bound, msg=lambda text, n=name: f"{n}: {text}")


@every_architecture
def test_a_plain_pass_is_the_gradient_of_the_sum(name):
    case = Case(name)
    case.losses().sum().backward()
    expected = case.gradients()
    step = case.step()
    step.pull()
    step.push()
    close(case.gradients(), expected)


@every_architecture
def test_a_weighted_pull_weighs_everything(name):
    case = Case(name)
    weights = torch.tensor([2.0, 0.5, 0.1])
    (case.losses() * weights).sum().backward()
    expected = case.gradients()
    step = case.step()
    step.pull(weights)
    step.push()
    close(case.gradients(), expected)


@every_architecture
@pytest.mark.parametrize("weights", [(2.0, 0.5, 0.1), (1.5, 0.0, 0.7), (0.4, -0.2, 1.0)])
@pytest.mark.parametrize("scale", [None, (1.0, 3.0, 0.5)])
def test_own_parts_get_their_own_gradient_and_shared_ones_the_combination(name, weights, scale):
    """Element by element: what only one task reaches is its own, everything else is combined, embeddings too."""
    case = Case(name)
    alone = case.by_task()
    scales = torch.ones(3) if scale is None else torch.tensor(scale)
    step = case.step()
    slices = {id(parameter): owners for parameter, owners in case.junction.slices}
    own = {}
    for parameter_name, parameter in case.ranker.dense_parameters():
        owners = slices.get(id(parameter), torch.tensor(-1))
        own[parameter_name] = (owners >= 0).expand_as(parameter) | torch.tensor(parameter_name.startswith("towers"))
        reached = sum((part[parameter_name] != 0).int() for part in alone)
        assert not (own[parameter_name] & (reached > 1)).any(), f"{parameter_name}: own, but several tasks reach it"
    expected = {}
    for key in alone[0]:
        plain = sum(s * part[key] for s, part in zip(scales, alone, strict=True))
        combined = sum(s * w * part[key] for s, w, part in zip(scales, weights, alone, strict=True))
        expected[key] = torch.where(own[key], plain, combined) if key in own else combined
    step.pull(None if scale is None else scales)
    step.push(torch.tensor(weights))
    close(case.gradients(), expected)


@every_architecture
def test_what_several_tasks_reach_is_not_called_own_and_the_rest_is(name):
    """Own parts are complete: gates and experts that one task alone reaches are declared so."""
    case = Case(name)
    alone = case.by_task()
    junction = Junction(case.ranker, 3)
    slices = {id(parameter): owners for parameter, owners in junction.slices}
    for parameter_name, parameter in case.ranker.architecture.named_parameters():
        parts = torch.stack([part[f"architecture.{parameter_name}"] != 0 for part in alone])
        owners = slices.get(id(parameter), torch.tensor(-1)).expand_as(parameter)
        for task in range(3):
            assert not (parts[task] & (owners >= 0) & (owners != task)).any()
        shared = (owners == -1) & parts.any(dim=0)
        assert not shared.any() or (parts.sum(dim=0)[shared] > 1).float().mean() > 0.5


@every_architecture
def test_an_absent_task_gives_nothing_and_its_tower_nothing(name):
    case = Case(name, absent=[1])
    step = case.step()
    step.pull()
    step.push(torch.tensor([0.7, 0.0, 1.3]))
    found = case.gradients()
    assert all(torch.isfinite(value).all() for value in found.values())
    assert not found["towers.output.weight"][1].any()


@every_architecture
def test_parameters_gramian_is_that_of_the_shared_parameters(name):
    case = Case(name)
    alone = case.by_task()
    step = case.step()
    step.pull(torch.tensor([1.0, 2.0, 0.5]))
    slices = {id(parameter): owners for parameter, owners in case.junction.slices}
    rows = []
    for scale, part in zip((1.0, 2.0, 0.5), alone, strict=True):
        pieces = []
        for parameter_name, parameter in case.ranker.architecture.named_parameters():
            owners = slices.get(id(parameter), torch.tensor(-1))
            pieces.append((scale * part[f"architecture.{parameter_name}"] * (owners == -1)).flatten())
        rows.append(torch.cat(pieces).double())
    rows = torch.stack(rows)
    expected = rows @ rows.T
    torch.testing.assert_close(step.gramian("parameters"), expected, rtol=1e-4, atol=1e-6 * expected.max().item())
    torch.testing.assert_close(
        step.measured, expected / torch.outer(*[torch.tensor([1.0, 2.0, 0.5]).double()] * 2), rtol=1e-4, atol=1e-9
    )
    step.push(torch.tensor([1.0, 1.0, 1.0]))
    case.gradients()


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe", "cgc", "ple"])
@pytest.mark.parametrize("training", ["entire", "dr"])
def test_losses_that_reach_through_each_others_predictions(name, training):
    """p(click, like) = p(click) p(like | click): the loss of likes moves the tower, gate and experts of clicks too."""
    case = Case(name, space=SpaceConfig(training))
    alone, weights = case.by_task(), (2.0, 0.0, 0.7)
    assert alone[1]["towers.output.weight"][0].any()
    step = case.step()
    assert not step.cheap
    slices = {id(parameter): owners for parameter, owners in case.junction.slices}
    expected = {}
    for key in alone[0]:
        plain, combined = sum(part[key] for part in alone), sum(w * p[key] for w, p in zip(weights, alone, strict=True))
        parameter = dict(case.ranker.named_parameters()).get(key)
        own = slices.get(id(parameter), torch.tensor(-1)) >= 0
        expected[key] = plain if key.startswith("towers") else torch.where(own, plain, combined)
    step.pull()
    gramian = step.gramian()
    step.push(torch.tensor(weights))
    close(case.gradients(), expected)
    rows = [
        torch.cat(
            [
                (part[f"architecture.{key}"] * (slices.get(id(parameter), torch.tensor(-1)) == -1)).flatten()
                for key, parameter in case.ranker.architecture.named_parameters()
            ]
        )
        for part in alone
    ]
    rows = torch.stack(rows).double()
    torch.testing.assert_close(gramian, rows @ rows.T, rtol=1e-4, atol=1e-6 * gramian.max().item())


def test_the_representations_gramian_is_that_at_the_trunks_output():
    case = Case("shared_bottom")
    seen = []
    handle = case.ranker.architecture.trunk.register_forward_hook(lambda m, a, output: seen.append(output[0]))
    losses = case.losses()
    handle.remove()
    rows = torch.stack([torch.autograd.grad(loss, seen[0], retain_graph=True)[0].flatten() for loss in losses]).double()
    step = case.step()
    step.pull()
    torch.testing.assert_close(step.gramian(), rows @ rows.T, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(step.summed()[0], rows.view(3, ROWS, -1).sum(dim=1).float(), rtol=1e-4, atol=1e-6)
    halves = step.summed(2)
    torch.testing.assert_close(halves.sum(dim=0), step.summed()[0], rtol=1e-4, atol=1e-6)


def test_an_architecture_that_does_not_say_what_is_shared_is_measured_at_its_parameters(monkeypatch):
    case = Case("mmoe")
    monkeypatch.delattr(type(case.ranker.architecture), "levels")
    step = case.step()
    assert not step.cheap
    step.pull()
    assert torch.equal(step.gramian(), step.gramian("parameters"))
    assert step.summed(2).shape[:2] == (2, 3)
    with pytest.raises(ConfigError, match="experts that all tasks read"):
        step.units()
    step.push(torch.tensor([1.0, 0.0, 0.5]))
    assert case.gradients()["architecture.level.groups.0.weight"].any()


@every_architecture
def test_masks_act_on_what_shared_experts_are_given(name):
    """Element by element: own parts as in a plain pass, the last level's shared experts as if δ itself were masked."""
    case = Case(name)
    masks = (torch.rand(3, case.ranker.architecture.out_width) < 0.5).float()
    step = case.step()
    step.pull()
    assert step.units().shape == masks.shape
    vectors, gradient = case.junction.vectors, case.junction.leaf.grad
    parameters = dict(case.ranker.architecture.named_parameters())
    everywhere = torch.autograd.grad(vectors, list(parameters.values()), gradient * masks[:, None], retain_graph=True)
    plain = torch.autograd.grad(vectors, list(parameters.values()), gradient, retain_graph=True)
    passes = []
    vectors.register_hook(lambda gradient: passes.append(1))
    step.push(masks)
    assert passes == [1]
    found = case.gradients()
    slices = {id(parameter): owners for parameter, owners in case.junction.slices}
    levels = case.ranker.architecture.levels()
    last = {id(p) for p in levels[-1][0].parameters()}
    for (key, parameter), masked, whole in zip(parameters.items(), everywhere, plain, strict=True):
        own = (slices.get(id(parameter), torch.tensor(-1)) >= 0).expand_as(parameter)
        given = found[f"architecture.{key}"]
        torch.testing.assert_close(given[own], whole[own], rtol=1e-5, atol=1e-7)
        if id(parameter) in last:
            torch.testing.assert_close(given[~own], masked[~own], rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(found[f"architecture.{key}"], w) for key, w in zip(parameters, plain, strict=True))


@every_architecture
def test_the_shared_part_is_passed_once_and_no_table_gets_a_gradient(name):
    case = Case(name)
    step = case.step()
    passes = []
    case.junction.vectors.register_hook(lambda gradient: passes.append(1))
    step.pull()
    step.gramian()
    step.push(torch.tensor([1.0, 0.5, 2.0]))
    assert passes == [1]
    assert case.ranker.embeddings.table.grad is None


@every_architecture
@pytest.mark.parametrize("method", ["upgrad", "aligned_mtl", "gradnorm", "graddrop"])
def test_in_bf16_what_is_compared_is_not(name, method):
    """Torchjd's UPGrad and AlignedMTL refuse bf16: balancers see gradients in float32, and Gramians in float64."""
    case = Case(name)
    exact = case.step()
    exact.pull()
    expected = exact.gramian()
    exact.push()
    plain = case.gradients()
    with computing_in("bf16"):
        step = case.step()
    balancer = build_balancer(method, [task.name for task in TASKS], BALANCERS[method].config())
    assert torch.isfinite(balancer.backward(step)).all()
    gramian = step.gramian()
    assert gramian.dtype == torch.float64
    torch.testing.assert_close(gramian, expected, rtol=0.05, atol=0.05 * expected.max().item())
    found = case.gradients()
    assert all(value.dtype == plain[key].dtype and value.isfinite().all() for key, value in found.items())


def test_something_else_may_go_backward_afterwards():
    case = Case("mmoe")
    step = case.step(keep=True)
    step.pull()
    step.push(torch.tensor([1.0, 0.5, 2.0]))
    case.junction.vectors.square().sum().backward()


def test_evaluation_is_not_cut():
    case = Case("mmoe")
    before = case.ranker(case.batch)
    case.step()
    case.ranker.eval()
    logits = case.ranker(case.batch)
    assert torch.equal(logits, before)
    logits.sum().backward()
    assert case.ranker.architecture.level.groups[0].weight.grad.any()
