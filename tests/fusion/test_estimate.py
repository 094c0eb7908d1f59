"""Values, intervals and refusals of sums of ratios."""

import math

import numpy as np
import pytest

from polyrank.fusion.estimate import Terms, effective_size, empirical_bernstein, estimate


def terms(above, below, weights=None):
    return Terms(np.array(above, float), np.array(below, float), None if weights is None else np.array(weights, float))


def test_a_value_is_a_sum_of_ratios():
    two = terms([[1, 4], [3, 6]], [[1, 2], [1, 3]])
    assert two.value() == (1 + 3) / 2 + (4 + 6) / 5
    assert two.value(np.array([2.0, 0.0])) == 2 / 2 + 8 / 4
    assert math.isnan(terms([[1.0]], [[0.0]]).value() - math.inf)


def test_clusters_sum_without_changing_the_value():
    rng = np.random.default_rng(0)
    rows = terms(rng.normal(size=(40, 3)), rng.uniform(1, 2, size=(40, 3)))
    clusters = rng.integers(0, 7, 40) * 10**12
    summed = rows.summed(clusters)
    assert len(summed.above) == len(np.unique(clusters)) < 8
    assert summed.value() == pytest.approx(rows.value(), rel=1e-12)


def test_effective_size_by_hand():
    assert effective_size(np.ones(50)) == 50
    assert effective_size(np.array([1.0, 0.0, 0.0])) == 1
    assert effective_size(np.array([2.0, 1.0])) == pytest.approx(9 / 5)
    assert effective_size(np.array([2e300, 1e300])) == pytest.approx(9 / 5)  # squares would overflow
    assert effective_size(np.zeros(3)) == 0
    assert effective_size(np.array([math.inf, 1.0])) == 0  # an infinite weight speaks alone


@pytest.mark.parametrize(("rows", "alike", "supported"), [(1000, 200, True), (1000, 199, False), (40_000, 399, False)])
def test_refusal_below_two_hundred_or_one_percent(rows, alike, supported):
    weights = np.zeros(rows)
    weights[:alike] = 3.0
    found = estimate(terms(weights[:, None], np.ones((rows, 1)), weights), replicates=20)
    assert found.supported == supported
    assert found.effective == pytest.approx(alike)
    if not supported:
        assert math.isnan(found.value)
        assert f"{alike:,.1f} of {rows:,}" in found.refusal


def test_an_estimate_without_weights_is_not_refused():
    found = estimate(terms([[1.0], [3.0]], [[1.0], [1.0]]), replicates=50)
    assert (found.value, found.supported) == (2.0, True)
    assert 1.0 <= found.interval.low <= found.interval.high <= 3.0


def test_correlated_rows_need_their_clusters():
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(300), 20)
    values = np.repeat(rng.normal(size=300), 20)[:, None]  # a user's rows are all alike
    alone, together = (
        estimate(terms(values, np.ones_like(values)), clusters, replicates=400) for clusters in (None, users)
    )
    widths = [found.interval.high - found.interval.low for found in (alone, together)]
    assert widths[1] == pytest.approx(widths[0] * math.sqrt(20), rel=0.15)
    assert widths[1] == pytest.approx(2 * 1.96 * values.std() / math.sqrt(300), rel=0.15)


def test_the_normalisers_noise_counts():
    """Of SNIPS with constant rewards: the ratio is exact in every replicate. That of Σ w r / N would not be."""
    weights = np.random.default_rng(2).exponential(size=2000)
    exact = estimate(terms(3 * weights[:, None], weights[:, None], weights), replicates=50)
    assert exact.interval.low == pytest.approx(3.0, rel=1e-12)
    assert exact.interval.high == pytest.approx(3.0, rel=1e-12)


def test_empirical_bernstein_by_hand_and_cover():
    values = np.array([0.0, 1.0] * 5000)
    found, log = empirical_bernstein(values, 0.0, 1.0), math.log(60)
    width = math.sqrt(2 * 0.25 * log / 10_000) + 3 * log / 10_000
    assert (found.low, found.high) == (pytest.approx(0.5 - width), pytest.approx(0.5 + width))
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        interval = empirical_bernstein((rng.random(500) < 0.02).astype(float), 0.0, 1.0)
        covered += interval.low <= 0.02 <= interval.high
    assert covered >= 0.95 * 400
    with pytest.raises(ValueError, match=r"must lie in \[0.0, 1.0\]"):
        empirical_bernstein(np.array([1.5]), 0.0, 1.0)
