"""Session logs with a known optimum."""

import numpy as np
import pytest

from polyrank.fusion.sessions import SessionLog


def one_step(states, actions, log_densities, rewards, signals=None):
    """A log of sessions that end at once."""
    n = len(states)
    return SessionLog(
        np.arange(n), np.arange(n + 1), states.astype(np.float32), actions.astype(np.float32), log_densities, rewards,
        np.ones(n, bool), signals or {},
    )  # fmt: skip


TARGET = np.array([[0.4, 0.2], [-0.3, 0.0]])  # the best action of state s is centre + TARGET s
CENTRE = np.array([1.0, -2.0])


def quadratic(n, seed=0, noise=0.5):
    """`r = −|a − centre − B s|² + ε` of uniform actions in centre ± 1: the best policy is linear and earns 0."""
    rng = np.random.default_rng(seed)
    states, actions = rng.uniform(-1, 1, size=(n, 2)), CENTRE + rng.uniform(-1, 1, size=(n, 2))
    rewards = worth(states, actions) + noise * rng.normal(size=n)
    return one_step(states, actions, np.full(n, np.log(0.25)), rewards)


def worth(states, actions):
    return -((actions - CENTRE - states @ TARGET.T) ** 2).sum(axis=1)


def regret(policy, seed=99, states=4000):
    """What a policy loses on the quadratic problem; 0 for the best."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, size=(states, 2)).astype(np.float32)
    return -worth(drawn, policy.act(drawn)).mean()


CONSTANT = (TARGET**2).sum() / 3  # the regret of the best constant: Var(U(−1, 1)) = 1/3


def delayed(sessions, seed=0):
    """Sessions of two steps, states (0, x) and (1, 0): only the second earns, −(a − x / 2)² by the first's action a.

    No state shows what the first step did: who looks no further than the next state misses it.
    """
    rng = np.random.default_rng(seed)
    x, a = rng.uniform(-1, 1, size=(2, sessions))
    states = np.stack(
        [np.stack([np.zeros(sessions), x], 1), np.stack([np.ones(sessions), np.zeros(sessions)], 1)], axis=1
    ).reshape(-1, 2)
    actions = np.stack([a, rng.uniform(-1, 1, sessions)], axis=1).reshape(-1, 1)
    rewards = np.stack([np.zeros(sessions), -((a - x / 2) ** 2)], axis=1).ravel()
    return SessionLog(
        np.arange(sessions), np.arange(0, 2 * sessions + 1, 2), states.astype(np.float32), actions.astype(np.float32),
        np.full(2 * sessions, np.log(0.5)), rewards, np.tile([False, True], sessions),
    )  # fmt: skip


@pytest.fixture(name="one_step")
def _one_step():
    return one_step


@pytest.fixture(name="quadratic")
def _quadratic():
    return quadratic


@pytest.fixture(name="delayed")
def _delayed():
    return delayed


@pytest.fixture(name="regret")
def _regret():
    """(policy) → its regret on the quadratic problem; `regret.constant`: that of the best constant."""
    regret.constant = CONSTANT
    return regret
