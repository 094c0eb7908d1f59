"""How alike two rankings of each group's rows are: Kendall's τ_b."""

import math

import numpy as np
import numpy.typing as npt

from polyrank.metrics.checks import Rows, as_finite, common_length, run_starts
from polyrank.metrics.grouped import GroupValues, by_group


def kendall(first: Rows, second: Rows, groups: Rows) -> GroupValues:
    """τ_b of two scores within each group, every group counting alike.

    ``τ_b = (C − D) / √((n₀ − n₁)(n₀ − n₂))`` with C concordant and D discordant pairs of rows, n₀ all pairs, n₁ and n₂
    those tied in the first and the second score. 1: one order; −1: the reverse. ``nan`` where all rows of a group tie
    in one of the two (so for a group of one row). O(n log n) over all groups together.

    Args:
        first: ``[N]`` finite.
        second: ``[N]`` finite.
        groups: ``[N]`` group ids; rows without one (`NO_GROUP`) are left out.

    Raises:
        ValueError: Lengths differ, or a score is not finite.

    Source: Kendall, Biometrika 1945; Knight, JASA 1966 for the counting.
    """
    first, second, groups = as_finite(first, "first"), as_finite(second, "second"), np.asarray(groups, np.int64)
    common_length(first, second, groups)
    rows = by_group(groups, first, second)
    first, second, groups = first[rows], second[rows], groups[rows]
    starts = run_starts(groups)
    member = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rows)))
    # Ranks by the second score over groups in one order: rows of two groups are never out of order, and rows tied in
    # either score are ranked as they stand, so that what is out of order is exactly the discordant pairs.
    by_second = np.lexsort((second, member))
    rank = np.empty(len(rows), dtype=np.int64)
    rank[by_second] = np.arange(len(rows))
    discordant = _inversions(rank, member, len(starts))
    pairs = _pairs(starts, len(rows), member, len(starts))
    tied_first = _pairs(run_starts(member, first), len(rows), member, len(starts))
    tied_second = _pairs(run_starts(member, second[by_second]), len(rows), member, len(starts))
    tied_both = _pairs(run_starts(member, first, second), len(rows), member, len(starts))
    net = pairs - tied_first - tied_second + tied_both - 2 * discordant
    scale = np.sqrt((pairs - tied_first).astype(np.float64) * (pairs - tied_second))
    values = np.full(len(starts), math.nan)
    np.divide(net, scale, out=values, where=scale > 0)
    return GroupValues(groups[starts], np.clip(values, -1, 1), np.ones(len(starts)))


def _pairs(starts: npt.NDArray[np.intp], rows: int, member: npt.NDArray[np.intp], groups: int) -> npt.NDArray[np.int64]:
    """How many pairs of rows share a run, summed by group ``[G]``; a run lies within one group."""
    run = np.diff(starts, append=rows).astype(np.int64)
    result = np.zeros(groups, dtype=np.int64)
    np.add.at(result, member[starts], run * (run - 1) // 2)
    return result


def _inversions(rank: npt.NDArray[np.int64], member: npt.NDArray[np.intp], groups: int) -> npt.NDArray[np.int64]:
    """Pairs i < j with ``rank[i] > rank[j]``, by group: a stable radix sort from the highest bit down.

    As in ``ranking``: moving the 1s of a block behind its 0s takes one step per pair that this bit sets right. Both
    rows of such a pair are of one group, because groups are in order; row r of rank r is of group ``member[r]``.
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
        np.add.at(result, member[blocks[upper][moved]], passed[moved])
        zeros, ones = blocks[~upper].reshape(-1, 1, half), blocks[upper].reshape(-1, 1, half)
        current = np.concatenate((zeros, ones), axis=1).reshape(-1)
    return result
