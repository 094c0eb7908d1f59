"""The summaries say what the functions say, and are JSON even where a metric is undefined."""

import json
import math

import numpy as np
import pytest

from polyrank.metrics import bootstrap, calibration, ranking, summary

EMPTY = np.zeros(0)


class TestRegression:
    def test_by_hand(self):
        predictions, labels = np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 1.0])
        assert summary.mae(predictions, labels) == pytest.approx(5 / 3)
        assert summary.rmse(predictions, labels) == pytest.approx(math.sqrt(17 / 3))

    def test_float32_milliseconds_are_subtracted_in_float64(self):
        predictions, labels = np.array([16777217.0]), np.array([16777216.0], dtype=np.float32)
        assert summary.mae(predictions, labels) == summary.rmse(predictions, labels) == 1.0

    def test_no_rows(self):
        assert math.isnan(summary.mae(EMPTY, EMPTY))
        assert math.isnan(summary.rmse(EMPTY, EMPTY))


class TestAllMetrics:
    def test_binary_is_what_the_functions_say(self, tied_rows):
        scores, labels, rng = tied_rows(0)
        groups = rng.integers(0, 40, len(scores))
        result = summary.binary_metrics(scores.astype(np.float32), labels.astype(np.float32), groups)
        narrow = scores.astype(np.float32)
        grouped = ranking.gauc(narrow, labels, groups)
        sweep = ranking.AucSweep(narrow, labels)
        interval = bootstrap.bootstrap_interval(sweep.value, groups, len(scores))
        assert list(result.items()) == [
            ("rows", 400),
            ("positives", int(labels.sum())),
            ("auc", ranking.auc(narrow, labels)),
            ("auc_ci", [interval.low, interval.high]),
            ("gauc", grouped.value),
            ("gauc_groups", grouped.groups),
            ("gauc_skipped", grouped.skipped),
            ("gauc_ungrouped", 0),
            ("log_loss", calibration.log_loss(narrow, labels)),
            ("normalised_entropy", calibration.normalised_entropy(narrow, labels)),
            ("ece", calibration.expected_calibration_error(narrow, labels)),
        ]
        assert interval.low < result["auc"] < interval.high
        assert json.loads(json.dumps(result, allow_nan=False)) == result

    def test_binary_without_groups_has_no_gauc(self, tied_rows):
        scores, labels, _ = tied_rows(0)
        assert not any(key.startswith("gauc") for key in summary.binary_metrics(scores, labels, replicates=3))

    @pytest.mark.parametrize(
        ("probabilities", "labels"), [([], []), ([0.4], [1.0]), ([0.4], [0.0]), ([0.4, 0.6], [1.0, 1.0])]
    )
    def test_binary_is_none_where_undefined(self, probabilities, labels):
        groups = np.arange(len(labels))
        result = summary.binary_metrics(np.array(probabilities), np.array(labels), groups)
        json.dumps(result, allow_nan=False)
        assert result["rows"] == len(labels)
        assert result["positives"] == sum(labels)
        assert [result[key] for key in ("auc", "auc_ci", "gauc", "normalised_entropy")] == [None] * 4
        assert (result["log_loss"] is None) == (len(labels) == 0) == (result["ece"] is None)

    def test_an_auc_of_zero_still_has_an_interval(self):
        result = summary.binary_metrics(np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 0, 0]))
        assert (result["auc"], result["auc_ci"]) == (0.0, [0.0, 0.0])

    def test_regression_is_what_the_functions_say(self):
        rng = np.random.default_rng(0)
        labels = rng.exponential(30, 200).astype(np.float32)
        predictions = (labels + rng.normal(0, 5, 200)).astype(np.float32)
        users = rng.integers(0, 30, 200)
        result = summary.regression_metrics(predictions, labels, users)
        low, high = result.pop("rmse_ci")
        assert result == {
            "rows": 200,
            "mean_label": float(labels.astype(np.float64).mean()),
            "mae": summary.mae(predictions, labels),
            "rmse": summary.rmse(predictions, labels),
            "xauc": ranking.xauc(predictions, labels),
        }
        assert low < result["rmse"] < high
        json.dumps(result, allow_nan=False)

    def test_regression_is_none_where_undefined(self):
        assert summary.regression_metrics(EMPTY, EMPTY) == {
            "rows": 0, "mean_label": None, "mae": None, "rmse": None, "rmse_ci": None, "xauc": None,
        }  # fmt: skip
        assert summary.regression_metrics(np.array([1.0]), np.array([3.0])) == {
            "rows": 1, "mean_label": 3.0, "mae": 2.0, "rmse": 2.0, "rmse_ci": [2.0, 2.0], "xauc": None,
        }  # fmt: skip

    def test_zero_replicates_skip_the_interval(self, tied_rows):
        scores, labels, _ = tied_rows(0)
        assert summary.binary_metrics(scores, labels, replicates=0)["auc_ci"] is None
        assert summary.regression_metrics(scores, labels, replicates=0)["rmse_ci"] is None
