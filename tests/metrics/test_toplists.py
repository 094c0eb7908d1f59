"""By hand, and against the mean over every order of the tied rows."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.toplists import hit_rate, ndcg, sum_at

EMPTY, NONE = np.zeros(0), np.zeros(0, dtype=np.int64)
LOG3 = math.log2(3)
METRICS = [ndcg, hit_rate, sum_at]
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=8)


def over_all_orders(scores, values, groups, k, measure):
    """Mean of `measure(values in order)` over the orders that the scores allow, group by group."""
    found = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        orders = [o for o in itertools.permutations(rows) if all(np.diff(scores[list(o)]) <= 0)]
        found.append(np.mean([measure(values[list(order)], k) for order in orders]))
    return found


def dcg(gains, k):
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))


class TestNdcg:
    def test_by_hand(self):
        scores, gains = np.array([3.0, 2.0, 1.0, 5.0]), np.array([0.0, 1.0, 2.0, 0.0])
        groups = np.array([1, 1, 1, 2])
        # The gains 0, 1, 2 stand in this order: DCG@2 = 1/log2 3, ideal 2 + 1/log2 3. Group 2 has no gain.
        found = ndcg(scores, gains, groups, 2)
        np.testing.assert_allclose(found.values, [(1 / LOG3) / (2 + 1 / LOG3), math.nan])
        assert found.mean() == pytest.approx(0.2398125)
        assert ndcg(scores, gains, groups, 3).mean() == pytest.approx((1 / LOG3 + 2 / 2) / (2 + 1 / LOG3))

    def test_tied_rows_share_their_places(self):
        tied, groups = np.zeros(2), np.zeros(2, dtype=np.int64)
        assert ndcg(tied, np.array([1.0, 0.0]), groups, 1).mean() == 0.5
        assert ndcg(tied, np.array([0.0, 1.0]), groups, 2).mean() == pytest.approx((1 + 1 / LOG3) / 2)

    @given(ROWS, st.integers(1, 4))
    def test_is_the_mean_over_all_orders_of_ties(self, rows, k):
        scores, gains, groups = np.array(rows, dtype=np.int64).T
        found = ndcg(scores, gains, groups, k)
        ideal = np.array([dcg(sorted(gains[groups == g], reverse=True), k) for g in found.groups])
        expected = np.array(over_all_orders(scores, gains, groups, k, dcg))
        np.testing.assert_allclose(found.values, np.where(ideal > 0, expected / np.maximum(ideal, 1e-9), math.nan))

    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_sklearn(self, tied_rows, seed):
        scores, gains, rng = tied_rows(seed)
        gains = gains * rng.exponential(size=len(gains))
        found = ndcg(scores, gains, np.zeros(len(scores), dtype=np.int64), 10)
        assert found.mean() == pytest.approx(ndcg_score(gains[None], scores[None], k=10), abs=1e-12)

    def test_best_order_is_one_and_negative_gains_are_refused(self):
        gains, groups = np.array([3.0, 1.0, 2.0]), np.zeros(3, dtype=np.int64)
        assert ndcg(gains, gains, groups, 3).mean() == 1.0
        with pytest.raises(ValueError, match="negative"):
            ndcg(gains, -gains, groups, 3)


class TestHitRate:
    def test_by_hand(self):
        scores = np.array([3.0, 2.0, 2.0, 1.0, 9.0, 8.0, 5.0])
        labels = np.array([0, 1, 0, 0, 1, 0, 0])
        groups = np.array([1, 1, 1, 1, 2, 2, 3])
        # Group 1: one of the two tied rows takes the second place. Group 3 has no positive.
        found = hit_rate(scores, labels, groups, 2)
        np.testing.assert_allclose(found.values, [0.5, 1.0, math.nan])
        assert found.mean() == pytest.approx(0.75)

    @given(ROWS, st.integers(1, 4))
    def test_is_the_mean_over_all_orders_of_ties(self, rows, k):
        scores, labels, groups = np.array(rows, dtype=np.int64).T
        found = hit_rate(scores, labels, groups, k)
        expected = np.array(over_all_orders(scores, labels, groups, k, lambda top, k: top[:k].max()))
        held = np.array([labels[groups == g].max() for g in found.groups])
        np.testing.assert_allclose(found.values, np.where(held, expected, math.nan), atol=1e-12)


class TestSumAt:
    def test_by_hand(self):
        scores = np.array([2.0, 1.0, 1.0, 7.0])
        found = sum_at(scores, np.array([0.5, 0.2, 0.4, -1.0]), np.array([4, 4, 4, 9]), 2)
        np.testing.assert_allclose(found.values, [0.5 + 0.3, -1.0])
        assert found.mean() == pytest.approx(-0.1)


@pytest.mark.parametrize("metric", METRICS)
class TestEvery:
    def test_row_order_does_not_matter(self, tied_rows, metric):
        scores, labels, rng = tied_rows(0)
        groups, order = rng.integers(0, 40, len(scores)), rng.permutation(len(scores))
        found = metric(scores, labels, groups, 3)
        again = metric(scores[order], labels[order], groups[order], 3)
        np.testing.assert_allclose(found.values, again.values, atol=1e-12)

    def test_rows_without_a_group_are_left_out(self, metric):
        found = metric(np.array([9.0, 2.0, 1.0]), np.array([0, 1, 0]), np.array([NO_GROUP, 7, 7]), 1)
        np.testing.assert_array_equal(found.groups, [7])
        assert found.mean() == 1.0

    def test_no_rows(self, metric):
        assert math.isnan(metric(EMPTY, EMPTY, NONE, 5).mean())

    def test_refuses_wrong_input(self, metric):
        groups = np.zeros(2, dtype=np.int64)
        with pytest.raises(ValueError, match="k must be at least 1"):
            metric(np.ones(2), np.ones(2), groups, 0)
        with pytest.raises(ValueError, match="shape"):
            metric(np.ones(2), np.ones(3), groups, 1)
        with pytest.raises(ValueError, match="finite"):
            metric(np.array([1.0, math.inf]), np.ones(2), groups, 1)
