"""Linear FQE on problems whose values are exact: by hand, and linear-quadratic ones; and its interval."""

import numpy as np
import pytest

from polyrank.errors import TrainingDiverged
from polyrank.fusion.estimate import estimate
from polyrank.fusion.linear_fqe import linear_fqe
from polyrank.fusion.sessions import SessionLog
from polyrank.simulator.linear_quadratic import LinearQuadratic

PROBLEM = LinearQuadratic()
REWARD = np.array([[1.0, 0.0], [2.0, 3.0]])  # of state, of action


def two_steps(sessions, seed=0):
    """Sessions of two steps, state 0 and then state 1; action a ∈ {0, 1}, one number, earns REWARD[s, a]."""
    a = np.random.default_rng(seed).integers(0, 2, 2 * sessions)
    states = np.tile([0, 1], sessions)
    return SessionLog(
        np.arange(sessions), np.arange(0, 2 * sessions + 1, 2), states[:, None].astype(np.float32),
        a[:, None].astype(np.float32), np.full(2 * sessions, np.log(0.5)), REWARD[states, a],
        np.tile([False, True], sessions),
    )  # fmt: skip


def always(action):
    return lambda states: np.full((len(states), 1), action, np.float32)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("action", [0, 1])
def test_the_exact_value(action, gamma):
    found = linear_fqe(two_steps(300), always(action), gamma, ridge=1e-9)
    assert found.value() == pytest.approx(REWARD[0, action] + gamma * REWARD[1, action], abs=1e-4)


def linear(gain):
    return lambda states: (-states @ gain.T).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_quadratic_q_is_found_exactly_and_the_interval_holds_the_noise_of_the_fit(share):
    gain, errors, widths = share * PROBLEM.best(), [], []
    for seed in range(40):
        log = PROBLEM.log(300, width=2.0, longest=200, seed=seed)
        terms = linear_fqe(log, linear(gain), PROBLEM.gamma, ridge=1e-8)
        errors.append(terms.value() - PROBLEM.value(gain))
        widths.append(terms.error())
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(len(errors))
    assert np.mean(widths) == pytest.approx(np.std(errors), rel=0.35)


def test_it_orders_policies_that_a_log_of_other_weights_shows():
    log = PROBLEM.log(2_000, width=2.0, longest=200, seed=1)
    shares = np.linspace(-0.4, 0.8, 12)  # nearer to 1 there is next to nothing to tell apart
    truth = [PROBLEM.value(share * PROBLEM.best()) for share in shares]
    found = [linear_fqe(log, linear(share * PROBLEM.best()), PROBLEM.gamma).value() for share in shares]
    assert np.array_equal(np.argsort(found), np.argsort(truth))


def test_last_steps_that_were_cut_off_are_left_out():
    log = PROBLEM.log(4_000, width=2.0, longest=6, seed=2)  # half of all sessions are longer
    assert not log.done[log.starts[1:] - 1].all()
    gain = 0.5 * PROBLEM.best()
    terms = linear_fqe(log, linear(gain), PROBLEM.gamma)
    assert terms.value() == pytest.approx(PROBLEM.value(gain), abs=4 * terms.error())


def test_blocks_do_not_matter(monkeypatch):
    log, act = PROBLEM.log(100, width=2.0, longest=200), linear(PROBLEM.best())
    whole = linear_fqe(log, act, PROBLEM.gamma)
    monkeypatch.setattr("polyrank.fusion.linear_fqe._BLOCK", 37)
    parts = linear_fqe(log, act, PROBLEM.gamma)
    np.testing.assert_allclose(parts.above, whole.above, rtol=1e-3, atol=0.01)


def test_the_bootstrap_of_its_terms_is_its_interval():
    log = PROBLEM.log(400, width=2.0, longest=200, seed=3)
    terms = linear_fqe(log, linear(PROBLEM.best()), PROBLEM.gamma)
    found = estimate(terms, replicates=400)
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(1.96 * terms.error(), rel=0.2)
    assert found.supported


def test_what_the_log_does_not_show_has_no_value():
    log = PROBLEM.log(60, width=0.01, longest=20, seed=4)
    with pytest.raises(TrainingDiverged, match="rewards allow"):
        linear_fqe(log, lambda states: np.full((len(states), 2), 500.0, np.float32), PROBLEM.gamma)
