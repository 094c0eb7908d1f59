"""What every balancer in the registry promises; a new entry is tested the day it is added."""

import pytest
import torch

from polyrank import config
from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.training.checkpoint import load_checkpoint, save_checkpoint

NAMES = ["click", "like", "watch"]
every_balancer = pytest.mark.parametrize("method", BALANCERS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Problem:
    """A shared layer and a head per task: T losses of different sizes from random rows."""

    def __init__(self, tasks):
        generator = torch.Generator().manual_seed(5)
        self.shared = torch.randn(4, 6, generator=generator).requires_grad_()
        self.heads = torch.randn(6, tasks, generator=generator).requires_grad_()
        self.tasks, self.generator = tasks, generator

    def losses(self):
        x = torch.randn(16, 4, generator=self.generator)
        errors = torch.tanh(x @ self.shared) @ self.heads - torch.arange(self.tasks)
        return errors.square().mean(dim=0) * torch.logspace(0, 2, self.tasks)

    def gradients(self):
        found = (self.shared.grad.clone(), self.heads.grad.clone())
        self.shared.grad = self.heads.grad = None
        return found


def made(method, tasks=3):
    return build_balancer(method, NAMES[:tasks], BALANCERS[method].config())


def everyone(tasks=3):
    return torch.ones(tasks, dtype=torch.bool)


@every_balancer
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_gives_every_parameter_a_finite_gradient(method, tasks):
    problem, balancer = Problem(tasks), made(method, tasks)
    for _ in range(5):
        weights = balancer.backward(problem.losses(), everyone(tasks))
        assert weights.shape == (tasks,)
        assert not weights.requires_grad
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()
        for gradient in problem.gradients():
            assert torch.isfinite(gradient).all()
            assert gradient.any()


@every_balancer
def test_an_absent_task_leaves_no_gradient_of_its_own(method):
    problem, balancer = Problem(3), made(method)
    for step in range(5):
        absent = step % 3
        losses = problem.losses() * (torch.arange(3) != absent)
        weights = balancer.backward(losses, torch.arange(3) != absent)
        shared, heads = problem.gradients()
        assert torch.isfinite(weights).all()
        assert torch.isfinite(shared).all()
        assert not heads[:, absent].any()


@every_balancer
def test_a_batch_without_any_task_gives_no_gradient(method):
    problem, balancer = Problem(3), made(method)
    weights = balancer.backward(problem.losses() * 0.0, ~everyone())
    assert torch.isfinite(weights).all()
    assert not any(gradient.any() for gradient in problem.gradients())


@every_balancer
def test_resumed_equals_uninterrupted(method, tmp_path):
    problem, balancer = Problem(3), made(method)
    for _ in range(7):
        balancer.backward(problem.losses(), everyone())
        problem.gradients()
    save_checkpoint(tmp_path / "last.safetensors", {"balancer": balancer.state_dict(), "rng": torch.get_rng_state()})
    place = problem.generator.get_state()
    going_on = [(balancer.backward(problem.losses(), everyone()).clone(), *problem.gradients()) for _ in range(7)]

    state = load_checkpoint(tmp_path / "last.safetensors")
    resumed = made(method)
    resumed.load_state_dict(state["balancer"])
    torch.set_rng_state(state["rng"])
    problem.generator.set_state(place)
    for expected in going_on:
        found = (resumed.backward(problem.losses(), everyone()).clone(), *problem.gradients())
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@every_balancer
def test_the_default_config_survives_a_file(method, tmp_path):
    kind = BALANCERS[method].config
    assert config.build(kind, config.to_table(kind()), method) == kind()
    config.write_toml(tmp_path / "config.toml", config.to_table(kind()))
    assert config.build(kind, config.read_toml(tmp_path / "config.toml"), method) == kind()
