"""The references are scikit-learn and values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from polyrank.metrics import calibration

EMPTY = np.zeros(0)


class TestCalibration:
    def test_log_loss_by_hand(self):
        # −(ln ½ + ln ¾ + ln ¾) / 3
        value = calibration.log_loss(np.array([0.5, 0.25, 0.75]), np.array([1, 0, 1]))
        assert value == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 3, abs=1e-15)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_log_loss_agrees_with_sklearn(self, tied_rows, dtype):
        scores, labels, rng = tied_rows(0)
        probabilities = rng.uniform(0.001, 0.999, len(scores)).astype(dtype)
        expected = sklearn_metrics.log_loss(labels, probabilities.astype(np.float64))
        assert calibration.log_loss(probabilities, labels) == pytest.approx(expected, abs=1e-13)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_certain_and_wrong_costs_the_clip(self, dtype):
        # In float32, 1 − 1e-15 is 1 and the loss would be infinite.
        value = calibration.log_loss(np.array([0.0, 1.0], dtype=dtype), np.array([1, 0]))
        assert value == pytest.approx(-math.log(1e-15), rel=1e-4)

    def test_certain_and_right_costs_nothing(self):
        assert calibration.log_loss(np.array([0.0, 1.0]), np.array([0, 1])) == pytest.approx(0, abs=2e-15)

    def test_normalised_entropy_by_hand(self):
        # Base rate ¼: entropy ¼ ln 4 + ¾ ln(4/3); loss (ln 2 + 3 ln(4/3)) / 4.
        value = calibration.normalised_entropy(np.array([0.5, 0.25, 0.25, 0.25]), np.array([1, 0, 0, 0]))
        loss = (math.log(2) + 3 * math.log(4 / 3)) / 4
        assert value == pytest.approx(loss / (0.25 * math.log(4) + 0.75 * math.log(4 / 3)), abs=1e-14)

    def test_the_base_rate_has_normalised_entropy_one(self, tied_rows):
        labels = tied_rows(1)[1]
        rate = np.full(len(labels), labels.mean())
        assert calibration.normalised_entropy(rate, labels) == pytest.approx(1, abs=1e-13)

    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_normalised_entropy_needs_both_classes(self, label):
        assert math.isnan(calibration.normalised_entropy(np.array([0.3, 0.4]), np.full(2, label)))

    def test_curve_and_ece_by_hand(self):
        probabilities = np.array([0.7, 0.1, 0.3, 0.5])
        labels = np.array([1.0, 0.0, 1.0, 0.0])
        curve = calibration.calibration_curve(probabilities, labels, bins=2)
        assert curve.predicted == pytest.approx([0.2, 0.6], abs=1e-15)
        assert curve.observed.tolist() == [0.5, 0.5]
        assert curve.count.tolist() == [2, 2]
        # ½·|.2 − .5| + ½·|.6 − .5|
        assert calibration.expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.2, abs=1e-15)

    def test_distinct_probabilities_fill_bins_equally(self):
        rng = np.random.default_rng(0)
        curve = calibration.calibration_curve(rng.permutation(1003) / 1003, np.ones(1003), bins=20)
        assert set(curve.count.tolist()) == {50, 51}
        assert len(curve.count) == 20
        assert (np.diff(curve.predicted) > 0).all()

    def test_the_earlier_bins_take_the_rows_left_over(self):
        curve = calibration.calibration_curve(np.arange(5) / 5, np.zeros(5), bins=2)
        assert curve.count.tolist() == [3, 2]

    def test_ties_share_a_bin_and_row_order_does_not_matter(self):
        probabilities = np.array([0.1] * 7 + [0.2, 0.3, 0.4])
        labels = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1, 0.0])
        curve = calibration.calibration_curve(probabilities, labels, bins=5)
        assert curve.count.tolist() == [7, 1, 2]
        reverse = calibration.calibration_curve(probabilities[::-1], labels[::-1], bins=5)
        assert reverse.observed.tolist() == curve.observed.tolist()
        assert curve.observed == pytest.approx([1 / 7, 1, 0.5])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=50), st.integers(1, 30))
    def test_bins_partition_the_rows_by_value(self, rows, bins):
        probabilities = np.array([row[0] / 9 for row in rows])
        labels = np.array([float(row[1]) for row in rows])
        curve = calibration.calibration_curve(probabilities, labels, bins)
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
        curve = calibration.calibration_curve(probabilities, labels, bins=10)
        observed, predicted = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
        assert curve.observed == pytest.approx(observed, abs=1e-12)
        assert curve.predicted == pytest.approx(predicted, abs=1e-12)

    def test_one_bin_compares_the_means(self, tied_rows):
        scores, labels, _ = tied_rows(2)
        gap = abs(scores.mean() - labels.mean())
        assert calibration.expected_calibration_error(scores, labels, bins=1) == pytest.approx(gap, abs=1e-14)

    def test_no_rows(self):
        assert math.isnan(calibration.log_loss(EMPTY, EMPTY))
        assert math.isnan(calibration.normalised_entropy(EMPTY, EMPTY))
        assert math.isnan(calibration.expected_calibration_error(EMPTY, EMPTY))
        assert len(calibration.calibration_curve(EMPTY, EMPTY).count) == 0

    def test_float32_means_do_not_drift(self):
        probabilities = np.full(300_000, 0.1, dtype=np.float32)
        labels = np.zeros(300_000)
        expected = float(np.float32(0.1))
        assert calibration.expected_calibration_error(probabilities, labels) == pytest.approx(expected, rel=1e-10)
