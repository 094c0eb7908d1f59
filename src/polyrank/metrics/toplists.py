"""What stands at the top of each group's list: NDCG@k, the hit rate and sums over the first k.

Rows with one score stand in no order: every metric here is its expectation over all orders of the tied rows, so that
it does not depend on the order of the rows (McSherry & Najork, Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores, ECIR 2008). Groups are those of ``grouped``.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from polyrank.metrics.checks import Floats, Rows, as_finite, common_length, is_positive, run_starts, run_sums
from polyrank.metrics.grouped import GroupValues, by_group


def ndcg(scores: Rows, gains: Rows, groups: Rows, k: int) -> GroupValues:
    """NDCG@k of each group, every group counting alike: ``DCG@k / ideal DCG@k``, ``DCG@k = Σ_{i<k} gain_i/log2(i+2)``.

    Gains enter as they are (a 0/1 label, a reward, seconds), not as 2^gain − 1. ``nan`` for a group without a gain.

    Args:
        scores: ``[N]`` finite scores, the highest first.
        gains: ``[N]`` finite and not negative.
        groups: ``[N]`` group ids.
        k: How many places count.

    Raises:
        ValueError: Lengths differ, a value is not finite, a gain is negative, ``k`` is below 1.

    Source: Järvelin & Kekäläinen, TOIS 2002.
    """
    gains = as_finite(gains, "gains").astype(np.float64)
    if len(gains) and gains.min() < 0:
        raise ValueError(f"gains must not be negative, got {gains.min()}")
    found, ideal = _discounted(scores, gains, groups, k), _discounted(gains, gains, groups, k)
    values = np.full(len(ideal.values), math.nan)
    np.divide(found.values, ideal.values, out=values, where=ideal.values > 0)
    return GroupValues(found.groups, np.minimum(values, 1.0), found.weights)


def hit_rate(scores: Rows, labels: Rows, groups: Rows, k: int) -> GroupValues:
    """HR@k: whether the first k rows of a group hold a positive, of the groups that have one; each counts alike.

    Papers on fusion quote HR@3 and do not define it; recall@k would be the other reading. A group of at most k rows is
    a hit whatever the order: choose k below the length of the lists.

    Args:
        scores: ``[N]`` finite scores, the highest first.
        labels: ``[N]`` 0 or 1.
        groups: ``[N]`` group ids.
        k: How many places count.

    Raises:
        ValueError: Lengths differ, a score is not finite, a label is not 0 or 1, ``k`` is below 1.
    """
    runs = _Runs.of(scores, groups, k)
    positives = runs.sums(is_positive(labels).astype(np.float64))
    # The chance that none of `taken` rows, drawn from a run of `size` with so many positives, is positive.
    others = runs.size - positives
    possible = others >= runs.taken
    log_miss = np.where(possible, _log_choose(np.where(possible, others, runs.taken), runs.taken), -math.inf)
    log_miss = log_miss - _log_choose(runs.size, runs.taken)
    held = run_sums(positives, runs.first)
    return runs.group_values(np.where(held > 0, 1 - np.exp(run_sums(log_miss, runs.first)), math.nan))


def sum_at(scores: Rows, values: Rows, groups: Rows, k: int) -> GroupValues:
    """``Σ_{i<k} value_i`` of each group, every group counting alike.

    Of calibrated probabilities it is the number of behaviours to expect among the first k; of labels what happened.

    Args:
        scores: ``[N]`` finite scores, the highest first.
        values: ``[N]`` finite.
        groups: ``[N]`` group ids.
        k: How many places count.

    Raises:
        ValueError: Lengths differ, a value is not finite, ``k`` is below 1.
    """
    runs = _Runs.of(scores, groups, k)
    means = runs.sums(as_finite(values, "values").astype(np.float64)) / runs.size
    return runs.group_values(run_sums(means * runs.taken, runs.first))


def _discounted(scores: Rows, gains: Floats, groups: Rows, k: int) -> GroupValues:
    """DCG@k; a run of tied rows shares its places, so each place has the run's mean gain."""
    runs = _Runs.of(scores, groups, k)
    discounts = np.concatenate(([0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))))
    share = discounts[np.minimum(runs.before + runs.size, k)] - discounts[np.minimum(runs.before, k)]
    means = runs.sums(gains) / runs.size
    return runs.group_values(run_sums(means * share, runs.first))


@dataclass(frozen=True, eq=False)
class _Runs:
    """Tied rows, R runs in all, those of a group one after the other from the best score down.

    Attributes:
        rows: N, with those of no group.
        order: ``[n]`` the rows that have a group, sorted.
        starts: ``[R]`` where a run begins in `order`.
        size: ``[R]`` its rows.
        before: ``[R]`` rows of the group that stand above it.
        taken: ``[R]`` how many of its rows are among the group's first k.
        first: ``[G]`` the first run of each group.
        groups: ``[G]`` ids.
    """

    rows: int
    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    size: npt.NDArray[np.intp]
    before: npt.NDArray[np.intp]
    taken: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    groups: npt.NDArray[np.int64]

    @classmethod
    def of(cls, scores: Rows, groups: Rows, k: int) -> "_Runs":
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        scores, groups = as_finite(scores, "scores"), np.asarray(groups, np.int64)
        rows = common_length(scores, groups)
        order = by_group(groups, -scores)
        scores, groups = scores[order], groups[order]
        starts = run_starts(groups, scores)
        size = np.diff(starts, append=len(order))
        first = run_starts(groups[starts])
        of_group = np.repeat(starts[first], np.diff(first, append=len(starts)))
        before = starts - of_group
        taken = np.clip(k - before, 0, size)
        return cls(rows, order, starts, size, before, taken, first, groups[starts[first]])

    def sums(self, values: Floats) -> Floats:
        """The sum over each run's rows, of values ``[N]``."""
        if values.shape != (self.rows,):
            raise ValueError(f"values must have the shape ({self.rows},), got {values.shape}")
        return run_sums(values[self.order], self.starts)

    def group_values(self, values: Floats) -> GroupValues:
        """As a metric in which every group counts alike."""
        return GroupValues(self.groups, values, np.ones(len(values)))


def _log_choose(n: Rows, k: Rows) -> Floats:
    result: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return result
