"""FQE finds the exact value of a tabular problem; the conservative kind stays below; divergence is told."""

import numpy as np
import pytest
import torch

from polyrank.errors import TrainingDiverged
from polyrank.fusion.estimate import estimate
from polyrank.fusion.fqe import FQEConfig, fitted_q
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent

# Sessions of two steps, state 0 and then state 1: action a ∈ {0, 1} earns REWARD[s, a].
REWARD = np.array([[1.0, 0.0], [2.0, 3.0]])


def log_of(sessions, seed=0):
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, 2, size=(sessions, 2))
    states = np.tile([0, 1], sessions)
    a = actions.ravel()
    return SessionLog(
        np.arange(sessions), np.arange(0, 2 * sessions + 1, 2), np.eye(2, dtype=np.float32)[states],
        np.eye(2, dtype=np.float32)[a], np.full(2 * sessions, np.log(0.5)), REWARD[states, a],
        np.tile([False, True], sessions),
    )  # fmt: skip


def always(action):
    return lambda states: torch.eye(2)[torch.full((len(states),), action)]


QUICK = FQEConfig(gamma=0.5, hidden=(32,), steps=1500, batch_size=128, learning_rate=5e-3, averaging=0.05)


@pytest.mark.parametrize(("action", "truth"), [(0, 1 + 0.5 * 2), (1, 0 + 0.5 * 3)])
def test_the_exact_value(action, truth):
    log = log_of(300)
    found = fitted_q(log, always(action), QUICK, Silent())
    assert found.terms.value() == pytest.approx(truth, rel=0.01)
    states, actions = torch.eye(2)[[0, 0, 1, 1]], torch.eye(2)[[0, 1, 0, 1]]
    expected = [1 + 0.5 * REWARD[1, action], 0.5 * REWARD[1, action], 2, 3]
    np.testing.assert_allclose(found.q(states, actions), expected, atol=0.04)
    result = estimate(found.terms, replicates=20)
    assert result.interval.low == pytest.approx(result.interval.high)  # all sessions begin alike
    assert found.curve[-1] == (1500, pytest.approx(truth, rel=0.02))


def test_the_conservative_kind_is_lower_for_what_the_log_does_not_show():
    log = log_of(300)
    seen = np.flatnonzero(log.actions[0::2, 1] == 0)  # nothing but action 0 in state 0
    rows = np.stack([2 * seen, 2 * seen + 1], axis=1).ravel()
    narrow = SessionLog(
        seen, np.arange(0, len(rows) + 1, 2), log.states[rows], log.actions[rows], log.log_densities[rows],
        log.rewards[rows], log.done[rows],
    )  # fmt: skip
    careful = FQEConfig(gamma=0.5, hidden=(32,), steps=600, batch_size=128, learning_rate=5e-3, conservative=0.5)
    plain = FQEConfig(gamma=0.5, hidden=(32,), steps=600, batch_size=128, learning_rate=5e-3)
    values = [fitted_q(narrow, always(1), config, Silent()).terms.value() for config in (plain, careful)]
    assert values[1] < values[0] - 0.5


def test_a_seed_gives_the_same_again():
    log, config = log_of(50), FQEConfig(steps=60, hidden=(8,), batch_size=32)
    one, two = (fitted_q(log, always(0), config, Silent()).terms.value() for _ in range(2))
    other = fitted_q(log, always(0), FQEConfig(steps=60, hidden=(8,), batch_size=32, seed=1), Silent()).terms.value()
    assert one == two != other


def test_a_session_that_was_cut_off_has_no_last_step():
    """Its last reward is absurd; were it learned from as an end, the value would show it."""
    log = log_of(300)
    rewards, done = log.rewards.copy(), log.done.copy()
    rewards[1::2][:100] = 1000.0
    done[1::2][:100] = False
    cut = SessionLog(log.sessions, log.starts, log.states, log.actions, log.log_densities, rewards, done)
    assert fitted_q(cut, always(0), QUICK, Silent()).terms.value() == pytest.approx(2.0, rel=0.02)


def test_divergence_is_told():
    wild = FQEConfig(gamma=0.5, hidden=(), steps=50, learning_rate=100.0, averaging=1.0, batch_size=16)
    with pytest.raises(TrainingDiverged, match="Q must stay within what rewards allow"):
        fitted_q(log_of(50), always(0), wild, Silent())
