"""The linear-quadratic problem: its values are exact, its optimum is one, its log is what it says."""

import numpy as np
import pytest

from polyrank.fusion.policy import StaticPolicy
from polyrank.simulator.linear_quadratic import Linear, LinearQuadratic

PROBLEM = LinearQuadratic()


def test_one_number_by_hand():
    """A = 0: what an action does to the next state ends there, and L = 0; V = −1 − δ/(1 − δ) σ²."""
    problem = LinearQuadratic(np.zeros((1, 1)), np.ones((1, 1)), noise=0.5, leave=0.5, gamma=0.8)
    assert problem.delta == pytest.approx(0.4)
    np.testing.assert_allclose(problem.best(), [[0.0]], atol=1e-12)
    assert problem.value(np.zeros((1, 1))) == pytest.approx(-1 - 0.4 / 0.6 * 0.25)


def test_riccati_by_hand():
    """A = B = M = R = 1, δ = ½: P = 1 + ½P − ¼P²/(1 + ½P), that is ½P² = 1, and L = ½P/(1 + ½P) = √2 − 1."""
    problem = LinearQuadratic(np.ones((1, 1)), np.ones((1, 1)), noise=0.3, leave=0.375, gamma=0.8)
    np.testing.assert_allclose(problem.best(), [[np.sqrt(2) - 1]])
    assert problem.value(problem.best()) == pytest.approx(-np.sqrt(2) * (1 + 0.3**2))


def test_no_other_gain_is_better():
    gain, rng = PROBLEM.best(), np.random.default_rng(0)
    best = PROBLEM.value(gain)
    assert best > PROBLEM.value(0 * gain) * 0.7  # much is gained over weights that do not follow the state
    for _ in range(20):
        assert PROBLEM.value(gain + 0.05 * rng.normal(size=gain.shape)) < best


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_simulation_has_the_exact_value(share):
    gain = share * PROBLEM.best()
    values = [PROBLEM.simulate(Linear(gain), sessions=4_000, seed=seed) for seed in range(8)]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert np.mean(values) == pytest.approx(PROBLEM.value(gain), abs=3 * error + 0.01)


def test_the_share_of_the_optimum():
    assert PROBLEM.share(Linear(PROBLEM.best())) == pytest.approx(1)
    assert PROBLEM.share(StaticPolicy(np.zeros(2))) == pytest.approx(0)
    assert PROBLEM.share(StaticPolicy(np.ones(2))) < 0


def test_how_much_of_the_optimum_is_reached():
    best, nothing = PROBLEM.best(), 0 * PROBLEM.best()
    assert PROBLEM.reached(Linear(best)) == pytest.approx(1)
    expected = PROBLEM.value(best) / PROBLEM.value(nothing)
    assert PROBLEM.reached(Linear(nothing), 20_000) == pytest.approx(expected, abs=0.01)


def test_the_log():
    log = PROBLEM.log(4_000, width=1.5, longest=12, seed=3)
    lengths = log.lengths
    assert lengths.max() == 12
    ended = log.done[log.starts[1:] - 1]
    assert ended[lengths < 12].all()
    assert ended.mean() == pytest.approx(1 - 0.9**12, abs=0.02)
    assert log.done.sum() == ended.sum()
    assert np.abs(log.actions).max() <= 1.5
    np.testing.assert_allclose(log.log_densities, -2 * np.log(3.0))
    np.testing.assert_allclose(log.rewards, -(log.states**2).sum(axis=1) - (log.actions**2).sum(axis=1), rtol=1e-5)
    going = np.flatnonzero(np.diff(np.repeat(log.sessions, lengths)) == 0)
    left = log.states[going + 1] - log.states[going] @ PROBLEM.drift.T - log.actions[going] @ PROBLEM.steering.T
    assert left.std() == pytest.approx(0.3, rel=0.02)
    assert abs(left.mean()) < 0.01
    np.testing.assert_allclose(log.states[log.starts[:-1]].std(axis=0), 1, rtol=0.05)


def test_costs_without_end_are_refused():
    with pytest.raises(ValueError, match="no end"):
        PROBLEM.value(-5 * PROBLEM.best())
