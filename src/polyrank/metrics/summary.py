"""All metrics of one task, ready for JSON; and the errors of numeric predictions (MAE, RMSE).

The rules for arrays are those of ``checks``.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from polyrank.metrics.bootstrap import bootstrap_interval
from polyrank.metrics.calibration import expected_calibration_error, log_loss, normalised_entropy
from polyrank.metrics.checks import Floats, Rows, as_finite, common_length, is_positive
from polyrank.metrics.ranking import AucSweep, gauc, xauc

Metrics: TypeAlias = dict[str, float | int | list[float] | None]


def mae(predictions: Rows, labels: Rows) -> float:
    """Mean absolute error, ``mean |ŷ − y|``, in the label's unit; ``ValueError`` if a value is not finite."""
    errors = np.abs(_errors(predictions, labels))
    return float(errors.mean()) if len(errors) else math.nan


def rmse(predictions: Rows, labels: Rows) -> float:
    """Root mean squared error, ``√mean (ŷ − y)²``, in the label's unit; ``ValueError`` if a value is not finite."""
    errors = _errors(predictions, labels)
    return math.sqrt(float(np.square(errors).mean())) if len(errors) else math.nan


def binary_metrics(
    probabilities: Rows, labels: Rows, groups: Rows | None = None, *, replicates: int = 200, seed: int = 0
) -> Metrics:
    """Every metric of a binary task, ready for JSON: None stands where a metric is undefined.

    Args:
        probabilities: ``[N]`` in [0, 1].
        labels: ``[N]`` 0 or 1.
        groups: ``[N]`` group ids (``NO_GROUP``: none): adds GAUC, and makes the interval resample groups, not rows.
        replicates: Bootstrap replicates of ``auc_ci``; 0 leaves it None.
        seed: Of the bootstrap.

    Raises:
        ValueError: As in ``log_loss`` and ``gauc``.
    """
    sweep = AucSweep(probabilities, labels)
    metrics: Metrics = {"rows": sweep.rows, "positives": int(is_positive(labels).sum()), "auc": _json(sweep.value())}
    metrics["auc_ci"] = None
    if metrics["auc"] is not None:
        metrics["auc_ci"] = _interval(sweep.value, groups, sweep.rows, replicates, seed)
    if groups is not None:
        grouped = gauc(probabilities, labels, groups)
        metrics |= {"gauc": _json(grouped.value), "gauc_groups": grouped.groups, "gauc_skipped": grouped.skipped}
        metrics["gauc_ungrouped"] = grouped.ungrouped
    metrics["log_loss"] = _json(log_loss(probabilities, labels))
    metrics["normalised_entropy"] = _json(normalised_entropy(probabilities, labels))
    metrics["ece"] = _json(expected_calibration_error(probabilities, labels))
    return metrics


def regression_metrics(
    predictions: Rows, labels: Rows, groups: Rows | None = None, *, replicates: int = 200, seed: int = 0
) -> Metrics:
    """Every metric of a task with numeric labels, ready for JSON; arguments as in ``binary_metrics``.

    Raises:
        ValueError: Lengths differ, or a value is not finite.
    """
    squared = np.square(_errors(predictions, labels))
    rows = len(squared)

    def weighted_rmse(weights: Floats) -> float:
        return math.sqrt(float((weights * squared).sum()) / float(weights.sum()))

    return {
        "rows": rows,
        "mean_label": float(np.mean(labels, dtype=np.float64)) if rows else None,
        "mae": _json(mae(predictions, labels)),
        "rmse": _json(rmse(predictions, labels)),
        "rmse_ci": _interval(weighted_rmse, groups, rows, replicates, seed) if rows else None,
        "xauc": _json(xauc(predictions, labels)),
    }


def _interval(
    statistic: Callable[[Floats], float], groups: Rows | None, n: int, replicates: int, seed: int
) -> list[float] | None:
    if replicates == 0:
        return None
    interval = bootstrap_interval(statistic, groups, n, replicates=replicates, seed=seed)
    return None if math.isnan(interval.low) else [interval.low, interval.high]


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def _errors(predictions: Rows, labels: Rows) -> Floats:
    predictions, labels = as_finite(predictions, "predictions"), as_finite(labels, "labels")
    common_length(predictions, labels)
    return predictions.astype(np.float64) - labels.astype(np.float64)
