"""Arrays that break a rule are refused by every metric, and good ones are left alone."""

import numpy as np
import pytest

from polyrank.metrics import bootstrap, calibration, checks, ranking, summary

GOOD, LABELS = np.array([0.2, 0.8]), np.array([0.0, 1.0])


class TestRules:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "call",
        [
            lambda s: ranking.auc(s, LABELS),
            lambda s: ranking.AucState.of(s, LABELS),
            lambda s: ranking.gauc(s, LABELS, np.array([1, 1])),
            lambda s: calibration.log_loss(s, LABELS),
            lambda s: calibration.calibration_curve(s, LABELS),
            lambda s: summary.mae(s, LABELS),
            lambda s: summary.rmse(LABELS, s),
            lambda s: ranking.xauc(s, LABELS),
            lambda s: ranking.xauc(LABELS, s),
            lambda s: summary.binary_metrics(s, LABELS),
            lambda s: summary.regression_metrics(s, LABELS),
        ],
    )
    def test_values_are_finite(self, call, bad):
        with pytest.raises(ValueError, match="must be finite"):
            call(np.array([0.5, bad]))

    @pytest.mark.parametrize("bad", [np.nan, 0.5, 2.0, -1.0])
    @pytest.mark.parametrize(
        "metric", [ranking.auc, calibration.log_loss, calibration.normalised_entropy, calibration.calibration_curve]
    )
    def test_binary_labels_are_0_or_1(self, metric, bad):
        with pytest.raises(ValueError, match="labels must be 0 or 1"):
            metric(GOOD, np.array([0.0, bad]))

    @pytest.mark.parametrize("bad", [-0.1, 1.1])
    def test_probabilities_are_not_logits(self, bad):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            calibration.log_loss(np.array([0.5, bad]), LABELS)

    @pytest.mark.parametrize("metric", [ranking.auc, calibration.log_loss, summary.mae, ranking.xauc])
    def test_arrays_are_flat_and_of_one_length(self, metric):
        with pytest.raises(ValueError, match="1-d and of one length"):
            metric(GOOD, np.zeros(3))
        with pytest.raises(ValueError, match="1-d and of one length"):
            metric(GOOD.reshape(1, 2), LABELS.reshape(1, 2))

    @pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [1.0], [1.0, 1.0, 1.0]])
    def test_weights_are_non_negative_one_per_row(self, weights):
        with pytest.raises(ValueError, match="weights must"):
            ranking.auc(GOOD, LABELS, np.array(weights))

    def test_arguments_have_ranges(self):
        with pytest.raises(ValueError, match="bins"):
            calibration.calibration_curve(GOOD, LABELS, bins=0)
        with pytest.raises(ValueError, match="replicates"):
            bootstrap.bootstrap_values(np.sum, None, 2, replicates=0, seed=0)
        with pytest.raises(ValueError, match="level"):
            bootstrap.bootstrap_interval(np.sum, None, 2, level=1.0)
        with pytest.raises(ValueError, match="groups must have the shape"):
            list(bootstrap.group_weights(np.zeros(3), 2, 1, seed=0))

    def test_bool_and_integer_labels_are_labels(self, tied_rows):
        scores, labels, _ = tied_rows(0)
        assert ranking.auc(scores, labels.astype(bool)) == ranking.auc(scores, labels.astype(np.int8))

    def test_inputs_are_left_alone(self, tied_rows):
        scores, labels, rng = tied_rows(0)
        groups = rng.integers(0, 9, len(scores))
        columns = (scores, labels, groups)
        before = [column.copy() for column in columns]
        summary.binary_metrics(*columns, replicates=2)
        summary.regression_metrics(*columns, replicates=2)
        assert all(np.array_equal(column, copy) for column, copy in zip(columns, before, strict=True))


def test_runs_and_their_sums():
    starts = checks.run_starts(np.array([1, 1, 2, 2]), np.array([5, 6, 6, 6]))
    np.testing.assert_array_equal(starts, [0, 1, 2])
    np.testing.assert_array_equal(checks.run_sums(np.array([1, 2, 3, 4]), starts), [1, 2, 7])
    assert len(checks.run_sums(np.zeros(0), checks.run_starts(np.zeros(0)))) == 0
