"""The metrics of one task: ranking (AUC, GAUC, XAUC), calibration (log loss, NE, ECE), error (MAE, RMSE), intervals.

Every function takes 1-d arrays with one entry per row and computes in float64, or in integers where the answer is a
count of pairs. A metric that its rows leave undefined (no row, one class) is ``nan``. Arrays that break a rule
(another length, a score that is not finite, a binary label other than 0 or 1) raise ``ValueError``. A row whose label
is missing is not a row of this task: leave it out first.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[Any]  # [N], of any real type
Floats: TypeAlias = npt.NDArray[np.float64]
Metrics: TypeAlias = dict[str, float | int | list[float] | None]

CLIP = 1e-15


def auc(scores: Rows, labels: Rows, weights: Rows | None = None) -> float:
    """Exact area under the ROC curve: the chance that a positive outscores a negative.

    ``AUC = Σ_{i: y=1} Σ_{j: y=0} w_i w_j ([s_i > s_j] + ½[s_i = s_j]) / (Σ_{y=1} w · Σ_{y=0} w)``, by sorting, without
    bins. Unweighted, pairs are counted in integers and the result is the correctly rounded quotient.

    Args:
        scores: ``[N]`` finite scores in any unit; only their order matters.
        labels: ``[N]`` 0 or 1.
        weights: ``[N]`` non-negative; a row of weight 2 counts as two rows.

    Returns:
        A value in [0, 1], or ``nan`` where a class is missing.

    Raises:
        ValueError: Lengths differ, a score or weight is not finite, a weight is negative, a label is not 0 or 1.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    return AucSweep(scores, labels).value(weights)


class AucSweep:
    """AUC of the same scores under many row weights: sorts once, then every ``value`` is one pass over the rows.

    Args:
        scores: ``[N]`` finite scores.
        labels: ``[N]`` 0 or 1.

    Raises:
        ValueError: As in ``auc``.
    """

    def __init__(self, scores: Rows, labels: Rows) -> None:
        scores, positive = _finite(scores, "scores"), _positive(labels)
        self.rows = _length(scores, positive)
        self._positives = _sorted_rows(scores, positive)
        self._negatives = _sorted_rows(scores, ~positive)
        negatives, positives = scores[self._negatives], scores[self._positives]
        # Sorted against sorted: per positive, how many negatives score less, and how many no more.
        self._below = np.searchsorted(negatives, positives, side="left")
        self._up_to = np.searchsorted(negatives, positives, side="right")

    def value(self, weights: Rows | None = None) -> float:
        """The AUC under ``weights`` ``[N]`` (all ones if None); see ``auc``."""
        weights = np.ones(self.rows, dtype=np.int64) if weights is None else _weights(weights, self.rows)
        mass = np.concatenate((np.zeros(1, weights.dtype), np.cumsum(weights[self._negatives])))
        positives = weights[self._positives]
        return _quotient(positives * (mass[self._below] + mass[self._up_to]), positives.sum(), mass[-1])


@dataclass(frozen=True, eq=False)
class AucState:
    """What AUC needs to know of a set of rows, without loss, so that chunks can be merged.

    Attributes:
        scores: ``[S]`` the distinct scores, ascending.
        positives: ``[S]`` rows with label 1 per score: int64 counts, or float64 sums of weights.
        negatives: ``[S]`` the same for label 0.
    """

    scores: Rows
    positives: Rows
    negatives: Rows

    @classmethod
    def of(cls, scores: Rows, labels: Rows, weights: Rows | None = None) -> "AucState":
        """The state of one chunk; arguments and errors as in ``auc``."""
        scores, positive = _finite(scores, "scores"), _positive(labels)
        rows = _length(scores, positive)
        weights = np.ones(rows, dtype=np.int64) if weights is None else _weights(weights, rows)
        return cls._summed(scores, weights * positive, weights * ~positive)

    def merge(self, other: "AucState") -> "AucState":
        """The state of both sets of rows together; unweighted, equal to the state of the whole in every bit."""
        return self._summed(
            np.concatenate((self.scores, other.scores)),
            np.concatenate((self.positives, other.positives)),
            np.concatenate((self.negatives, other.negatives)),
        )

    def value(self) -> float:
        """The AUC of the rows seen so far, ``nan`` while a class is missing."""
        wins = self.positives * (2 * np.cumsum(self.negatives) - self.negatives)
        return _quotient(wins, self.positives.sum(), self.negatives.sum())

    @classmethod
    def _summed(cls, scores: Rows, positives: Rows, negatives: Rows) -> "AucState":
        # Stable, because two merged states are two ascending runs, which a merge sort joins in one pass.
        order = np.argsort(scores, kind="stable")
        scores = scores[order]
        starts = _run_starts(scores)
        return cls(scores[starts], np.add.reduceat(positives[order], starts), np.add.reduceat(negatives[order], starts))


@dataclass(frozen=True)
class GroupAuc:
    """GAUC, and how much of the data it speaks for.

    Attributes:
        value: The row-weighted mean of the groups' AUCs; ``nan`` when no group has both classes.
        groups: Groups that have both classes.
        skipped: Groups of one class, which have no AUC.
        rows: Rows of the groups that count.
    """

    value: float
    groups: int
    skipped: int
    rows: int


def gauc(scores: Rows, labels: Rows, groups: Rows) -> GroupAuc:
    """AUC within each group (user), averaged by the group's rows: ``GAUC = Σ_g n_g AUC_g / Σ_g n_g``.

    Only groups with both classes take part; ``n_g`` is the number of rows (impressions) of group g. Pairs are counted
    in integers per group.

    Args:
        scores: ``[N]`` finite scores.
        labels: ``[N]`` 0 or 1.
        groups: ``[N]`` int64 group ids, in any order.

    Raises:
        ValueError: As in ``auc``.

    Source: Zhou et al., Deep Interest Network, KDD 2018, section 6.
    """
    scores, positive, groups = _finite(scores, "scores"), _positive(labels), np.asarray(groups)
    rows = _length(scores, positive, groups)
    order = np.lexsort((scores, groups))
    scores, groups = scores[order], groups[order]
    runs = _run_starts(groups, scores)  # one run per distinct (group, score)
    cumulative = np.concatenate(([0], np.cumsum(positive[order], dtype=np.int64)))[np.append(runs, rows)]
    positives = np.diff(cumulative)
    negatives = np.diff(runs, append=rows) - positives
    first = _run_starts(groups[runs])  # each group's first run
    group_positives, group_negatives = np.add.reduceat(positives, first), np.add.reduceat(negatives, first)
    negatives_before = np.cumsum(group_negatives) - group_negatives  # those of earlier groups win no pair here
    wins = np.add.reduceat(positives * (2 * np.cumsum(negatives) - negatives), first)
    wins -= 2 * negatives_before * group_positives
    both = (group_positives > 0) & (group_negatives > 0)
    size = (group_positives + group_negatives)[both]
    group_auc = wins[both] / (2 * group_positives[both] * group_negatives[both])
    used = int(size.sum())
    value = float((size * group_auc).sum()) / used if used else math.nan
    return GroupAuc(value, groups=len(size), skipped=len(both) - len(size), rows=used)


def log_loss(probabilities: Rows, labels: Rows) -> float:
    """Mean negative log likelihood in nats: ``−mean(y ln p + (1 − y) ln(1 − p))``, p clipped to [1e-15, 1 − 1e-15].

    Args:
        probabilities: ``[N]`` in [0, 1]; float32 is widened before it is clipped, so that the clip is not lost.
        labels: ``[N]`` 0 or 1.

    Raises:
        ValueError: Lengths differ, a probability is outside [0, 1], a label is not 0 or 1.
    """
    probabilities, positive = _probabilities(probabilities), _positive(labels)
    rows = _length(probabilities, positive)
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    likelihood = np.log(clipped[positive]).sum() + np.log1p(-clipped[~positive]).sum()
    return float(-likelihood) / rows if rows else math.nan


def normalised_entropy(probabilities: Rows, labels: Rows) -> float:
    """Log loss over that of predicting the base rate q for every row: ``NE = LL / −(q ln q + (1 − q) ln(1 − q))``.

    Below 1 the model knows more than the average. ``nan`` with one class. Arguments and errors as in ``log_loss``.

    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014.
    """
    loss, positive = log_loss(probabilities, labels), _positive(labels)
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
    probabilities, positive = _probabilities(probabilities), _positive(labels)
    rows = _length(probabilities, positive)
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


def mae(predictions: Rows, labels: Rows) -> float:
    """Mean absolute error, ``mean |ŷ − y|``, in the label's unit; ``ValueError`` if a value is not finite."""
    errors = np.abs(_errors(predictions, labels))
    return float(errors.mean()) if len(errors) else math.nan


def rmse(predictions: Rows, labels: Rows) -> float:
    """Root mean squared error, ``√mean (ŷ − y)²``, in the label's unit; ``ValueError`` if a value is not finite."""
    errors = _errors(predictions, labels)
    return math.sqrt(float(np.square(errors).mean())) if len(errors) else math.nan


def xauc(predictions: Rows, labels: Rows) -> float:
    """Share of the pairs with different labels that the predictions order rightly; a prediction tie counts ½.

    ``XAUC = Σ_{y_i > y_j} ([ŷ_i > ŷ_j] + ½[ŷ_i = ŷ_j]) / |{y_i > y_j}|``: exact over all pairs in O(n log n), not a
    sample of them. With binary labels it is the AUC.

    Args:
        predictions: ``[N]`` finite.
        labels: ``[N]`` finite, of any scale (watch time, price).

    Returns:
        A value in [0, 1], or ``nan`` when all labels are equal.

    Raises:
        ValueError: Lengths differ, or a value is not finite.

    Source: Zhan et al., Deconfounding Duration Bias in Watch-time Prediction, KDD 2022; Knight 1966 for the counting.
    """
    predictions, labels = _finite(predictions, "predictions"), _finite(labels, "labels")
    rows = _length(predictions, labels)
    order = np.lexsort((predictions, labels))
    predictions, labels = predictions[order], labels[order]
    total = math.comb(rows, 2) - _tied_pairs(_run_starts(labels), rows)
    if total == 0:
        return math.nan
    # Rows ascend by label, within a label by prediction, and equal predictions are ranked as they stand: what is left
    # out of order is exactly the pairs with different labels and a strictly wrong order.
    by_prediction = np.argsort(predictions, kind="stable")
    rank = np.empty(rows, dtype=np.int64)
    rank[by_prediction] = np.arange(rows)
    tied = _tied_pairs(_run_starts(predictions[by_prediction]), rows)
    tied -= _tied_pairs(_run_starts(labels, predictions), rows)
    return (2 * (total - _inversions(rank)) - tied) / (2 * total)


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval; both ends are ``nan`` where no replicate gave a value."""

    low: float
    high: float


def group_weights(groups: Rows | None, n: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Row weights ``[n]`` of each bootstrap replicate: how often a row's group was drawn.

    Each replicate draws as many groups as there are, with replacement. Rows of one user are not independent, so users
    are resampled whole.

    Args:
        groups: ``[n]`` group ids; None resamples single rows.
        n: Number of rows.
        replicates: Number of replicates.
        seed: The same seed gives the same weights.

    Raises:
        ValueError: ``groups`` does not have ``n`` rows.

    Source: Efron & Tibshirani 1993; Field & Welsh 2007 for the cluster bootstrap.
    """
    generator = np.random.default_rng(seed)
    drawn, member = n, None
    if groups is not None:
        if np.shape(groups) != (n,):
            raise ValueError(f"groups must have the shape ({n},), got {np.shape(groups)}")
        distinct, member = np.unique(groups, return_inverse=True)
        drawn = len(distinct)
    for _ in range(replicates):
        times = np.bincount(generator.integers(0, max(drawn, 1), size=drawn), minlength=drawn).astype(np.float64)
        yield times if member is None else times[member]


def bootstrap_values(
    statistic: Callable[[Floats], Any], groups: Rows | None, n: int, *, replicates: int, seed: int
) -> Floats:
    """``statistic(row_weights)`` on every replicate of ``group_weights``, stacked into ``[replicates, ...]``.

    A statistic that returns an array gives several statistics on the same replicates, whose differences are paired.

    Raises:
        ValueError: ``replicates`` is below 1, or as in ``group_weights``.
    """
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    weights = group_weights(groups, n, replicates, seed)
    return np.stack([np.asarray(statistic(row_weights), dtype=np.float64) for row_weights in weights])


def bootstrap_interval(
    statistic: Callable[[Floats], float],
    groups: Rows | None,
    n: int,
    *,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a weighted statistic: the ``(1 ± level)/2`` quantiles of its replicates.

    Replicates on which the statistic is ``nan`` (a class was not drawn) are ignored. Arguments as in ``group_weights``.

    Raises:
        ValueError: ``level`` is not within (0, 1), or as in ``bootstrap_values``.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be within (0, 1), got {level}")
    values = bootstrap_values(statistic, groups, n, replicates=replicates, seed=seed)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def binary_metrics(
    probabilities: Rows, labels: Rows, groups: Rows | None = None, *, replicates: int = 200, seed: int = 0
) -> Metrics:
    """Every metric of a binary task, ready for JSON: None stands where a metric is undefined.

    Args:
        probabilities: ``[N]`` in [0, 1].
        labels: ``[N]`` 0 or 1.
        groups: ``[N]`` group ids: adds GAUC, and makes the interval resample groups instead of rows.
        replicates: Bootstrap replicates of ``auc_ci``; 0 leaves it None.
        seed: Of the bootstrap.

    Raises:
        ValueError: As in ``log_loss`` and ``gauc``.
    """
    sweep = AucSweep(probabilities, labels)
    metrics: Metrics = {"rows": sweep.rows, "positives": int(_positive(labels).sum()), "auc": _json(sweep.value())}
    metrics["auc_ci"] = None
    if metrics["auc"] is not None:
        metrics["auc_ci"] = _interval(sweep.value, groups, sweep.rows, replicates, seed)
    if groups is not None:
        grouped = gauc(probabilities, labels, groups)
        metrics |= {"gauc": _json(grouped.value), "gauc_groups": grouped.groups, "gauc_skipped": grouped.skipped}
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


def _quotient(twice_wins: Rows, positives: Any, negatives: Any) -> float:
    pairs = 2 * positives.item() * negatives.item()
    # Integers divide exactly; sums of fractional weights may round past 1.
    return min(twice_wins.sum().item() / pairs, 1.0) if pairs else math.nan


def _inversions(permutation: npt.NDArray[np.int64]) -> int:
    """Pairs i < j with ``permutation[i] > permutation[j]``, by a stable radix sort from the highest bit down.

    A pair is put right at the highest bit in which its values differ, within the block that shares the bits above.
    Moving the 1s of a block behind its 0s takes one step per such pair: inversions are the distance the 1s travel.
    """
    bits = max(len(permutation) - 1, 0).bit_length()
    position = np.arange(1 << bits, dtype=np.int64)
    # Padding to a power of two with larger values behind adds no inversion, and makes every block equally long.
    current: Rows = position.astype(np.int32 if bits < 32 else np.int64)
    current[: len(permutation)] = permutation
    travelled = 0
    for bit in reversed(range(bits)):
        half = 1 << bit
        upper = (current & half) != 0
        halves = current.reshape(-1, 2, half)
        travelled += int(position.reshape(-1, 2, half)[:, 1].sum()) - int(np.flatnonzero(upper).sum())
        halves[:, 0], halves[:, 1] = current[~upper].reshape(-1, half), current[upper].reshape(-1, half)
    return travelled


def _run_starts(*columns: Rows) -> npt.NDArray[np.intp]:
    """Where a run of equal rows begins, in columns sorted together."""
    changed = np.ones(len(columns[0]), dtype=np.bool_)
    if len(changed):
        changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(changed)


def _tied_pairs(starts: npt.NDArray[np.intp], rows: int) -> int:
    run = np.diff(starts, append=rows)
    return int((run * (run - 1) // 2).sum())


def _sorted_rows(scores: Rows, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(scores[rows])]


def _errors(predictions: Rows, labels: Rows) -> Floats:
    predictions, labels = _finite(predictions, "predictions"), _finite(labels, "labels")
    _length(predictions, labels)
    return predictions.astype(np.float64) - labels.astype(np.float64)


def _length(*columns: Rows) -> int:
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 1:
        raise ValueError(f"every array must be 1-d and of one length, got {[column.shape for column in columns]}")
    return len(columns[0])


def _finite(values: Rows, name: str) -> Rows:
    # A float type is kept: widening changes no order, and float32 sorts faster.
    values = np.asarray(values)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def _positive(labels: Rows) -> npt.NDArray[np.bool_]:
    labels = np.asarray(labels)
    positive: npt.NDArray[np.bool_] = labels == 1
    if not (positive | (labels == 0)).all():
        raise ValueError(f"labels must be 0 or 1, got {labels[~positive & (labels != 0)][0]}; leave missing labels out")
    return positive


def _probabilities(probabilities: Rows) -> Floats:
    probabilities = _finite(probabilities, "probabilities").astype(np.float64)
    if len(probabilities) and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError(f"probabilities must lie in [0, 1], got {probabilities.min()} to {probabilities.max()}")
    return probabilities


def _weights(weights: Rows, rows: int) -> Rows:
    weights = np.asarray(weights)
    weights = weights.astype(np.float64 if weights.dtype.kind == "f" else np.int64, copy=False)
    if weights.shape != (rows,):
        raise ValueError(f"weights must have the shape ({rows},), got {weights.shape}")
    # A nan fails the comparison, too.
    if rows and not (weights.min() >= 0 and weights.max() < math.inf):
        raise ValueError(f"weights must be finite and not negative, got {weights.min()} to {weights.max()}")
    return weights
