"""Where a policy acts, cohorts, and what a Q promised, by hand."""

import numpy as np
import pytest

from polyrank.errors import ConfigError
from polyrank.fusion.controls import believed, cohort, returns, whereabouts
from polyrank.fusion.policy import Box
from polyrank.fusion.sessions import SessionLog

LOG = SessionLog(
    sessions=np.array([3, 5, 8]),
    starts=np.array([0, 2, 3, 4]),
    states=np.array([[0, 1], [9, 9], [1, 2], [2, 3]], np.float32),
    actions=np.array([[0.0], [1.0], [0.5], [0.25]], np.float32),
    log_densities=np.zeros(4),
    rewards=np.array([1.0, 2.0, 4.0, 0.0]),
    done=np.array([False, True, True, True]),
    signals={"age": np.array([20.0, 99.0, 30.0, 30.0])},
)


def test_box_exits_and_ends() -> None:
    actions = np.array([[1.5], [0.995], [0.5], [0.0]], np.float32)
    found = whereabouts(actions, LOG, Box(np.array([0.0]), np.array([1.0])))
    assert found["outside"] == 0.25
    assert found["ends"] == 0.5  # 0.995 and 0; 1.5 is beyond
    (weight,) = found["weights"]
    assert (weight["low"], weight["high"]) == (0.0, 1.0)
    widths = np.diff(weight["edges"])
    for who in ("policy", "log"):
        assert (np.array(weight[who]) * widths).sum() == pytest.approx(1.0)


def test_a_weight_that_never_varied_is_drawn_all_the_same() -> None:
    actions = np.full((4, 1), 2.0, np.float32)
    log = SessionLog(LOG.sessions, LOG.starts, LOG.states, actions, LOG.log_densities, LOG.rewards, LOG.done)
    found = whereabouts(actions, log, Box.of(log))
    assert found["outside"] == 0
    assert found["ends"] == 1


def test_cohorts_are_of_what_was_known_at_the_beginning() -> None:
    assert cohort(LOG, "state:0").tolist() == ["0", "1", "2"]
    assert cohort(LOG, "signal:age").tolist() == ["20", "30", "30"]
    assert len(set(cohort(LOG, "state:1", 2).tolist())) == 2


@pytest.mark.parametrize("name", ["state:2", "state:x", "signal:aeg", "age", ""])
def test_an_unknown_cohort_is_told_apart(name: str) -> None:
    with pytest.raises(ConfigError, match="cohort"):
        cohort(LOG, name)


def test_returns_are_discounted_within_a_session() -> None:
    np.testing.assert_allclose(returns(LOG, 0.5), [2.0, 4.0, 0.0])
    found = believed([(10, 1.0), (20, 7.0)], LOG, 0.5)
    assert found["last"] == 7.0
    assert found["mean"] == 2.0
    assert found["highest"] == pytest.approx(3.96)
    assert believed([], LOG, 0.5)["last"] is None
