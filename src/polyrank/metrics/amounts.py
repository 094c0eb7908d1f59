"""All metrics of a count or a duration, ready for JSON: what numeric labels have, and what is theirs.

The rules for arrays are those of ``checks``.
"""

import math

import numpy as np
from scipy.special import xlogy

from polyrank.metrics.checks import Rows, as_finite, common_length
from polyrank.metrics.concordance import group_xauc
from polyrank.metrics.summary import Metrics, regression_metrics


def poisson_deviance(predictions: Rows, labels: Rows) -> float:
    """Mean unit deviance of a Poisson rate, ``mean 2·(y ln(y / ŷ) − y + ŷ)``: 0 where ŷ = y, about 1 where ŷ is true.

    Args:
        predictions: ``[N]`` above 0 wherever the label is, else 0 or more.
        labels: ``[N]`` 0 or more.

    Raises:
        ValueError: Lengths differ, a value is not finite, or is below its bound.

    Source: McCullagh & Nelder, Generalized Linear Models, 1989, section 2.3.
    """
    predictions, labels = as_finite(predictions, "predictions"), as_finite(labels, "labels")
    if not common_length(predictions, labels):
        return math.nan
    mu, y = predictions.astype(np.float64), labels.astype(np.float64)
    if y.min() < 0 or mu.min() < 0 or (mu[y > 0] == 0).any():
        raise ValueError("a Poisson deviance needs labels of 0 or more and predictions above 0")
    return float(2.0 * (xlogy(y, y) - xlogy(y, mu) - y + mu).mean())


def count_metrics(
    predictions: Rows, labels: Rows, groups: Rows | None = None, *, replicates: int = 200, seed: int = 0
) -> Metrics:
    """Every metric of a count: ``regression_metrics`` and ``poisson_deviance``; arguments as there."""
    found = regression_metrics(predictions, labels, groups, replicates=replicates, seed=seed)
    deviance = poisson_deviance(predictions, labels)
    return found | {"poisson_deviance": None if math.isnan(deviance) else deviance}


def duration_metrics(
    predictions: Rows, labels: Rows, groups: Rows | None = None, *, replicates: int = 200, seed: int = 0
) -> Metrics:
    """Every metric of a duration: ``regression_metrics``, mean ŷ / mean y (``mean_ratio``), with groups ``xgauc``."""
    found = regression_metrics(predictions, labels, groups, replicates=replicates, seed=seed)
    mean = found["mean_label"]
    found["mean_ratio"] = (
        float(np.mean(predictions, dtype=np.float64)) / mean if isinstance(mean, float) and mean else None
    )
    if groups is not None:
        within = group_xauc(predictions, labels, groups).mean()
        found["xgauc"] = None if math.isnan(within) else within
    return found
