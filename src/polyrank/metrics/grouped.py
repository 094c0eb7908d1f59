"""A metric of each group (request, user) and their mean: AUC within groups, plain and weighted by reward.

Every function sorts the rows once and treats all groups together. Groups are int64 ids in any order; a row without a
group (`NO_GROUP`) is left out. The rules for arrays are those of ``checks``.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.checks import (
    Floats,
    Rows,
    as_finite,
    as_weights,
    common_length,
    is_positive,
    run_starts,
    run_sums,
)


@dataclass(frozen=True, eq=False)
class GroupValues:
    """A metric of each of G groups, and how much each counts: the metric of the data is their weighted mean.

    Two rankings of the same rows have the same groups in the same order, so that their differences are paired.

    Attributes:
        groups: ``[G]`` int64 ids, ascending.
        values: ``[G]`` float64; ``nan`` where a group leaves the metric undefined, and the group does not count.
        weights: ``[G]`` non-negative.
    """

    groups: npt.NDArray[np.int64]
    values: Floats
    weights: Rows

    def mean(self, times: Rows | None = None) -> float:
        """``Σ_g t_g w_g v_g / Σ_g t_g w_g`` over the groups that count; ``nan`` where none does.

        Args:
            times: ``[G]`` how often each group was drawn (of a bootstrap); None for once each.
        """
        counted = ~np.isnan(self.values)
        weights = self.weights[counted] if times is None else self.weights[counted] * times[counted]
        total = float(weights.sum())
        return float((weights * self.values[counted]).sum()) / total if total else math.nan


def group_auc(scores: Rows, labels: Rows, groups: Rows, weights: Rows | None = None) -> GroupValues:
    """AUC within each group, a group counting by its rows: the mean is GAUC, with ``weights`` MTF-GAUC.

    ``AUC_g = Σ_{i,j ∈ g: y_i=1, y_j=0} w_i w_j ([s_i > s_j] + ½[s_i = s_j]) / (Σ_{y=1} w · Σ_{y=0} w)``. Unweighted,
    pairs are counted in integers. MTF-GAUC weighs an item by its immediate reward plus 1 and its label is a valid view;
    the paper leaves the users' weights w(u) open: here a group counts by its rows, as in GAUC.

    Args:
        scores: ``[N]`` finite scores.
        labels: ``[N]`` 0 or 1.
        groups: ``[N]`` group ids.
        weights: ``[N]`` non-negative; None for all 1.

    Raises:
        ValueError: As in ``auc``.

    Source: Zhou et al., Deep Interest Network, KDD 2018 (GAUC); Liu et al., UnifiedRL, arXiv 2404.17589 (MTF-GAUC).
    """
    scores, positive, groups = as_finite(scores, "scores"), is_positive(labels), np.asarray(groups, np.int64)
    rows = common_length(scores, positive, groups)
    weights = np.ones(rows, dtype=np.int64) if weights is None else as_weights(weights, rows)
    order = by_group(groups, scores)
    scores, groups, weights, positive = scores[order], groups[order], weights[order], positive[order]
    runs = run_starts(groups, scores)  # one run per distinct (group, score)
    positives, negatives = run_sums(weights * positive, runs), run_sums(weights * ~positive, runs)
    first = run_starts(groups[runs])  # each group's first run
    group_positives, group_negatives = run_sums(positives, first), run_sums(negatives, first)
    earlier = np.cumsum(group_negatives) - group_negatives  # negatives of earlier groups win no pair here
    wins = run_sums(positives * (2 * np.cumsum(negatives) - negatives), first) - 2 * earlier * group_positives
    pairs = 2 * group_positives * group_negatives
    values = np.full(len(first), math.nan)
    np.divide(wins, pairs, out=values, where=pairs > 0)
    starts = runs[first]
    # Integers divide exactly; sums of fractional weights may round past an end.
    return GroupValues(groups[starts], np.clip(values, 0, 1), np.diff(starts, append=len(groups)))


def by_group(groups: Rows, *scores: Rows) -> npt.NDArray[np.intp]:
    """The rows that have a group, ascending by group, within it by the first score, then by the second."""
    order: npt.NDArray[np.intp] = np.lexsort((*reversed(scores), groups))
    return order[np.searchsorted(groups, NO_GROUP, side="right", sorter=order) :]
