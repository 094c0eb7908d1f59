"""The references are scikit-learn, brute force over pairs, and values worked out by hand."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from polyrank import metrics

EMPTY = np.zeros(0)
SEEDS = range(8)


def tied_rows(seed, rows=400, levels=12):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, rows) / levels
    labels = (rng.random(rows) < 0.1 + 0.6 * scores).astype(np.float64)
    return scores, labels, rng


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
        assert metrics.auc(np.array([0.8, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])) == 0.875

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("levels", [1, 2, 12, 10**9])
    def test_agrees_with_sklearn_under_ties(self, seed, levels):
        scores, labels, _ = tied_rows(seed, levels=levels)
        expected = sklearn_metrics.roc_auc_score(labels, scores)
        assert metrics.auc(scores, labels) == pytest.approx(expected, abs=1e-12)
        assert metrics.AucState.of(scores, labels).value() == metrics.auc(scores, labels)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_weighted_sklearn(self, seed):
        scores, labels, rng = tied_rows(seed)
        weights = rng.exponential(size=len(scores)) * (rng.random(len(scores)) < 0.8)
        expected = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights)
        assert metrics.auc(scores, labels, weights) == pytest.approx(expected, abs=1e-12)
        assert metrics.AucState.of(scores, labels, weights).value() == pytest.approx(expected, abs=1e-12)
        assert metrics.AucSweep(scores, labels).value(weights) == metrics.auc(scores, labels, weights)

    @pytest.mark.parametrize("dtype", [np.int64, np.float64, np.float32])
    def test_a_weight_is_a_repeated_row(self, dtype):
        scores, labels, rng = tied_rows(0)
        times = rng.integers(0, 4, len(scores))
        repeated = metrics.auc(np.repeat(scores, times), np.repeat(labels, times))
        assert metrics.auc(scores, labels, times.astype(dtype)) == repeated
        assert metrics.AucState.of(scores, labels, times.astype(dtype)).value() == repeated

    def test_one_sweep_serves_many_weights(self):
        scores, labels, _ = tied_rows(1)
        sweep = metrics.AucSweep(scores, labels)
        for weights in metrics.group_weights(None, len(scores), 5, seed=0):
            assert sweep.value(weights) == metrics.auc(scores, labels, weights)
        assert sweep.value() == metrics.auc(scores, labels)

    def test_no_row_order_and_no_monotone_map_changes_it(self):
        scores, labels, rng = tied_rows(2)
        shuffled = rng.permutation(len(scores))
        value = metrics.auc(scores, labels)
        assert metrics.auc(scores[shuffled], labels[shuffled]) == value
        assert metrics.auc(np.exp(3 * scores), labels) == value
        assert metrics.auc(-scores, labels) == pytest.approx(1 - value, abs=1e-15)

    def test_scores_equal_only_in_float32_tie_only_there(self):
        scores, labels = np.array([0.5 + 1e-12, 0.5]), np.array([1.0, 0.0])
        assert metrics.auc(scores, labels) == 1.0
        assert metrics.auc(scores.astype(np.float32), labels) == 0.5
        assert metrics.gauc(scores, labels, np.zeros(2, dtype=np.int64)).value == 1.0
        assert metrics.xauc(scores, labels) == 1.0
        assert metrics.xauc(scores.astype(np.float32), labels) == 0.5

    def test_float32_and_widened_float32_agree(self):
        scores, labels, _ = tied_rows(3, levels=10**6)
        narrow = scores.astype(np.float32)
        assert metrics.auc(narrow, labels) == metrics.auc(narrow.astype(np.float64), labels)

    def test_signed_zeros_tie(self):
        assert metrics.auc(np.array([0.0, -0.0]), np.array([1, 0])) == 0.5

    def test_a_fine_score_is_not_binned(self):
        # 200 thresholds would call all of these equal.
        scores = np.linspace(0.5, 0.5 + 1e-9, 1000)
        assert metrics.auc(scores, (np.arange(1000) >= 500).astype(float)) == 1.0

    @pytest.mark.parametrize("labels", [[], [0.0], [1.0], [1.0, 1.0], [0.0, 0.0, 0.0]])
    def test_without_both_classes_there_is_none(self, labels):
        scores = np.arange(len(labels), dtype=np.float64)
        assert math.isnan(metrics.auc(scores, np.array(labels)))
        assert math.isnan(metrics.AucState.of(scores, np.array(labels)).value())
        assert math.isnan(metrics.gauc(scores, np.array(labels), np.zeros(len(labels), dtype=np.int64)).value)

    def test_a_class_without_weight_is_missing(self):
        assert math.isnan(metrics.auc(np.array([0.1, 0.9]), np.array([0, 1]), np.array([1.0, 0.0])))

    def test_rounding_never_exceeds_one(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            weights = rng.random(101)
            labels = (np.arange(101) > 40).astype(float)
            assert 1 - 1e-12 < metrics.auc(np.arange(101.0), labels, weights) <= 1.0

    def test_pair_counts_beyond_32_bits_are_exact(self):
        half = 100_000  # 10¹⁰ pairs
        scores = np.concatenate((np.arange(half) + 1.0, np.arange(half) + 0.0))
        labels = np.repeat([1.0, 0.0], half)
        # Positive k + 1 beats the negatives 0..k and ties with k + 1 (the last ties with none).
        wins = half * (half + 1) / 2 + (half - 1) / 2
        assert metrics.auc(scores, labels) == wins / half**2
        assert metrics.gauc(scores, labels, np.zeros(2 * half, dtype=np.int64)).value == wins / half**2


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
        state = metrics.AucState.of(EMPTY, EMPTY)
        for start, end in itertools.pairwise(edges):
            state = metrics.AucState.of(scores[start:end], labels[start:end]).merge(state)
        whole = metrics.AucState.of(scores, labels)
        for name in ("scores", "positives", "negatives"):
            np.testing.assert_array_equal(getattr(state, name), getattr(whole, name))
        assert state.positives.dtype == state.negatives.dtype == np.int64
        np.testing.assert_equal(state.value(), metrics.auc(scores, labels))
        np.testing.assert_equal(whole.value(), metrics.auc(scores, labels))

    def test_holds_distinct_scores_with_their_counts(self):
        state = metrics.AucState.of(np.array([0.5, 0.1, 0.5, 0.5]), np.array([1, 0, 0, 1]))
        assert state.scores.tolist() == [0.1, 0.5]
        assert state.positives.tolist() == [0, 2]
        assert state.negatives.tolist() == [1, 1]

    def test_weighted_chunks_merge(self):
        scores, labels, rng = tied_rows(4)
        weights = rng.random(len(scores))
        parts = [metrics.AucState.of(scores[i::3], labels[i::3], weights[i::3]) for i in range(3)]
        merged = parts[0].merge(parts[1]).merge(parts[2])
        assert merged.value() == pytest.approx(metrics.auc(scores, labels, weights), abs=1e-12)

    def test_float32_chunks_merge_with_float64_chunks(self):
        narrow = metrics.AucState.of(np.array([0.1], dtype=np.float32), np.array([1.0]))
        wide = metrics.AucState.of(np.array([0.1]), np.array([0.0]))
        assert narrow.merge(wide).value() == 1.0  # float32(0.1) > 0.1


class TestGauc:
    def test_by_hand(self):
        # Group 7: AUC 1 over 2 rows. Group −3: one of two pairs over 3 rows, ½. Group 5: one class.
        scores = np.array([0.9, 0.2, 0.5, 0.1, 0.3, 0.7])
        labels = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
        groups = np.array([7, -3, 7, -3, 5, 5])
        scores, labels, groups = np.append(scores, 0.15), np.append(labels, 1.0), np.append(groups, -3)
        assert metrics.gauc(scores, labels, groups) == metrics.GroupAuc((2 * 1 + 3 * 0.5) / 5, 2, 1, 5)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_agrees_with_a_loop_over_sklearn(self, seed, dtype):
        scores, labels, rng = tied_rows(seed)
        groups = rng.integers(-(2**62), 2**62, 70)[rng.integers(0, 70, len(scores))]  # beyond what a float can tell
        result = metrics.gauc(scores.astype(dtype), labels, groups)
        value, used, skipped, rows = gauc_by_loop(scores, labels, groups)
        assert result.value == pytest.approx(value, abs=1e-12)
        assert (result.groups, result.skipped, result.rows) == (used, skipped, rows)
        assert skipped > 0

    def test_neighbouring_large_ids_stay_apart(self):
        groups = np.array([2**53, 2**53 + 1, 2**53, 2**53 + 1])
        result = metrics.gauc(np.array([1.0, 4.0, 2.0, 3.0]), np.array([0, 1, 1, 0]), groups)
        assert (result.value, result.groups) == (1.0, 2)

    def test_one_group_is_auc(self):
        scores, labels, _ = tied_rows(5)
        result = metrics.gauc(scores, labels, np.full(len(scores), 9))
        assert result == metrics.GroupAuc(metrics.auc(scores, labels), 1, 0, len(scores))

    def test_row_order_does_not_matter(self):
        scores, labels, rng = tied_rows(6)
        groups = rng.integers(0, 40, len(scores))
        order = rng.permutation(len(scores))
        assert metrics.gauc(scores[order], labels[order], groups[order]) == metrics.gauc(scores, labels, groups)

    def test_a_shift_per_group_changes_nothing(self):
        scores, labels, rng = tied_rows(7)
        groups = rng.integers(0, 20, len(scores))
        shifted = scores * 12 + 100.0 * groups
        assert metrics.gauc(shifted, labels, groups) == metrics.gauc(scores * 12, labels, groups)

    def test_only_one_class_groups(self):
        result = metrics.gauc(np.array([0.1, 0.2, 0.3]), np.array([1, 1, 0]), np.array([1, 1, 2]))
        assert math.isnan(result.value)
        assert (result.groups, result.skipped, result.rows) == (0, 2, 0)

    def test_no_rows(self):
        result = metrics.gauc(EMPTY, EMPTY, np.zeros(0, dtype=np.int64))
        assert math.isnan(result.value)
        assert (result.groups, result.skipped, result.rows) == (0, 0, 0)


class TestCalibration:
    def test_log_loss_by_hand(self):
        # −(ln ½ + ln ¾ + ln ¾) / 3
        value = metrics.log_loss(np.array([0.5, 0.25, 0.75]), np.array([1, 0, 1]))
        assert value == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 3, abs=1e-15)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_log_loss_agrees_with_sklearn(self, dtype):
        scores, labels, rng = tied_rows(0)
        probabilities = rng.uniform(0.001, 0.999, len(scores)).astype(dtype)
        expected = sklearn_metrics.log_loss(labels, probabilities.astype(np.float64))
        assert metrics.log_loss(probabilities, labels) == pytest.approx(expected, abs=1e-13)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_certain_and_wrong_costs_the_clip(self, dtype):
        # In float32, 1 − 1e-15 is 1 and the loss would be infinite.
        value = metrics.log_loss(np.array([0.0, 1.0], dtype=dtype), np.array([1, 0]))
        assert value == pytest.approx(-math.log(1e-15), rel=1e-4)

    def test_certain_and_right_costs_nothing(self):
        assert metrics.log_loss(np.array([0.0, 1.0]), np.array([0, 1])) == pytest.approx(0, abs=2e-15)

    def test_normalised_entropy_by_hand(self):
        # Base rate ¼: entropy ¼ ln 4 + ¾ ln(4/3); loss (ln 2 + 3 ln(4/3)) / 4.
        value = metrics.normalised_entropy(np.array([0.5, 0.25, 0.25, 0.25]), np.array([1, 0, 0, 0]))
        loss = (math.log(2) + 3 * math.log(4 / 3)) / 4
        assert value == pytest.approx(loss / (0.25 * math.log(4) + 0.75 * math.log(4 / 3)), abs=1e-14)

    def test_the_base_rate_has_normalised_entropy_one(self):
        labels = tied_rows(1)[1]
        assert metrics.normalised_entropy(np.full(len(labels), labels.mean()), labels) == pytest.approx(1, abs=1e-13)

    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_normalised_entropy_needs_both_classes(self, label):
        assert math.isnan(metrics.normalised_entropy(np.array([0.3, 0.4]), np.full(2, label)))

    def test_curve_and_ece_by_hand(self):
        probabilities = np.array([0.7, 0.1, 0.3, 0.5])
        labels = np.array([1.0, 0.0, 1.0, 0.0])
        curve = metrics.calibration_curve(probabilities, labels, bins=2)
        assert curve.predicted == pytest.approx([0.2, 0.6], abs=1e-15)
        assert curve.observed.tolist() == [0.5, 0.5]
        assert curve.count.tolist() == [2, 2]
        # ½·|.2 − .5| + ½·|.6 − .5|
        assert metrics.expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.2, abs=1e-15)

    def test_distinct_probabilities_fill_bins_equally(self):
        rng = np.random.default_rng(0)
        curve = metrics.calibration_curve(rng.permutation(1003) / 1003, np.ones(1003), bins=20)
        assert set(curve.count.tolist()) == {50, 51}
        assert len(curve.count) == 20
        assert (np.diff(curve.predicted) > 0).all()

    def test_ties_share_a_bin_and_row_order_does_not_matter(self):
        probabilities = np.array([0.1] * 7 + [0.2, 0.3, 0.4])
        labels = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1, 0.0])
        curve = metrics.calibration_curve(probabilities, labels, bins=5)
        assert curve.count.tolist() == [7, 1, 2]
        reverse = metrics.calibration_curve(probabilities[::-1], labels[::-1], bins=5)
        assert reverse.observed.tolist() == curve.observed.tolist()
        assert curve.observed == pytest.approx([1 / 7, 1, 0.5])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=50), st.integers(1, 30))
    def test_bins_partition_the_rows_by_value(self, rows, bins):
        probabilities = np.array([row[0] / 9 for row in rows])
        labels = np.array([float(row[1]) for row in rows])
        curve = metrics.calibration_curve(probabilities, labels, bins)
        assert curve.count.sum() == len(rows)
        assert 1 <= len(curve.count) <= bins
        assert curve.count.min() > 0
        assert curve.count @ curve.observed == pytest.approx(labels.sum())
        assert curve.count @ curve.predicted == pytest.approx(probabilities.sum())
        edges = np.cumsum(curve.count)[:-1]
        ascending = np.sort(probabilities)
        assert (ascending[edges - 1] < ascending[edges]).all()

    def test_agrees_with_sklearn_quantile_bins_without_ties(self):
        rng = np.random.default_rng(3)
        probabilities = rng.random(1000)
        labels = (rng.random(1000) < probabilities).astype(float)
        curve = metrics.calibration_curve(probabilities, labels, bins=10)
        observed, predicted = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
        assert curve.observed == pytest.approx(observed, abs=1e-12)
        assert curve.predicted == pytest.approx(predicted, abs=1e-12)

    def test_one_bin_compares_the_means(self):
        scores, labels, _ = tied_rows(2)
        gap = abs(scores.mean() - labels.mean())
        assert metrics.expected_calibration_error(scores, labels, bins=1) == pytest.approx(gap, abs=1e-14)

    def test_no_rows(self):
        assert math.isnan(metrics.log_loss(EMPTY, EMPTY))
        assert math.isnan(metrics.normalised_entropy(EMPTY, EMPTY))
        assert math.isnan(metrics.expected_calibration_error(EMPTY, EMPTY))
        assert len(metrics.calibration_curve(EMPTY, EMPTY).count) == 0

    def test_float32_means_do_not_drift(self):
        probabilities = np.full(300_000, 0.1, dtype=np.float32)
        labels = np.zeros(300_000)
        expected = float(np.float32(0.1))
        assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected, rel=1e-10)


class TestRegression:
    def test_by_hand(self):
        predictions, labels = np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 1.0])
        assert metrics.mae(predictions, labels) == pytest.approx(5 / 3)
        assert metrics.rmse(predictions, labels) == pytest.approx(math.sqrt(17 / 3))

    def test_float32_milliseconds_are_subtracted_in_float64(self):
        predictions, labels = np.array([16777217.0]), np.array([16777216.0], dtype=np.float32)
        assert metrics.mae(predictions, labels) == metrics.rmse(predictions, labels) == 1.0

    def test_no_rows(self):
        assert math.isnan(metrics.mae(EMPTY, EMPTY))
        assert math.isnan(metrics.rmse(EMPTY, EMPTY))
        assert math.isnan(metrics.xauc(EMPTY, EMPTY))

    def test_xauc_golden(self):
        assert metrics.xauc(np.array([0.1, 0.4, 0.3, 0.2]), np.array([1, 2, 2, 4])) == 0.6

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 5)), max_size=40))
    def test_xauc_agrees_with_all_pairs(self, rows):
        predictions = np.array([row[0] / 3 for row in rows])
        labels = np.array([float(row[1]) for row in rows])
        expected = xauc_by_pairs(predictions, labels)
        assert metrics.xauc(predictions, labels) == pytest.approx(expected, abs=1e-15, nan_ok=True)

    @pytest.mark.parametrize("rows", [1, 2, 3, 31, 32, 33, 257])
    def test_xauc_agrees_with_all_pairs_around_powers_of_two(self, rows):
        rng = np.random.default_rng(rows)
        predictions, labels = rng.random(rows), rng.exponential(size=rows)
        expected = xauc_by_pairs(predictions, labels)
        assert metrics.xauc(predictions, labels) == pytest.approx(expected, abs=1e-15, nan_ok=True)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_xauc_of_binary_labels_is_auc(self, seed):
        scores, labels, _ = tied_rows(seed)
        assert metrics.xauc(scores, labels) == metrics.auc(scores, labels)

    def test_xauc_agrees_with_kendall_on_many_rows(self):
        rng = np.random.default_rng(0)
        labels = rng.random(20_000)
        predictions = labels + rng.normal(size=20_000)
        tau = stats.kendalltau(predictions, labels).statistic
        assert metrics.xauc(predictions, labels) == pytest.approx((tau + 1) / 2, abs=1e-12)

    def test_xauc_extremes(self):
        labels = np.arange(10.0)
        assert metrics.xauc(labels, labels) == 1.0
        assert metrics.xauc(-labels, labels) == 0.0
        assert metrics.xauc(np.ones(10), labels) == 0.5
        assert math.isnan(metrics.xauc(labels, np.ones(10)))

    def test_xauc_does_not_depend_on_row_order(self):
        rng = np.random.default_rng(1)
        predictions, labels = rng.integers(0, 9, 300) / 9, rng.integers(0, 30, 300).astype(float)
        order = rng.permutation(300)
        assert metrics.xauc(predictions[order], labels[order]) == metrics.xauc(predictions, labels)


class TestBootstrap:
    def test_is_deterministic_in_the_seed(self):
        groups = np.array([3, 3, 9, 1, 9])
        first, again, other = (np.stack(list(metrics.group_weights(groups, 5, 30, seed))) for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_groups_are_drawn_whole_and_as_many_as_there_are(self):
        groups = np.array([3, 3, 9, 1, 9])
        for weights in metrics.group_weights(groups, 5, 50, seed=0):
            assert weights.dtype == np.float64
            assert weights[0] == weights[1]
            assert weights[2] == weights[4]
            assert weights[0] + weights[2] + weights[3] == 3

    def test_rows_are_drawn_as_many_as_there_are(self):
        weights = np.stack(list(metrics.group_weights(None, 40, 500, seed=0)))
        assert (weights.sum(axis=1) == 40).all()
        # Multinomial: mean 1, variance 1 − 1/40.
        assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.25)
        assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.05)

    def test_no_rows(self):
        assert [len(weights) for weights in metrics.group_weights(None, 0, 3, seed=0)] == [0, 0, 0]
        assert len(list(metrics.group_weights(np.zeros(0, dtype=np.int64), 0, 3, seed=0))) == 3

    def test_several_statistics_share_the_replicates(self):
        values = np.arange(6.0)

        def both(weights):
            mean = np.average(values, weights=weights)
            return np.array([mean, mean + 1])

        stacked = metrics.bootstrap_values(both, None, 6, replicates=20, seed=0)
        assert stacked.shape == (20, 2)
        np.testing.assert_array_equal(stacked[:, 1], stacked[:, 0] + 1)
        alone = metrics.bootstrap_values(lambda w: both(w)[0], None, 6, replicates=20, seed=0)
        np.testing.assert_array_equal(alone, stacked[:, 0])

    def test_interval_holds_the_truth_in_about_95_of_100(self):
        rng = np.random.default_rng(0)
        truth, trials, held = 0.3, 200, 0
        for trial in range(trials):
            clicks = (rng.random(150) < truth).astype(float)
            interval = metrics.bootstrap_interval(
                lambda weights, clicks=clicks: float(weights @ clicks) / 150, None, 150, seed=trial
            )
            held += interval.low <= truth <= interval.high
        # The percentile interval's true coverage is a little below its level; 0.999 of either binomial lies inside.
        assert stats.binom.ppf(0.0005, trials, 0.92) <= held <= stats.binom.ppf(0.9995, trials, 0.97)

    def test_resampling_users_widens_the_interval_when_their_rows_are_copies(self):
        rng = np.random.default_rng(1)
        users = np.repeat(np.arange(100), 20)
        clicks = np.repeat((rng.random(100) < 0.4).astype(float), 20)

        def rate(weights):
            return float(weights @ clicks) / float(weights.sum())

        by_row = metrics.bootstrap_interval(rate, None, 2000)
        by_user = metrics.bootstrap_interval(rate, users, 2000)
        # √20 ≈ 4.5 times as wide
        assert 3 < (by_user.high - by_user.low) / (by_row.high - by_row.low) < 6

    def test_level_widens_the_interval(self):
        scores, labels, _ = tied_rows(0)
        value = metrics.AucSweep(scores, labels).value
        narrow = metrics.bootstrap_interval(value, None, len(scores), level=0.5)
        wide = metrics.bootstrap_interval(value, None, len(scores), level=0.99)
        assert wide.low < narrow.low < metrics.auc(scores, labels) < narrow.high < wide.high

    def test_undefined_replicates_are_ignored(self):
        # With one positive among three rows, some replicates lack a class.
        sweep = metrics.AucSweep(np.array([0.1, 0.2, 0.3]), np.array([0, 0, 1]))
        values = metrics.bootstrap_values(sweep.value, None, 3, replicates=200, seed=0)
        assert 0 < np.isnan(values).sum() < 200
        assert metrics.bootstrap_interval(sweep.value, None, 3) == metrics.Interval(1.0, 1.0)
        undefined = metrics.bootstrap_interval(lambda weights: math.nan, None, 3)
        assert math.isnan(undefined.low)
        assert math.isnan(undefined.high)


class TestAllMetrics:
    def test_binary_is_what_the_functions_say(self):
        scores, labels, rng = tied_rows(0)
        groups = rng.integers(0, 40, len(scores))
        result = metrics.binary_metrics(scores.astype(np.float32), labels.astype(np.float32), groups)
        narrow = scores.astype(np.float32)
        grouped = metrics.gauc(narrow, labels, groups)
        sweep = metrics.AucSweep(narrow, labels)
        interval = metrics.bootstrap_interval(sweep.value, groups, len(scores))
        assert list(result.items()) == [
            ("rows", 400),
            ("positives", int(labels.sum())),
            ("auc", metrics.auc(narrow, labels)),
            ("auc_ci", [interval.low, interval.high]),
            ("gauc", grouped.value),
            ("gauc_groups", grouped.groups),
            ("gauc_skipped", grouped.skipped),
            ("log_loss", metrics.log_loss(narrow, labels)),
            ("normalised_entropy", metrics.normalised_entropy(narrow, labels)),
            ("ece", metrics.expected_calibration_error(narrow, labels)),
        ]
        assert interval.low < result["auc"] < interval.high
        assert json.loads(json.dumps(result, allow_nan=False)) == result

    def test_binary_without_groups_has_no_gauc(self):
        scores, labels, _ = tied_rows(0)
        assert not any(key.startswith("gauc") for key in metrics.binary_metrics(scores, labels, replicates=3))

    @pytest.mark.parametrize(
        ("probabilities", "labels"), [([], []), ([0.4], [1.0]), ([0.4], [0.0]), ([0.4, 0.6], [1.0, 1.0])]
    )
    def test_binary_is_none_where_undefined(self, probabilities, labels):
        groups = np.arange(len(labels))
        result = metrics.binary_metrics(np.array(probabilities), np.array(labels), groups)
        json.dumps(result, allow_nan=False)
        assert result["rows"] == len(labels)
        assert result["positives"] == sum(labels)
        assert [result[key] for key in ("auc", "auc_ci", "gauc", "normalised_entropy")] == [None] * 4
        assert (result["log_loss"] is None) == (len(labels) == 0) == (result["ece"] is None)

    def test_an_auc_of_zero_still_has_an_interval(self):
        result = metrics.binary_metrics(np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 0, 0]))
        assert (result["auc"], result["auc_ci"]) == (0.0, [0.0, 0.0])

    def test_regression_is_what_the_functions_say(self):
        rng = np.random.default_rng(0)
        labels = rng.exponential(30, 200).astype(np.float32)
        predictions = (labels + rng.normal(0, 5, 200)).astype(np.float32)
        users = rng.integers(0, 30, 200)
        result = metrics.regression_metrics(predictions, labels, users)
        low, high = result.pop("rmse_ci")
        assert result == {
            "rows": 200,
            "mean_label": float(labels.astype(np.float64).mean()),
            "mae": metrics.mae(predictions, labels),
            "rmse": metrics.rmse(predictions, labels),
            "xauc": metrics.xauc(predictions, labels),
        }
        assert low < result["rmse"] < high
        json.dumps(result, allow_nan=False)

    def test_regression_is_none_where_undefined(self):
        assert metrics.regression_metrics(EMPTY, EMPTY) == {
            "rows": 0, "mean_label": None, "mae": None, "rmse": None, "rmse_ci": None, "xauc": None,
        }  # fmt: skip
        assert metrics.regression_metrics(np.array([1.0]), np.array([3.0])) == {
            "rows": 1, "mean_label": 3.0, "mae": 2.0, "rmse": 2.0, "rmse_ci": [2.0, 2.0], "xauc": None,
        }  # fmt: skip

    def test_zero_replicates_skip_the_interval(self):
        scores, labels, _ = tied_rows(0)
        assert metrics.binary_metrics(scores, labels, replicates=0)["auc_ci"] is None
        assert metrics.regression_metrics(scores, labels, replicates=0)["rmse_ci"] is None


GOOD, LABELS = np.array([0.2, 0.8]), np.array([0.0, 1.0])


class TestRules:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "call",
        [
            lambda s: metrics.auc(s, LABELS),
            lambda s: metrics.AucState.of(s, LABELS),
            lambda s: metrics.gauc(s, LABELS, np.array([1, 1])),
            lambda s: metrics.log_loss(s, LABELS),
            lambda s: metrics.calibration_curve(s, LABELS),
            lambda s: metrics.mae(s, LABELS),
            lambda s: metrics.rmse(LABELS, s),
            lambda s: metrics.xauc(s, LABELS),
            lambda s: metrics.xauc(LABELS, s),
            lambda s: metrics.binary_metrics(s, LABELS),
            lambda s: metrics.regression_metrics(s, LABELS),
        ],
    )
    def test_values_are_finite(self, call, bad):
        with pytest.raises(ValueError, match="must be finite"):
            call(np.array([0.5, bad]))

    @pytest.mark.parametrize("bad", [np.nan, 0.5, 2.0, -1.0])
    @pytest.mark.parametrize(
        "metric", [metrics.auc, metrics.log_loss, metrics.normalised_entropy, metrics.calibration_curve]
    )
    def test_binary_labels_are_0_or_1(self, metric, bad):
        with pytest.raises(ValueError, match="labels must be 0 or 1"):
            metric(GOOD, np.array([0.0, bad]))

    @pytest.mark.parametrize("bad", [-0.1, 1.1])
    def test_probabilities_are_not_logits(self, bad):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            metrics.log_loss(np.array([0.5, bad]), LABELS)

    @pytest.mark.parametrize("metric", [metrics.auc, metrics.log_loss, metrics.mae, metrics.xauc])
    def test_arrays_are_flat_and_of_one_length(self, metric):
        with pytest.raises(ValueError, match="1-d and of one length"):
            metric(GOOD, np.zeros(3))
        with pytest.raises(ValueError, match="1-d and of one length"):
            metric(GOOD.reshape(1, 2), LABELS.reshape(1, 2))

    @pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [1.0], [1.0, 1.0, 1.0]])
    def test_weights_are_non_negative_one_per_row(self, weights):
        with pytest.raises(ValueError, match="weights must"):
            metrics.auc(GOOD, LABELS, np.array(weights))

    def test_arguments_have_ranges(self):
        with pytest.raises(ValueError, match="bins"):
            metrics.calibration_curve(GOOD, LABELS, bins=0)
        with pytest.raises(ValueError, match="replicates"):
            metrics.bootstrap_values(np.sum, None, 2, replicates=0, seed=0)
        with pytest.raises(ValueError, match="level"):
            metrics.bootstrap_interval(np.sum, None, 2, level=1.0)
        with pytest.raises(ValueError, match="groups must have the shape"):
            list(metrics.group_weights(np.zeros(3), 2, 1, seed=0))

    def test_bool_and_integer_labels_are_labels(self):
        scores, labels, _ = tied_rows(0)
        assert metrics.auc(scores, labels.astype(bool)) == metrics.auc(scores, labels.astype(np.int8))

    def test_inputs_are_left_alone(self):
        scores, labels, rng = tied_rows(0)
        groups = rng.integers(0, 9, len(scores))
        for column in (scores, labels, groups):
            column.flags.writeable = False
        metrics.binary_metrics(scores, labels, groups, replicates=2)
        metrics.regression_metrics(scores, labels, groups, replicates=2)
