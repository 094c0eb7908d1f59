"""The price outside the box, by hand; and boxes around an earlier policy."""

import numpy as np
import pytest
import torch

from polyrank.fusion.learners.unified_rl import UnifiedRLConfig, fit, penalty
from polyrank.fusion.policy import Box, Policy
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent


def test_the_price_by_hand():
    """Box 0.2 ± 0.5, β = 0.3: width 1, so e-fold with each 0.3 outside; both weights add up."""
    actions = torch.tensor([[0.7, -0.3], [1.0, 0.2], [-0.9, 1.3]])
    expected = [[0.0], [np.e], [np.exp(2.0) + np.exp(2.0)]]
    torch.testing.assert_close(penalty(actions, 0.2, 0.5, 0.3), torch.tensor(expected, dtype=torch.float32))


def test_far_outside_it_is_steep_but_finite():
    actions = torch.tensor([[1e6]], requires_grad=True)
    found = penalty(actions, 0.0, 1e-3, 0.3)
    (gradient,) = torch.autograd.grad(found.sum(), actions)
    assert torch.isfinite(found).all()
    assert gradient.item() == pytest.approx(np.exp(10) / (0.3 * 2e-3), rel=1e-3)


class Line(Policy):
    """w = s."""

    kind = "line"

    def act(self, states):
        return states[:, :1].astype(np.float32)

    def arrays(self):
        return {}

    def document(self):
        return {}

    @classmethod
    def restore(cls, document, arrays):
        return cls()


def log_around(sessions, seed=0):
    """One step each: w = s ± 0.2, and the more the better; the log's range, ±1.2, is not what it explored at s."""
    rng = np.random.default_rng(seed)
    states = rng.uniform(-1, 1, (sessions, 1)).astype(np.float32)
    actions = states + rng.uniform(-0.2, 0.2, (sessions, 1)).astype(np.float32)
    return SessionLog(
        np.arange(sessions), np.arange(sessions + 1), states, actions, np.full(sessions, -np.log(0.4)),
        actions[:, 0].astype(np.float64), np.ones(sessions, np.bool_),
    )  # fmt: skip


QUICK = UnifiedRLConfig(
    steps=250, hidden=(16,), batch_size=64, critics=3, learning_rate=1e-2, reach=2.0, eta=5.0, every=1
)


def test_a_later_round_stays_around_the_earlier_policy():
    log = log_around(2_000)
    box = Box.of(log)
    states = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    near, anywhere = (fit(log, box, QUICK, Silent(), around=base).policy.act(states) for base in (Line(), None))
    np.testing.assert_allclose(near - states, 0.2, atol=0.13)  # the upper side of the box at each state
    assert np.abs(anywhere - 1.2).max() < 0.35  # one box for all: its upper side everywhere
