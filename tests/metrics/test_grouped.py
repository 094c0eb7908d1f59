"""By hand, and against scikit-learn group by group."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.grouped import GroupValues, by_group, group_auc

EMPTY, NONE = np.zeros(0), np.zeros(0, dtype=np.int64)


class TestGroupValues:
    def test_mean_weighs_groups_and_skips_what_is_undefined(self):
        found = GroupValues(np.arange(3), np.array([0.5, math.nan, 0.8]), np.array([1, 100, 3]))
        assert found.mean() == pytest.approx((0.5 + 3 * 0.8) / 4)
        assert found.mean(np.array([2, 7, 1])) == pytest.approx((2 * 0.5 + 3 * 0.8) / 5)
        assert math.isnan(found.mean(np.array([0, 1, 0])))

    def test_of_no_group(self):
        assert math.isnan(GroupValues(NONE, EMPTY, EMPTY).mean())


class TestGroupAuc:
    def test_by_hand(self):
        scores = np.array([0.8, 0.5, 0.1, 0.3, 0.3, 0.9])
        labels = np.array([1, 0, 1, 1, 0, 1])
        groups = np.array([1, 1, 1, 2, 2, 3])
        # Group 1: .8 > .5, .1 < .5 → ½. Group 2: a tie → ½. Group 3 has one class.
        found = group_auc(scores, labels, groups)
        np.testing.assert_array_equal(found.values, [0.5, 0.5, math.nan])
        np.testing.assert_array_equal(found.weights, [3, 2, 1])
        # With weights 2, 1, 3: the won pair weighs 2·1, the lost one 3·1 → 2/5, and MTF-GAUC (3·.4 + 2·.5)/5.
        weighted = group_auc(scores, labels, groups, np.array([2.0, 1.0, 3.0, 4.0, 5.0, 6.0]))
        np.testing.assert_allclose(weighted.values, [0.4, 0.5, math.nan], atol=1e-15)
        assert weighted.mean() == pytest.approx(0.44)

    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_sklearn_group_by_group(self, tied_rows, seed):
        scores, labels, rng = tied_rows(seed)
        groups = rng.integers(0, 30, len(scores))
        weights = rng.exponential(size=len(scores))
        for given in (None, weights, rng.integers(0, 4, len(scores))):
            found = group_auc(scores, labels, groups, given)
            for group, value, count in zip(found.groups, found.values, found.weights, strict=True):
                rows = groups == group
                mass = np.ones(len(scores)) if given is None else given
                assert count == rows.sum()
                if len(np.unique(labels[rows & (mass > 0)])) < 2:
                    assert math.isnan(value)
                    continue
                weight = None if given is None else given[rows]
                expected = sklearn_metrics.roc_auc_score(labels[rows], scores[rows], sample_weight=weight)
                assert value == pytest.approx(expected, abs=1e-10)

    def test_a_weight_is_a_repeated_row(self, tied_rows):
        scores, labels, rng = tied_rows(5)
        groups, times = rng.integers(0, 20, len(scores)), rng.integers(1, 4, len(scores))
        repeated = group_auc(*(np.repeat(column, times) for column in (scores, labels, groups)))
        np.testing.assert_array_equal(group_auc(scores, labels, groups, times).values, repeated.values)

    def test_rows_without_a_group_are_left_out(self):
        found = group_auc(np.array([3.0, 2.0, 1.0]), np.array([0, 1, 0]), np.array([NO_GROUP, 7, 7]))
        np.testing.assert_array_equal(found.groups, [7])
        assert found.mean() == 1.0

    def test_no_rows(self):
        assert math.isnan(group_auc(EMPTY, EMPTY, NONE).mean())

    def test_refuses_what_is_not_a_score_a_label_or_a_weight(self):
        groups = np.zeros(2, dtype=np.int64)
        with pytest.raises(ValueError, match="finite"):
            group_auc(np.array([1.0, math.nan]), np.array([0, 1]), groups)
        with pytest.raises(ValueError, match="0 or 1"):
            group_auc(np.array([1.0, 2.0]), np.array([0, 2]), groups)
        with pytest.raises(ValueError, match="negative"):
            group_auc(np.array([1.0, 2.0]), np.array([0, 1]), groups, np.array([1.0, -1.0]))
        with pytest.raises(ValueError, match="one length"):
            group_auc(np.array([1.0, 2.0]), np.array([0, 1]), groups[:1])


def test_by_group_sorts_by_each_key_in_turn():
    groups = np.array([2, 1, 2, NO_GROUP, 2])
    np.testing.assert_array_equal(
        by_group(groups, np.array([1, 0, 0, 0, 1]), np.array([5.0, 0.0, 0.0, 0.0, 4.0])), [1, 2, 4, 0]
    )
