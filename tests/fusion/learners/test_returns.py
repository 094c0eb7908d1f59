import numpy as np
import pytest

from polyrank.errors import DataError
from polyrank.fusion.learners.returns import known, returns_to_go
from polyrank.fusion.sessions import SessionLog


def log_of(starts, done):
    n = starts[-1]
    return SessionLog(
        np.arange(len(starts) - 1), np.array(starts), np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32),
        np.zeros(n), np.array([1.0, 2.0, 4.0, 10.0, 3.0, 5.0]), np.array(done, bool),
    )  # fmt: skip


LOG = log_of([0, 3, 4, 6], [0, 0, 1, 1, 0, 0])


def test_by_hand():
    np.testing.assert_allclose(returns_to_go(LOG, LOG.rewards, 0.5), [1 + 1 + 1, 2 + 2, 4, 10, 3 + 2.5, 5])
    both = np.stack([LOG.rewards, -LOG.rewards], axis=1)
    np.testing.assert_allclose(returns_to_go(LOG, both, 0.5)[:, 1], -returns_to_go(LOG, LOG.rewards, 0.5))
    np.testing.assert_allclose(returns_to_go(LOG, LOG.rewards, 0.0), LOG.rewards)
    np.testing.assert_allclose(LOG.rewards, [1, 2, 4, 10, 3, 5])  # the log is as it was


def test_what_followed_a_cut_is_unknown():
    assert known(LOG, 0.5).tolist() == [0, 1, 2, 3]
    assert len(known(LOG, 0.0)) == 6
    with pytest.raises(DataError, match="sessions that are done"):
        known(log_of([0, 3, 4, 6], [0] * 6), 0.5)
