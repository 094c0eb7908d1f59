"""Cross-fitted Q: never from the session itself, and in the unit of the reward whatever that is."""

from dataclasses import replace

import numpy as np
import pytest

from polyrank.fusion.crossfit import cross_fitted
from polyrank.fusion.fqe import FQEConfig
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent

CONFIG = FQEConfig(gamma=0.0, hidden=(16,), learning_rate=1e-2, batch_size=64, steps=150)


def log_of(rewards: np.ndarray) -> SessionLog:
    n = len(rewards)
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(2, n, 2)).astype(np.float32)
    return SessionLog(
        np.arange(n), np.arange(n + 1), states, actions, np.zeros(n), rewards, np.ones(n, np.bool_)
    )  # fmt: skip


def test_a_session_does_not_teach_the_network_that_judges_it() -> None:
    """A reward that is noise: cross-fitted predictions cannot follow it, where one fold's own would."""
    rewards = np.random.default_rng(1).normal(size=60)
    found = cross_fitted(log_of(rewards), lambda s: 0 * s, replace(CONFIG, hidden=(128,), steps=400), 2, Silent())
    assert np.corrcoef(found.logged, rewards)[0, 1] < 0.35


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_units_do_not_matter(unit: float) -> None:
    log = log_of(np.zeros(2_000))
    rewards = log.states[:, 0] + log.actions[:, 0].astype(np.float64)
    scaled = replace(log, rewards=unit * rewards, states=1_000 * log.states, actions=log.actions / 1_000)
    found = cross_fitted(scaled, lambda s: s * 1e-6, CONFIG, 2, Silent())
    assert np.corrcoef(found.logged, rewards)[0, 1] > 0.95
    np.testing.assert_allclose(found.target / unit, 2 * log.states[:, 0], atol=1.0)
    assert found.curve[-1][1] / unit == pytest.approx((2 * log.states[:, 0]).mean(), abs=0.3)
