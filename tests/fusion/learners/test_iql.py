"""The expectile, by hand and against its definition; and a problem of known optimum."""

import pytest
import torch

from polyrank.fusion.learners.iql import IQLConfig, expectile_loss, fit
from polyrank.fusion.policy import Box
from polyrank.progress import Silent


def test_the_loss_by_hand():
    found = expectile_loss(torch.tensor([2.0, -2.0, 0.5]), 0.7)
    torch.testing.assert_close(found, torch.tensor([0.7 * 4, 0.3 * 4, 0.7 * 0.25]))


def test_its_least_is_the_expectile():
    """Of 0 and 1, equally often, the 0.7-expectile m has 0.7 (1 − m) = 0.3 m: m = 0.7."""
    values = torch.tensor([0.0, 1.0])
    at = torch.linspace(0, 1, 1001)
    losses = expectile_loss(values - at[:, None], 0.7).mean(dim=1)
    assert at[losses.argmin()].item() == pytest.approx(0.7, abs=1e-3)


def test_it_gains_most_of_what_a_known_problem_holds(quadratic, regret):
    log = quadratic(4_000)
    knobs = {"steps": 800, "hidden": (32,), "learning_rate": 3e-3, "batch_size": 128, "temperature": 10.0}
    policy = fit(log, Box.of(log), IQLConfig(**knobs), Silent()).policy
    assert regret(policy) < 0.06 * regret.constant
