"""The references are scikit-learn, brute force over pairs, and values worked out by hand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from polyrank.data.groups import NO_GROUP
from polyrank.metrics import bootstrap, ranking

EMPTY = np.zeros(0)
SEEDS = range(8)


def gauc_by_loop(scores, labels, groups):
    value = rows = skipped = used = 0
    for group in np.unique(groups):
        inside = groups == group
        if len(np.unique(labels[inside])) < 2:
            skipped += 1
            continue
        used += 1
        rows += inside.sum()
        value += inside.sum() * sklearn_metrics.roc_auc_score(labels[inside], scores[inside])
    return value / rows, used, skipped, rows


def xauc_by_pairs(predictions, labels):
    right = pairs = 0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if labels[i] > labels[j]:
                pairs += 1
                right += 1.0 if predictions[i] > predictions[j] else 0.5 * (predictions[i] == predictions[j])
    return right / pairs if pairs else math.nan


class TestAuc:
    def test_by_hand(self):
        # Pairs (positive, negative): .8>.5, .8>.1, .5=.5, .5>.1 → 3½ of 4.
        assert ranking.auc(np.array([0.8, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])) == 0.875

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("levels", [1, 2, 12, 10**9])
    def test_agrees_with_sklearn_under_ties(self, tied_rows, seed, levels):
        scores, labels, _ = tied_rows(seed, levels=levels)
        expected = sklearn_metrics.roc_auc_score(labels, scores)
        assert ranking.auc(scores, labels) == pytest.approx(expected, abs=1e-12)
        assert ranking.AucState.of(scores, labels).value() == ranking.auc(scores, labels)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_weighted_sklearn(self, tied_rows, seed):
        scores, labels, rng = tied_rows(seed)
        weights = rng.exponential(size=len(scores)) * (rng.random(len(scores)) < 0.8)
        expected = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights)
        assert ranking.auc(scores, labels, weights) == pytest.approx(expected, abs=1e-12)
        assert ranking.AucState.of(scores, labels, weights).value() == pytest.approx(expected, abs=1e-12)
        assert ranking.AucSweep(scores, labels).value(weights) == ranking.auc(scores, labels, weights)

    @pytest.mark.parametrize("dtype", [np.int64, np.float64, np.float32])
    def test_a_weight_is_a_repeated_row(self, tied_rows, dtype):
        scores, labels, rng = tied_rows(0)
        times = rng.integers(0, 4, len(scores))
        repeated = ranking.auc(np.repeat(scores, times), np.repeat(labels, times))
        assert ranking.auc(scores, labels, times.astype(dtype)) == repeated
        assert ranking.AucState.of(scores, labels, times.astype(dtype)).value() == repeated

    def test_one_sweep_serves_many_weights(self, tied_rows):
        scores, labels, _ = tied_rows(1)
        sweep = ranking.AucSweep(scores, labels)
        for weights in bootstrap.group_weights(None, len(scores), 5, seed=0):
            assert sweep.value(weights) == ranking.auc(scores, labels, weights)
        assert sweep.value() == ranking.auc(scores, labels)

    def test_no_row_order_and_no_monotone_map_changes_it(self, tied_rows):
        scores, labels, rng = tied_rows(2)
        shuffled = rng.permutation(len(scores))
        value = ranking.auc(scores, labels)
        assert ranking.auc(scores[shuffled], labels[shuffled]) == value
        assert ranking.auc(np.exp(3 * scores), labels) == value
        assert ranking.auc(-scores, labels) == pytest.approx(1 - value, abs=1e-15)

    def test_scores_equal_only_in_float32_tie_only_there(self):
        scores, labels = np.array([0.5 + 1e-12, 0.5]), np.array([1.0, 0.0])
        assert ranking.auc(scores, labels) == 1.0
        assert ranking.auc(scores.astype(np.float32), labels) == 0.5
        assert ranking.gauc(scores, labels, np.zeros(2, dtype=np.int64)).value == 1.0
        assert ranking.xauc(scores, labels) == 1.0
        assert ranking.xauc(scores.astype(np.float32), labels) == 0.5

    def test_float32_and_widened_float32_agree(self, tied_rows):
        scores, labels, _ = tied_rows(3, levels=10**6)
        narrow = scores.astype(np.float32)
        assert ranking.auc(narrow, labels) == ranking.auc(narrow.astype(np.float64), labels)

    def test_signed_zeros_tie(self):
        assert ranking.auc(np.array([0.0, -0.0]), np.array([1, 0])) == 0.5

    def test_a_fine_score_is_not_binned(self):
        # 200 thresholds would call all of these equal.
        scores = np.linspace(0.5, 0.5 + 1e-9, 1000)
        assert ranking.auc(scores, (np.arange(1000) >= 500).astype(float)) == 1.0

    @pytest.mark.parametrize("labels", [[], [0.0], [1.0], [1.0, 1.0], [0.0, 0.0, 0.0]])
    def test_without_both_classes_there_is_none(self, labels):
        scores = np.arange(len(labels), dtype=np.float64)
        assert math.isnan(ranking.auc(scores, np.array(labels)))
        assert math.isnan(ranking.AucState.of(scores, np.array(labels)).value())
        assert math.isnan(ranking.gauc(scores, np.array(labels), np.zeros(len(labels), dtype=np.int64)).value)

    def test_a_class_without_weight_is_missing(self):
        assert math.isnan(ranking.auc(np.array([0.1, 0.9]), np.array([0, 1]), np.array([1.0, 0.0])))

    def test_rounding_never_exceeds_one(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            weights = rng.random(101)
            labels = (np.arange(101) > 40).astype(float)
            assert 1 - 1e-12 < ranking.auc(np.arange(101.0), labels, weights) <= 1.0

    def test_pair_counts_beyond_32_bits_are_exact(self):
        half = 100_000  # 10¹⁰ pairs
        scores = np.concatenate((np.arange(half) + 1.0, np.arange(half) + 0.0))
        labels = np.repeat([1.0, 0.0], half)
        # Positive k + 1 beats the negatives 0..k and ties with k + 1 (the last ties with none).
        wins = half * (half + 1) / 2 + (half - 1) / 2
        assert ranking.auc(scores, labels) == wins / half**2
        assert ranking.gauc(scores, labels, np.zeros(2 * half, dtype=np.int64)).value == wins / half**2


class TestAucState:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(-5, 5), st.booleans()), max_size=60),
        st.lists(st.integers(0, 60), max_size=4),
    )
    def test_merged_chunks_equal_the_whole(self, rows, cuts):
        scores = np.array([row[0] / 7 for row in rows])
        labels = np.array([float(row[1]) for row in rows])
        edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
        state = ranking.AucState.of(EMPTY, EMPTY)
        for start, end in itertools.pairwise(edges):
            state = ranking.AucState.of(scores[start:end], labels[start:end]).merge(state)
        whole = ranking.AucState.of(scores, labels)
        for name in ("scores", "positives", "negatives"):
            np.testing.assert_array_equal(getattr(state, name), getattr(whole, name))
        assert state.positives.dtype == state.negatives.dtype == np.int64
        np.testing.assert_equal(state.value(), ranking.auc(scores, labels))
        np.testing.assert_equal(whole.value(), ranking.auc(scores, labels))

    def test_holds_distinct_scores_with_their_counts(self):
        state = ranking.AucState.of(np.array([0.5, 0.1, 0.5, 0.5]), np.array([1, 0, 0, 1]))
        assert state.scores.tolist() == [0.1, 0.5]
        assert state.positives.tolist() == [0, 2]
        assert state.negatives.tolist() == [1, 1]

    def test_weighted_chunks_merge(self, tied_rows):
        scores, labels, rng = tied_rows(4)
        weights = rng.random(len(scores))
        parts = [ranking.AucState.of(scores[i::3], labels[i::3], weights[i::3]) for i in range(3)]
        merged = parts[0].merge(parts[1]).merge(parts[2])
        assert merged.value() == pytest.approx(ranking.auc(scores, labels, weights), abs=1e-12)

    def test_float32_chunks_merge_with_float64_chunks(self):
        narrow = ranking.AucState.of(np.array([0.1], dtype=np.float32), np.array([1.0]))
        wide = ranking.AucState.of(np.array([0.1]), np.array([0.0]))
        assert narrow.merge(wide).value() == 1.0  # float32(0.1) > 0.1


class TestGauc:
    def test_by_hand(self):
        # Group 7: AUC 1 over 2 rows. Group −3: one of two pairs over 3 rows, ½. Group 5: one class.
        scores = np.array([0.9, 0.2, 0.5, 0.1, 0.3, 0.7])
        labels = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
        groups = np.array([7, -3, 7, -3, 5, 5])
        scores, labels, groups = np.append(scores, 0.15), np.append(labels, 1.0), np.append(groups, -3)
        assert ranking.gauc(scores, labels, groups) == ranking.GroupAuc((2 * 1 + 3 * 0.5) / 5, 2, 1, 5)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_agrees_with_a_loop_over_sklearn(self, tied_rows, seed, dtype):
        scores, labels, rng = tied_rows(seed)
        groups = rng.integers(-(2**62), 2**62, 70)[rng.integers(0, 70, len(scores))]  # beyond what a float can tell
        result = ranking.gauc(scores.astype(dtype), labels, groups)
        value, used, skipped, rows = gauc_by_loop(scores, labels, groups)
        assert result.value == pytest.approx(value, abs=1e-12)
        assert (result.groups, result.skipped, result.rows) == (used, skipped, rows)
        assert skipped > 0

    def test_neighbouring_large_ids_stay_apart(self):
        groups = np.array([2**53, 2**53 + 1, 2**53, 2**53 + 1])
        result = ranking.gauc(np.array([1.0, 4.0, 2.0, 3.0]), np.array([0, 1, 1, 0]), groups)
        assert (result.value, result.groups) == (1.0, 2)

    def test_one_group_is_auc(self, tied_rows):
        scores, labels, _ = tied_rows(5)
        result = ranking.gauc(scores, labels, np.full(len(scores), 9))
        assert result == ranking.GroupAuc(ranking.auc(scores, labels), 1, 0, len(scores))

    def test_rows_without_a_group_form_none(self, tied_rows):
        scores, labels, rng = tied_rows(8)
        groups = rng.integers(-5, 5, len(scores))
        nobody = rng.random(len(scores)) < 0.3
        result = ranking.gauc(scores, labels, np.where(nobody, NO_GROUP, groups))
        others = ranking.gauc(scores[~nobody], labels[~nobody], groups[~nobody])
        assert result == dataclasses.replace(others, ungrouped=nobody.sum())
        alone = ranking.gauc(scores, labels, np.full(len(scores), NO_GROUP))
        assert math.isnan(alone.value)
        assert (alone.groups, alone.skipped, alone.rows, alone.ungrouped) == (0, 0, 0, len(scores))

    def test_row_order_does_not_matter(self, tied_rows):
        scores, labels, rng = tied_rows(6)
        groups = rng.integers(0, 40, len(scores))
        order = rng.permutation(len(scores))
        assert ranking.gauc(scores[order], labels[order], groups[order]) == ranking.gauc(scores, labels, groups)

    def test_a_shift_per_group_changes_nothing(self, tied_rows):
        scores, labels, rng = tied_rows(7)
        groups = rng.integers(0, 20, len(scores))
        shifted = scores * 12 + 100.0 * groups
        assert ranking.gauc(shifted, labels, groups) == ranking.gauc(scores * 12, labels, groups)

    def test_only_one_class_groups(self):
        result = ranking.gauc(np.array([0.1, 0.2, 0.3]), np.array([1, 1, 0]), np.array([1, 1, 2]))
        assert math.isnan(result.value)
        assert (result.groups, result.skipped, result.rows) == (0, 2, 0)

    def test_no_rows(self):
        result = ranking.gauc(EMPTY, EMPTY, np.zeros(0, dtype=np.int64))
        assert math.isnan(result.value)
        assert (result.groups, result.skipped, result.rows) == (0, 0, 0)


class TestXauc:
    def test_by_hand(self):
        assert ranking.xauc(np.array([0.1, 0.4, 0.3, 0.2]), np.array([1, 2, 2, 4])) == 0.6

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 5)), max_size=40))
    def test_agrees_with_all_pairs(self, rows):
        predictions = np.array([row[0] / 3 for row in rows])
        labels = np.array([float(row[1]) for row in rows])
        expected = xauc_by_pairs(predictions, labels)
        assert ranking.xauc(predictions, labels) == pytest.approx(expected, abs=1e-15, nan_ok=True)

    @pytest.mark.parametrize("rows", [1, 2, 3, 31, 32, 33, 257])
    def test_agrees_with_all_pairs_around_powers_of_two(self, rows):
        rng = np.random.default_rng(rows)
        predictions, labels = rng.random(rows), rng.exponential(size=rows)
        expected = xauc_by_pairs(predictions, labels)
        assert ranking.xauc(predictions, labels) == pytest.approx(expected, abs=1e-15, nan_ok=True)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_binary_labels_is_auc(self, tied_rows, seed):
        scores, labels, _ = tied_rows(seed)
        assert ranking.xauc(scores, labels) == ranking.auc(scores, labels)

    def test_agrees_with_kendall_on_many_rows(self):
        rng = np.random.default_rng(0)
        labels = rng.random(20_000)
        predictions = labels + rng.normal(size=20_000)
        tau = stats.kendalltau(predictions, labels).statistic
        assert ranking.xauc(predictions, labels) == pytest.approx((tau + 1) / 2, abs=1e-12)

    def test_extremes(self):
        labels = np.arange(10.0)
        assert ranking.xauc(labels, labels) == 1.0
        assert ranking.xauc(-labels, labels) == 0.0
        assert ranking.xauc(np.ones(10), labels) == 0.5
        assert math.isnan(ranking.xauc(labels, np.ones(10)))

    def test_does_not_depend_on_row_order(self):
        rng = np.random.default_rng(1)
        predictions, labels = rng.integers(0, 9, 300) / 9, rng.integers(0, 30, 300).astype(float)
        order = rng.permutation(300)
        assert ranking.xauc(predictions[order], labels[order]) == ranking.xauc(predictions, labels)

    def test_no_rows(self):
        assert math.isnan(ranking.xauc(EMPTY, EMPTY))
