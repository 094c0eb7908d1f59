"""The one-step estimators against hand-computed numbers and problems whose values are known exactly."""

import numpy as np
import pytest

from polyrank.fusion.estimate import estimate
from polyrank.fusion.ope import ESTIMATORS, Limits, Logged
from polyrank.fusion.ratios import density_ratio

HAND = Logged(
    np.array([0.0, 2.0, 20.0]),
    np.array([1.0, 0.0, 1.0]),
    np.array([0.5, 0.5, 0.5]),
    np.array([0.6, 0.4, 0.8]),
)
BY_HAND = {
    "ips": 20 / 3,
    "clipped": 10 / 3,
    "snips": 20 / 22,
    "dm": 0.6,
    "dr": 0.6 + (2 * -0.5 + 20 * 0.5) / 3,
    "sndr": 0.6 + (2 * -0.5 + 20 * 0.5) / 22,
    "switch": 0.6 + (2 * -0.5) / 3,
    "dr_os": 0.6 + (200 / 104 * -0.5 + 2000 / 500 * 0.5) / 3,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_by_hand(name):
    assert ESTIMATORS[name](HAND).value() == pytest.approx(BY_HAND[name], rel=1e-12)


def test_what_was_clipped_is_told():
    shares = {name: ESTIMATORS[name](HAND).clipped for name in ESTIMATORS}
    assert shares == {name: 1 / 3 if name in ("clipped", "switch", "dr_os") else 0.0 for name in ESTIMATORS}


@pytest.mark.parametrize("name", ["snips", "sndr"])
def test_self_normalised_values_move_with_a_shift_of_rewards(name):
    moved = Logged(HAND.weights, HAND.rewards + 7, HAND.logged, HAND.target)
    assert ESTIMATORS[name](moved).value() == pytest.approx(ESTIMATORS[name](HAND).value() + 7, rel=1e-12)


@pytest.mark.parametrize("name", ["dr", "sndr", "switch", "dr_os"])
def test_limits_lead_to_the_direct_method(name):
    zero = Logged(np.full(3, 1e-30), HAND.rewards, HAND.logged, HAND.target, Limits(1e-30, 1e-31, 1e-30))
    if name != "sndr":  # dividing by Σ w, it does not care how small weights are
        assert ESTIMATORS[name](zero).value() == pytest.approx(0.6, rel=1e-9)
    right = Logged(HAND.weights, HAND.logged, HAND.logged, HAND.target)
    assert ESTIMATORS[name](right).value() == pytest.approx(0.6, rel=1e-12)


def test_loose_limits_lead_to_the_unlimited():
    loose = Logged(HAND.weights, HAND.rewards, HAND.logged, HAND.target, Limits(1e9, 1e9, 1e12))
    values = {name: estimator(loose).value() for name, estimator in ESTIMATORS.items()}
    assert values["clipped"] == values["ips"]
    assert values["switch"] == values["dr"]
    assert values["dr_os"] == pytest.approx(values["dr"], rel=1e-6)


@pytest.mark.parametrize(
    "change", [{"weights": np.array([-1.0, 1, 1])}, {"rewards": np.ones(2)}, {"logged": np.array([np.nan, 0, 0])}]
)
def test_bad_arrays_are_named(change):
    parts = {"weights": np.ones(3), "rewards": np.ones(3), "logged": np.zeros(3), "target": np.zeros(3)}
    with pytest.raises(ValueError, match=r"must (not be negative|be finite)"):
        Logged(**{**parts, **change})


class Bandit:
    """r = 1 + s·a − a²/2 + ε, s ~ N(0, 1), logged a ~ N(0, 1), target a ~ N(s/2, 0.8²).

    V = 1 + E[s·s/2] − E[s²/4 + 0.64]/2 = 1 + 1/2 − 0.445 = 1.055.
    """

    truth = 1 + 0.5 - (0.25 + 0.64) / 2

    def __init__(self, rng, rows, *, wrong_weights=False, wrong_model=False):
        s, a = rng.normal(size=rows), rng.normal(size=rows)
        rewards = 1 + s * a - a**2 / 2 + rng.normal(size=rows)
        target = -0.5 * ((a - s / 2) / 0.8) ** 2 - np.log(0.8)
        weights = density_ratio(target, -0.5 * a**2)
        if wrong_weights:
            weights = weights * (1 + 0.8 * np.tanh(s) * np.tanh(a))
        logged, expected = 1 + s * a - a**2 / 2, 1 + s**2 / 2 - (s**2 / 4 + 0.64) / 2
        if wrong_model:
            logged, expected = logged - 0.5 * s * a + 0.3, expected - 0.25 * s**2 + 0.3
        self.data = Logged(weights, rewards, logged, expected)


def errors(name, replications, **wrong):
    rng = np.random.default_rng(5)
    values = np.array([ESTIMATORS[name](Bandit(rng, 2000, **wrong).data).value() for _ in range(replications)])
    return values.mean() - Bandit.truth, values.std(ddof=1) / np.sqrt(replications)


@pytest.mark.parametrize("name", ["ips", "snips", "dm", "dr", "sndr"])
def test_unbiased_on_the_linear_gaussian_bandit(name):
    bias, error = errors(name, 300)
    assert abs(bias) < 3 * error + 1e-3  # self-normalised ones have a bias of order 1/N
    assert error < 0.02


@pytest.mark.parametrize("wrong", ["wrong_weights", "wrong_model"])
def test_doubly_robust_is_right_where_either_part_is(wrong):
    bias, error = errors("dr", 300, **{wrong: True})
    assert abs(bias) < 3 * error
    for single, its in (("ips", "wrong_weights"), ("dm", "wrong_model")):
        if its == wrong:  # the part that is wrong would have been seen
            bias, error = errors(single, 300, **{wrong: True})
            assert abs(bias) > 6 * error


def test_doubly_robust_is_wrong_where_both_parts_are():
    bias, error = errors("dr", 300, wrong_weights=True, wrong_model=True)
    assert abs(bias) > 6 * error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ips", "snips", "dr", "sndr", "dm"])
def test_intervals_cover(name):
    rng = np.random.default_rng(6)
    covered = 0
    for seed in range(500):
        found = estimate(ESTIMATORS[name](Bandit(rng, 2000).data), replicates=300, seed=seed)
        covered += found.interval.low <= Bandit.truth <= found.interval.high
    assert 0.92 <= covered / 500 <= 0.975  # 93–97 % within its own sampling error of 1 %
