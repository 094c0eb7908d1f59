"""What a log shows of a deterministic policy, on logs whose making is known."""

import numpy as np
import pytest

from polyrank.fusion.overlap import shown, target_log_density
from polyrank.fusion.sessions import SessionLog


def log_of(actions: np.ndarray, densities: np.ndarray) -> SessionLog:
    n = len(actions)
    return SessionLog(
        np.arange(n), np.arange(n + 1), np.zeros((n, 1), np.float32), actions.astype(np.float32), densities,
        np.ones(n), np.ones(n, np.bool_),
    )  # fmt: skip


def test_a_uniform_box_is_recognised_and_its_boundary_corrected() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))
    log = log_of(actions, np.full(20_000, -np.log(4.0)))
    how = shown(log)
    assert not how.grid
    assert how.box is not None
    np.testing.assert_allclose(how.box, [[-1, -1], [1, 1]], atol=1e-3)
    corner = np.ones((20_000, 2), np.float32)  # three quarters of its kernel lie outside
    weights = np.exp(target_log_density(log, corner, how, 0.8) - log.log_densities)
    assert weights.mean() == pytest.approx(1.0, abs=0.08)


def test_gaussian_exploration_and_a_box_that_moves_are_no_box() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(5_000, 2))
    gaussian = log_of(noise, -0.5 * (noise**2).sum(axis=1) - np.log(2 * np.pi))
    assert shown(gaussian).box is None
    center = rng.uniform(-3, 3, (5_000, 2))
    moving = log_of(center + rng.uniform(-0.5, 0.5, (5_000, 2)), np.zeros(5_000))
    assert shown(moving).box is None
    ahead = np.tile(np.float32([0.5, -0.2]), (5_000, 1))
    weights = np.exp(target_log_density(gaussian, ahead, shown(gaussian), 0.3) - gaussian.log_densities)
    assert weights.mean() == pytest.approx(1.0, abs=0.1)


def test_on_a_grid_only_the_same_action_counts() -> None:
    rng = np.random.default_rng(0)
    grid = np.array([[0.1, 1.0], [0.1, 2.0], [0.3, 1.0]])
    chosen = rng.integers(0, 3, 900)
    log = log_of(grid[chosen], np.full(900, np.log(1 / 3)))
    how = shown(log)
    assert how.grid
    weights = np.exp(target_log_density(log, np.tile(np.float32(grid[1]), (900, 1)), how, 1.0) - log.log_densities)
    np.testing.assert_allclose(weights, np.where(chosen == 1, 3.0, 0.0))


def test_a_few_continuous_actions_are_no_grid() -> None:
    actions = np.random.default_rng(0).uniform(0, 1, (300, 2))
    assert not shown(log_of(actions, np.zeros(300))).grid


def test_far_outside_the_box_nothing_is_like_it() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (1_000, 1))
    log = log_of(actions, np.full(1_000, -np.log(2.0)))
    with pytest.raises(ValueError, match="box"):
        target_log_density(log, np.full((1_000, 1), 50.0), shown(log), 0.1)
