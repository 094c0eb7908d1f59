"""By hand, against SciPy, and against the metrics without groups."""

import math

import numpy as np
import pytest
from scipy import stats

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.concordance import group_xauc, kendall
from polyrank.metrics.grouped import group_auc
from polyrank.metrics.ranking import xauc

METRICS = [kendall, group_xauc]


class TestKendall:
    def test_by_hand(self):
        # Group 1: of the pairs (1,2), (1,3), (2,3) the last is turned round → 1/3. Group 2: tied in the first score.
        first, second = np.array([1.0, 2.0, 3.0, 5.0, 5.0]), np.array([10.0, 30.0, 20.0, 1.0, 2.0])
        found = kendall(first, second, np.array([1, 1, 1, 2, 2]))
        np.testing.assert_allclose(found.values, [1 / 3, math.nan])
        # With a tie: x = 1, 2, 2 and y = 1, 2, 3 has two concordant pairs → 2/√(2·3).
        tied = kendall(np.array([1.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0]), np.zeros(3, dtype=np.int64))
        assert tied.mean() == pytest.approx(2 / math.sqrt(6))

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("size", [2, 7, 60, 400])
    def test_agrees_with_scipy_group_by_group(self, seed, size):
        rng = np.random.default_rng(seed)
        first, second = rng.integers(0, 9, 400) / 3, rng.integers(0, 30, 400)
        groups = rng.integers(0, 400 // size, 400)
        found = kendall(first, second, groups)
        for group, value in zip(found.groups, found.values, strict=True):
            rows = groups == group
            expected = stats.kendalltau(first[rows], second[rows]).statistic if rows.sum() > 1 else math.nan
            assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)

    def test_extremes(self):
        scores, groups = np.arange(40.0), np.arange(40) // 10
        assert kendall(scores, np.exp(scores / 9), groups).mean() == 1.0
        assert kendall(scores, -scores, groups).mean() == -1.0


class TestGroupXauc:
    def test_by_hand(self):
        # Group 1 (labels 1, 2, 2, 4): of five pairs with different labels three are right, as in `xauc`'s test → 3/5.
        predictions = np.array([0.1, 0.4, 0.3, 0.2, 7.0, 7.0, 1.0])
        found = group_xauc(predictions, np.array([1, 2, 2, 4, 3, 5, 1]), np.array([1, 1, 1, 1, 2, 2, 3]))
        np.testing.assert_array_equal(found.values, [0.6, 0.5, math.nan])
        assert found.mean() == pytest.approx((4 * 0.6 + 2 * 0.5) / 6)

    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_xauc_group_by_group(self, seed):
        rng = np.random.default_rng(seed)
        predictions, labels = rng.integers(0, 9, 300) / 3, rng.integers(0, 6, 300) * 1000.0
        groups = rng.integers(0, 20, 300)
        found = group_xauc(predictions, labels, groups)
        expected = [xauc(predictions[groups == g], labels[groups == g]) for g in found.groups]
        np.testing.assert_allclose(found.values, expected, atol=1e-15)

    def test_of_binary_labels_is_auc(self, tied_rows):
        scores, labels, rng = tied_rows(0)
        groups = rng.integers(0, 40, len(scores))
        np.testing.assert_array_equal(
            group_xauc(scores, labels, groups).values, group_auc(scores, labels, groups).values
        )


@pytest.mark.parametrize("metric", METRICS)
class TestEvery:
    def test_rows_without_a_group_and_no_rows(self, metric):
        found = metric(np.array([9.0, 2.0, 1.0]), np.array([1.0, 2.0, 1.0]), np.array([NO_GROUP, 7, 7]))
        np.testing.assert_array_equal(found.groups, [7])
        assert found.mean() == 1.0
        assert math.isnan(metric(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)).mean())

    def test_refuses_what_is_not_finite(self, metric):
        with pytest.raises(ValueError, match="finite"):
            metric(np.array([1.0, math.nan]), np.ones(2), np.zeros(2, dtype=np.int64))
