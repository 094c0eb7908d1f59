"""Least squares by hand, an exact problem, and intervals that cover."""

import numpy as np
import pytest

from polyrank.fusion.learners.response import response
from polyrank.fusion.quadratic import features
from polyrank.fusion.sessions import SessionLog


def random_log(sessions, seed, noise=1.0, shared=0.0):
    """Returns of one step, with noise that a session's steps share to some part."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, sessions)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n = int(starts[-1])
    states, actions = rng.normal(size=(n, 1)), rng.uniform(-1, 1, size=(n, 1))
    mean = 1 + 0.5 * states[:, 0] + actions[:, 0] - actions[:, 0] ** 2 + states[:, 0] * actions[:, 0]
    rewards = mean + noise * rng.normal(size=n) + shared * np.repeat(rng.normal(size=sessions), lengths)
    done = np.zeros(n, bool)
    done[starts[1:] - 1] = True
    return SessionLog(
        np.arange(sessions), starts, states.astype(np.float32), actions.astype(np.float32), np.full(n, np.log(0.5)),
        rewards, done,
    )  # fmt: skip


TRUTH = [1, 1, -1, 0.5, 1, 0, 0]  # of (1, s) ⊗ (1, a, a²), and s²


def test_it_is_least_squares():
    log = random_log(400, 0)
    f = features(log.states, log.actions).astype(float)
    np.testing.assert_allclose(
        response(log, 0.0, 1e-12).weights, np.linalg.lstsq(f, log.rewards, rcond=None)[0], atol=1e-4
    )
    np.testing.assert_allclose(response(random_log(400, 0, noise=0.0), 0.0, 1e-12).weights, TRUTH, atol=1e-3)


def test_what_follows_counts():
    log = random_log(300, 0)
    following = log.rewards.copy()
    for s in range(len(log.sessions)):
        for t in range(log.starts[s + 1] - 2, log.starts[s] - 1, -1):
            following[t] += 0.9 * following[t + 1]
    f = features(log.states, log.actions).astype(float)
    np.testing.assert_allclose(
        response(log, 0.9, 1e-12).weights, np.linalg.lstsq(f, following, rcond=None)[0], atol=1e-3
    )


@pytest.mark.parametrize("blocks", [1 << 15, 100])
def test_the_covariance_covers_where_steps_of_a_session_share_their_noise(blocks, monkeypatch):
    monkeypatch.setattr("polyrank.fusion.learners.response._BLOCK", blocks)
    found = [response(random_log(150, seed, shared=2.0), 0.0, 1e-12) for seed in range(60)]
    errors = np.array([one.weights - TRUTH for one in found])
    said = np.mean([np.diag(one.covariance) for one in found], axis=0)
    np.testing.assert_allclose(said, errors.var(axis=0), rtol=0.6)
    inside = np.abs(errors) < 2 * np.sqrt([np.diag(one.covariance) for one in found])
    assert inside.mean() > 0.88
