"""How true probabilities are: log loss, normalised entropy, the calibration curve and its error.

The rules for arrays are those of ``checks``.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polyrank.metrics.checks import Floats, Rows, as_probabilities, common_length, is_positive

CLIP = 1e-15


def log_loss(probabilities: Rows, labels: Rows) -> float:
    """Mean negative log likelihood in nats: ``−mean(y ln p + (1 − y) ln(1 − p))``, p clipped to [1e-15, 1 − 1e-15].

    Args:
        probabilities: ``[N]`` in [0, 1]; float32 is widened before it is clipped, so that the clip is not lost.
        labels: ``[N]`` 0 or 1.

    Raises:
        ValueError: Lengths differ, a probability is outside [0, 1], a label is not 0 or 1.
    """
    probabilities, positive = as_probabilities(probabilities), is_positive(labels)
    rows = common_length(probabilities, positive)
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    likelihood = np.log(clipped[positive]).sum() + np.log1p(-clipped[~positive]).sum()
    return float(-likelihood) / rows if rows else math.nan


def normalised_entropy(probabilities: Rows, labels: Rows) -> float:
    """Log loss over that of predicting the base rate q for every row: ``NE = LL / −(q ln q + (1 − q) ln(1 − q))``.

    Below 1 the model knows more than the average. ``nan`` with one class. Arguments and errors as in ``log_loss``.

    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014.
    """
    loss, positive = log_loss(probabilities, labels), is_positive(labels)
    rate = float(positive.mean()) if len(positive) else 0.0
    if rate in (0.0, 1.0):
        return math.nan
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Predicted against observed rate, bin by bin, ascending in the prediction; ``B`` is at most the bins asked for.

    Attributes:
        predicted: ``[B]`` mean probability of the bin's rows.
        observed: ``[B]`` share of the bin's rows with label 1.
        count: ``[B]`` int64 rows in the bin, never 0.
    """

    predicted: Floats
    observed: Floats
    count: npt.NDArray[np.int64]


def calibration_curve(probabilities: Rows, labels: Rows, bins: int = 20) -> CalibrationCurve:
    """Rows in equal-mass (quantile) bins of their probability; rows with one probability share one bin.

    Equal mass, because recommendation rates crowd near 0 and equal-width bins would put every row into the first.
    A cut that would fall among tied rows moves up to the end of the tie, so that no bin depends on the row order.

    Args:
        probabilities: ``[N]`` in [0, 1].
        labels: ``[N]`` 0 or 1.
        bins: The largest number of bins; ties and small N give fewer.

    Raises:
        ValueError: As in ``log_loss``, or ``bins`` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    probabilities, positive = as_probabilities(probabilities), is_positive(labels)
    rows = common_length(probabilities, positive)
    if rows == 0:
        return CalibrationCurve(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    order = np.argsort(probabilities)
    ascending = probabilities[order]
    last = -(-rows * np.arange(1, bins + 1) // bins) - 1  # the last row of each bin, were there no ties
    ends = np.unique(np.searchsorted(ascending, ascending[last], side="right"))
    starts = np.concatenate(([0], ends[:-1]))
    count = ends - starts
    observed = np.add.reduceat(positive[order].astype(np.float64), starts) / count
    return CalibrationCurve(np.add.reduceat(ascending, starts) / count, observed, count)


def expected_calibration_error(probabilities: Rows, labels: Rows, bins: int = 20) -> float:
    """Mean gap between predicted and observed rate over equal-mass bins: ``ECE = Σ_b n_b/N · |mean p − mean y|``.

    In units of probability; ``nan`` without rows. Arguments and errors as in ``calibration_curve``.

    Source: Naeini et al., AAAI 2015; equal-mass bins as in Nixon et al., CVPR Workshops 2019.
    """
    curve = calibration_curve(probabilities, labels, bins)
    rows = int(curve.count.sum())
    gap = curve.count * np.abs(curve.predicted - curve.observed)
    return float(gap.sum()) / rows if rows else math.nan
