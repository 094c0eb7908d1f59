"""How well scores rank: AUC, GAUC (AUC within users) and XAUC (of numeric labels), exact and in O(n log n).

The rules for arrays are those of ``checks``.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyrank.metrics.checks import Rows, as_finite, as_weights, common_length, is_positive, run_starts
from polyrank.metrics.grouped import group_auc


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
        scores, positive = as_finite(scores, "scores"), is_positive(labels)
        self.rows = common_length(scores, positive)
        self._positives = _sorted_rows(scores, positive)
        self._negatives = _sorted_rows(scores, ~positive)
        negatives, positives = scores[self._negatives], scores[self._positives]
        # Sorted against sorted: per positive, how many negatives score less, and how many no more.
        self._below = np.searchsorted(negatives, positives, side="left")
        self._up_to = np.searchsorted(negatives, positives, side="right")

    def value(self, weights: Rows | None = None) -> float:
        """The AUC under ``weights`` ``[N]`` (all ones if None); see ``auc``."""
        weights = np.ones(self.rows, dtype=np.int64) if weights is None else as_weights(weights, self.rows)
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
        scores, positive = as_finite(scores, "scores"), is_positive(labels)
        rows = common_length(scores, positive)
        weights = np.ones(rows, dtype=np.int64) if weights is None else as_weights(weights, rows)
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
        starts = run_starts(scores)
        return cls(scores[starts], np.add.reduceat(positives[order], starts), np.add.reduceat(negatives[order], starts))


@dataclass(frozen=True)
class GroupAuc:
    """GAUC, and how much of the data it speaks for.

    Attributes:
        value: The row-weighted mean of the groups' AUCs; ``nan`` when no group has both classes.
        groups: Groups that have both classes.
        skipped: Groups of one class, which have no AUC.
        rows: Rows of the groups that count.
        ungrouped: Rows that have no group, and are left out.
    """

    value: float
    groups: int
    skipped: int
    rows: int
    ungrouped: int = 0


def gauc(scores: Rows, labels: Rows, groups: Rows) -> GroupAuc:
    """AUC within each group (user), averaged by the group's rows: ``GAUC = Σ_g n_g AUC_g / Σ_g n_g``.

    Only groups with both classes take part, and no row without a group; ``n_g`` is the number of rows (impressions) of
    group g. Pairs are counted in integers per group.

    Args:
        scores: ``[N]`` finite scores.
        labels: ``[N]`` 0 or 1.
        groups: ``[N]`` int64 group ids, in any order; ``NO_GROUP`` where a row has none.

    Raises:
        ValueError: As in ``auc``.

    Source: Zhou et al., Deep Interest Network, KDD 2018, section 6.
    """
    found = group_auc(scores, labels, groups)
    counted = ~np.isnan(found.values)
    rows = int(found.weights.sum())
    return GroupAuc(
        found.mean(),
        groups=int(counted.sum()),
        skipped=int((~counted).sum()),
        rows=int(found.weights[counted].sum()),
        ungrouped=len(scores) - rows,
    )


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
    predictions, labels = as_finite(predictions, "predictions"), as_finite(labels, "labels")
    rows = common_length(predictions, labels)
    order = np.lexsort((predictions, labels))
    predictions, labels = predictions[order], labels[order]
    total = math.comb(rows, 2) - _tied_pairs(run_starts(labels), rows)
    if total == 0:
        return math.nan
    # Rows ascend by label, within a label by prediction, and equal predictions are ranked as they stand: what is left
    # out of order is exactly the pairs with different labels and a strictly wrong order.
    by_prediction = np.argsort(predictions, kind="stable")
    rank = np.empty(rows, dtype=np.int64)
    rank[by_prediction] = np.arange(rows)
    tied = _tied_pairs(run_starts(predictions[by_prediction]), rows)
    tied -= _tied_pairs(run_starts(labels, predictions), rows)
    return (2 * (total - _inversions(rank)) - tied) / (2 * total)


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


def _tied_pairs(starts: npt.NDArray[np.intp], rows: int) -> int:
    run = np.diff(starts, append=rows)
    return int((run * (run - 1) // 2).sum())


def _sorted_rows(scores: Rows, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(scores[rows])]
