"""The actor's loss by hand; and a problem of known optimum."""

import pytest
import torch

from polyrank.fusion.learners.td3_bc import TD3BCConfig, actor_loss, fit
from polyrank.fusion.policy import Box
from polyrank.progress import Silent


def test_the_actors_loss_by_hand():
    """Mean |Q| = 2, λ = 2.5 / 2; mean Q = 1; squares 0.04, 0.16, 0, 0.36."""
    q = torch.tensor([[3.0], [-1.0]], requires_grad=True)
    chosen, logged = torch.tensor([[0.2, 0.0], [0.5, -0.6]]), torch.tensor([[0.0, 0.4], [0.5, 0.0]])
    found = actor_loss(q, chosen, logged, 2.5)
    assert found.item() == pytest.approx(0.14 - 1.25)
    (gradient,) = torch.autograd.grad(found, q)
    torch.testing.assert_close(gradient, torch.full((2, 1), -1.25 / 2))  # λ is a constant


def test_it_gains_most_of_what_a_known_problem_holds(quadratic, regret):
    log = quadratic(4_000)
    knobs = {"steps": 800, "hidden": (32,), "learning_rate": 3e-3, "batch_size": 128, "alpha": 40.0}
    policy = fit(log, Box.of(log), TD3BCConfig(**knobs), Silent()).policy
    assert regret(policy) < 0.16 * regret.constant
