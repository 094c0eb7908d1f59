"""How far two rankings of each group's rows agree: Kendall's τ_b, and XAUC within groups.

Both come from the same counts of pairs of rows, in O(n log n) over all groups together. Groups are those of
``grouped``; the rules for arrays are those of ``checks``.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polyrank.metrics.checks import Rows, as_finite, common_length, run_starts
from polyrank.metrics.grouped import GroupValues, by_group

Counts = npt.NDArray[np.int64]


def kendall(first: Rows, second: Rows, groups: Rows) -> GroupValues:
    """τ_b of two scores within each group, every group counting alike.

    ``τ_b = (C − D) / √((n₀ − n₁)(n₀ − n₂))`` with C concordant and D discordant pairs of rows, n₀ all pairs, n₁ and n₂
    those tied in the first and the second score. 1: one order; −1: the reverse. ``nan`` where all rows of a group tie
    in one of the two (so for a group of one row).

    Args:
        first: ``[N]`` finite.
        second: ``[N]`` finite.
        groups: ``[N]`` group ids; rows without one (`NO_GROUP`) are left out.

    Raises:
        ValueError: Lengths differ, or a score is not finite.

    Source: Kendall, Biometrika 1945.
    """
    pairs = _Pairs.count(as_finite(first, "first"), as_finite(second, "second"), groups)
    scale = np.sqrt((pairs.all - pairs.tied_first).astype(np.float64) * (pairs.all - pairs.tied_second))
    values = np.full(len(scale), math.nan)
    np.divide(pairs.concordant - pairs.discordant, scale, out=values, where=scale > 0)
    return GroupValues(pairs.groups, np.clip(values, -1, 1), np.ones(len(values)))


def group_xauc(predictions: Rows, labels: Rows, groups: Rows) -> GroupValues:
    """XAUC within each group, a group counting by its rows: GAUC for numeric labels (watch time, price).

    ``XAUC_g = (C + ½ · pairs tied in the prediction alone) / pairs with different labels``; ``nan`` for a group whose
    labels are all equal. With binary labels it is ``group_auc``.

    Args:
        predictions: ``[N]`` finite scores.
        labels: ``[N]`` finite.
        groups: ``[N]`` group ids.

    Raises:
        ValueError: Lengths differ, or a value is not finite.

    Source: Zhan et al., KDD 2022 (XAUC); within groups as GAUC does it.
    """
    pairs = _Pairs.count(as_finite(predictions, "predictions"), as_finite(labels, "labels"), groups)
    different = pairs.all - pairs.tied_second
    values = np.full(len(different), math.nan)
    np.divide(2 * pairs.concordant + pairs.tied_first - pairs.tied_both, 2 * different, out=values, where=different > 0)
    return GroupValues(pairs.groups, values, pairs.sizes)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of rows within each group, all arrays ``[G]``: `tied_both` are among those tied in either score."""

    groups: Counts
    sizes: Counts
    all: Counts
    tied_first: Counts
    tied_second: Counts
    tied_both: Counts
    discordant: Counts

    @property
    def concordant(self) -> Counts:
        """Strictly in one order in both scores."""
        return self.all - self.tied_first - self.tied_second + self.tied_both - self.discordant

    @classmethod
    def count(cls, first: Rows, second: Rows, groups: Rows) -> "_Pairs":
        groups = np.asarray(groups, np.int64)
        common_length(first, second, groups)
        order = by_group(groups, first, second)
        first, second, groups = first[order], second[order], groups[order]
        starts = run_starts(groups)
        sizes = np.diff(starts, append=len(order))
        member = np.repeat(np.arange(len(starts)), sizes)
        # Ranks by the second score, groups in one order: rows of two groups are never out of order, and rows that tie
        # in either score are ranked as they stand, so that what is out of order is exactly the discordant pairs.
        by_second = np.lexsort((second, member))
        rank = np.empty(len(order), dtype=np.int64)
        rank[by_second] = np.arange(len(order))

        def within(runs: npt.NDArray[np.intp]) -> Counts:
            length = np.diff(runs, append=len(order)).astype(np.int64)
            return _summed(length * (length - 1) // 2, member[runs], len(starts))

        return cls(
            groups[starts],
            sizes,
            within(starts),
            within(run_starts(member, first)),
            within(run_starts(member, second[by_second])),
            within(run_starts(member, first, second)),
            _inversions(rank, member, len(starts)),
        )


def _inversions(rank: Counts, member: npt.NDArray[np.intp], groups: int) -> Counts:
    """Pairs i < j with ``rank[i] > rank[j]``, by group: a stable radix sort from the highest bit down.

    As in ``ranking``: moving the 1s of a block behind its 0s takes one step per pair that this bit sets right. Both
    rows of such a pair are of one group, because groups are in order; the row of rank r is of group ``member[r]``.

    Source: Knight, JASA 1966, for counting by sorting.
    """
    bits = max(len(rank) - 1, 0).bit_length()
    current = np.arange(1 << bits, dtype=np.int64)  # padding with larger ranks behind adds no inversion
    current[: len(rank)] = rank
    result = np.zeros(groups, dtype=np.int64)
    for bit in reversed(range(bits)):
        half = 1 << bit
        blocks = current.reshape(-1, 2 * half)
        upper = (blocks & half) != 0
        passed = half - np.cumsum(~upper, axis=1)[upper]  # 0s behind each 1 of its block: a block has `half` of them
        moved = passed > 0
        result += _summed(passed[moved], member[blocks[upper][moved]], groups)
        zeros, ones = blocks[~upper].reshape(-1, 1, half), blocks[upper].reshape(-1, 1, half)
        current = np.concatenate((zeros, ones), axis=1).reshape(-1)
    return result


def _summed(values: Counts, member: npt.NDArray[np.intp], groups: int) -> Counts:
    result = np.zeros(groups, dtype=np.int64)
    np.add.at(result, member, values)
    return result
