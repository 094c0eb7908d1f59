"""Sequential estimators on a hand-computed log and on a tabular problem solved exactly."""

import numpy as np
import pytest

from polyrank.fusion.estimate import estimate
from polyrank.fusion.sequential import SEQUENTIAL, paths
from polyrank.fusion.sessions import SessionLog

# Two states, two actions. Action 1 earns more now and ends the session more often.
REWARD = np.array([[1.0, 1.5], [0.5, 1.0]])
LEAVE = np.array([[0.2, 0.5], [0.3, 0.6]])
MOVE = np.array([0.3, 0.6])  # to state 1, by action
BEHAVIOR = np.array([[0.5, 0.5], [0.6, 0.4]])
TARGET = np.array([[0.8, 0.2], [0.3, 0.7]])
GAMMA, START = 0.9, 0.5


def q_of(policy):
    """Q by solving (I − γ P_π) Q = R, and V(π) at the start."""
    step = np.zeros((4, 4))
    for s in range(2):
        for a in range(2):
            for after, chance in ((0, 1 - MOVE[a]), (1, MOVE[a])):
                for b in range(2):
                    step[2 * s + a, 2 * after + b] = (1 - LEAVE[s, a]) * chance * policy[after, b]
    q = np.linalg.solve(np.eye(4) - GAMMA * step, REWARD.ravel()).reshape(2, 2)
    v = (policy * q).sum(axis=1)
    return q, START * v[0] + (1 - START) * v[1]


def simulate(rng, sessions):
    ids, states, actions, rewards, done = [], [], [], [], []
    for i in range(sessions):
        s = int(rng.random() >= START)
        while True:
            a = int(rng.random() < BEHAVIOR[s, 1])
            end = bool(rng.random() < LEAVE[s, a])
            ids.append(i)
            states.append(s)
            actions.append(a)
            rewards.append(REWARD[s, a] + rng.normal(0, 0.1))
            done.append(end)
            if end:
                break
            s = int(rng.random() < MOVE[a])
    ids, s, a = np.array(ids), np.array(states), np.array(actions)
    starts = np.append(np.unique(ids, return_index=True)[1], len(ids))
    log = SessionLog(
        np.arange(sessions), starts, np.eye(2, dtype=np.float32)[s], np.eye(2, dtype=np.float32)[a],
        np.log(BEHAVIOR[s, a]), np.array(rewards), np.array(done),
    )  # fmt: skip
    return log, s, a


def read(log, s, a, *, model="right"):
    q, _ = q_of(TARGET)
    q = q + {"right": 0.0, "wrong": 0.7}[model]
    return paths(log, np.log(TARGET[s, a]), GAMMA, q[s, a], (TARGET * q).sum(axis=1)[s])


def test_by_hand_with_unequal_lengths():
    """Sessions of 2 and 1 steps; step ratios (2, 3) and (4): ρ = [2, 6] and [4, 4], the second stays at 4."""
    ratios = np.log([2.0, 3.0, 4.0])
    log = SessionLog(
        np.array([5, 9]), np.array([0, 2, 3]), np.zeros((3, 1)), np.zeros((3, 1)), np.zeros(3),
        np.array([1.0, 10.0, 5.0]), np.array([False, True, True]),
    )  # fmt: skip
    data = paths(log, ratios, 0.5, logged=np.array([1.0, 2.0, 3.0]), target=np.array([4.0, 6.0, 8.0]))
    np.testing.assert_allclose(data.ratios, [[2, 6], [4, 4]])
    np.testing.assert_allclose(data.rewards, [[1, 5], [5, 0]])
    values = {name: estimator(data).value() for name, estimator in SEQUENTIAL.items()}
    assert values["pdis"] == pytest.approx((2 * 1 + 6 * 5 + 4 * 5) / 2)
    assert values["wis"] == pytest.approx((6 * 6 + 4 * 5) / 10)
    assert values["wpdis"] == pytest.approx((2 * 1 + 4 * 5) / 6 + 6 * 5 / 10)
    # r − q: 0 and 2 at step 0, 5 − 1 = 4 at step 1; v: 4 and 8 at step 0, each 1/2 of it, 3 at step 1, 2/6 of it
    assert values["wdr"] == pytest.approx((4 * 2) / 6 + (6 * 4) / 10 + (4 + 8) / 2 + 2 * 3 / 6)


def test_the_same_policy_gives_the_mean_return():
    log, _, _ = simulate(np.random.default_rng(0), 300)
    data = paths(log, log.log_densities, GAMMA)
    mean = float(data.rewards.sum(axis=1).mean())
    for name, estimator in SEQUENTIAL.items():
        assert estimator(data).value() == pytest.approx(mean, rel=1e-12), name


@pytest.mark.parametrize("name", ["pdis", "wdr"])
def test_unbiased_on_a_tabular_problem(name):
    rng = np.random.default_rng(1)
    values = [SEQUENTIAL[name](read(*simulate(rng, 500))).value() for _ in range(60)]
    _, truth = q_of(TARGET)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 3 * error
    assert error < 0.03 * truth


def test_weighted_ones_are_consistent_and_a_right_model_takes_the_noise_away():
    _, truth = q_of(TARGET)
    log, s, a = simulate(np.random.default_rng(2), 20_000)
    data = read(log, s, a)
    assert SEQUENTIAL["wpdis"](data).value() == pytest.approx(truth, rel=0.03)
    found = {name: estimate(SEQUENTIAL[name](data), replicates=100) for name in ("pdis", "wdr")}
    widths = {name: of.interval.high - of.interval.low for name, of in found.items()}
    assert widths["wdr"] < 0.7 * widths["pdis"]
    assert SEQUENTIAL["wdr"](read(log, s, a, model="wrong")).value() == pytest.approx(truth, rel=0.03)


def test_what_the_target_never_does_has_no_weight():
    log, s, a = simulate(np.random.default_rng(3), 50)
    with np.errstate(divide="ignore"):
        data = paths(log, np.log(np.array([[1.0, 0.0], [1.0, 0.0]])[s, a]), GAMMA)
    ended = log.padded(a).cumsum(axis=1) > 0  # action 1 was taken
    assert (data.ratios[ended] == 0).all()
    assert (data.ratios[~ended] > 0).all()
