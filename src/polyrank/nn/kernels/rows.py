"""Kernels over the rows of an embedding table: look a batch up, sum what it sends back, update the rows it touched.

B rows, S single-valued columns, G bags, D numbers, W embedding width, R table rows, n occurrences, u touched rows.
A step costs time in proportion to the batch, never to the table.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.vectors import prefetch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, vol. 3, section 6.4)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_AHEAD = 12  # rows of the table asked for before they are needed: a cache miss takes as long as that many updates


@njit(parallel=True, cache=True, nogil=True)
def look_up(
    table: Any, ids: Any, columns: Any, offsets: Any, singles: int, bag_starts: Any, numbers: Any, out: Any, shares: Any
) -> None:
    """Write `out [B, (S + G)·W + D]`: the rows of single values, the means of bags (0 if empty), the numbers.

    Args:
        table: `[R, W]` float32.
        ids: `[B, F]` int32; in a bag 0 is padding.
        columns: `[n]` int64: which columns of `ids`, the S single-valued ones first, then bag after bag.
        offsets: `[n]` int64: the table row of each column's id 0.
        singles: S.
        bag_starts: `[G + 1]` int64: where each bag begins in `columns`.
        numbers: `[B, D]` float32.
        out: written.
        shares: `[B, G]` float32, written: 1 / (values in the bag), 0 for an empty one.
    """
    rows, width = len(ids), table.shape[1]
    bags = len(bag_starts) - 1
    row_bytes = width * 4
    for b in prange(rows):
        ahead = min(b + 1, rows - 1)
        for j in range(singles):
            prefetch(table.ctypes.data + np.uint64((offsets[j] + ids[ahead, columns[j]]) * row_bytes))
        for j in range(singles):
            row = offsets[j] + ids[b, columns[j]]
            for w in range(width):
                out[b, j * width + w] = table[row, w]
        for k in range(bags):
            start = (singles + k) * width
            count = 0
            for w in range(width):
                out[b, start + w] = 0.0
            for j in range(bag_starts[k], bag_starts[k + 1]):
                if ids[b, columns[j]] != 0:
                    count += 1
                    row = offsets[j] + ids[b, columns[j]]
                    for w in range(width):
                        out[b, start + w] += table[row, w]
            share = np.float32(0.0) if count == 0 else np.float32(1.0) / np.float32(count)
            shares[b, k] = share
            for w in range(width):
                out[b, start + w] *= share
        start = (singles + bags) * width
        for d in range(numbers.shape[1]):
            out[b, start + d] = numbers[b, d]


@njit(parallel=True, cache=True, nogil=True)
def sum_rows(
    ids: Any, columns: Any, offsets: Any, singles: int, bag_starts: Any, shares: Any, gradient: Any, width: int,
    parts: int, rows: Any, sums: Any, starts: Any, counts: Any,
) -> None:  # fmt: skip
    """The distinct table rows a batch touched and the sum over each one's occurrences of its gradient.

    Table rows are shared out among P threads by a hash of the row; each walks the whole batch in order and sums into
    its own. A row's sum is taken in the order of the batch whatever P is: the result does not depend on P.

    Args:
        ids: and `columns`, `offsets`, `singles`, `bag_starts`, `shares` as in `look_up`.
        gradient: `[B, ≥ (S + G)·W]` float32: of `look_up`'s output.
        width: W.
        parts: P.
        rows: `[n]` int64, written: part p's touched rows are `rows[starts[p] : starts[p] + counts[p]]`.
        sums: `[n, W]` float32, written: their gradients.
        starts: `[P]` int64, written.
        counts: `[P]` int64, written.
    """
    batch = len(ids)
    bags = len(bag_starts) - 1
    own = np.zeros(parts, np.int64)
    for p in prange(parts):
        count = 0
        for b in range(batch):
            for j in range(len(columns)):
                if _part(offsets[j] + ids[b, columns[j]], parts) == p:
                    count += 1
        own[p] = count
    starts[0] = 0
    for p in range(1, parts):
        starts[p] = starts[p - 1] + own[p - 1]
    for p in prange(parts):
        capacity = 16
        while capacity < 2 * own[p]:
            capacity *= 2
        mask = np.uint64(capacity - 1)
        places = np.full(capacity, -1, np.int32)  # an open-addressing hash table: where a row's sum stands
        base = starts[p]
        used = 0
        for b in range(batch):
            for j in range(singles):
                row = offsets[j] + ids[b, columns[j]]
                if _part(row, parts) == p:
                    used = _add(row, mask, places, rows, sums, base, used, gradient, b, j * width, np.float32(1.0))
            for k in range(bags):
                for j in range(bag_starts[k], bag_starts[k + 1]):
                    row = offsets[j] + ids[b, columns[j]]
                    if ids[b, columns[j]] != 0 and _part(row, parts) == p:
                        start = (singles + k) * width
                        used = _add(row, mask, places, rows, sums, base, used, gradient, b, start, shares[b, k])
        counts[p] = used


@njit(cache=True, nogil=True, inline="always")
def _part(row: int, parts: int) -> Any:
    return np.int64((((np.uint64(row) * _GOLDEN) >> _HALF) * np.uint64(parts)) >> _HALF)


@njit(cache=True, nogil=True, inline="always")
def _add(
    row: int, mask: Any, places: Any, rows: Any, sums: Any, base: int, used: int, gradient: Any, b: int, start: int,
    share: Any,
) -> int:  # fmt: skip
    """Add share · gradient[b, start:] to the row's sum; how many rows there are now."""
    width = sums.shape[1]
    slot = (np.uint64(row) * _GOLDEN & _LOW) & mask
    while places[slot] != -1 and rows[base + places[slot]] != row:
        slot = (slot + np.uint64(1)) & mask
    at = places[slot]
    if at == -1:
        places[slot] = used
        rows[base + used] = row
        for w in range(width):
            sums[base + used, w] = gradient[b, start + w] * share
        return used + 1
    for w in range(width):
        sums[base + at, w] += gradient[b, start + w] * share
    return used


@njit(parallel=True, cache=True, nogil=True)
def adagrad(
    table: Any, accumulator: Any, rows: Any, sums: Any, starts: Any, counts: Any, rate: Any, epsilon: Any
) -> None:
    """Row-wise Adagrad on touched rows: a += mean(g²), row −= rate·g/(√a + ε).

    Args:
        table: `[R, W]`, changed.
        accumulator: `[R]`, changed.
        rows: and `sums`, `starts`, `counts` as `sum_rows` gives them: no row twice.
        rate: float32.
        epsilon: float32.
    """
    width = table.shape[1]
    for p in prange(len(starts)):
        for u in range(starts[p], starts[p] + counts[p]):
            ahead = rows[min(u + _AHEAD, starts[p] + counts[p] - 1)]
            prefetch(table.ctypes.data + np.uint64(ahead * width * 4))
            prefetch(accumulator.ctypes.data + np.uint64(ahead * 4))
            row = rows[u]
            square = np.float32(0.0)
            for w in range(width):
                square += sums[u, w] * sums[u, w]
            accumulator[row] += square / np.float32(width)
            scale = rate / (np.sqrt(accumulator[row]) + epsilon)
            for w in range(width):
                table[row, w] -= scale * sums[u, w]


@njit(parallel=True, cache=True, nogil=True)
def adam(
    table: Any, moment: Any, variance: Any, rows: Any, sums: Any, starts: Any, counts: Any, first: Any, kept: Any,
    second: Any, rate: Any, root: Any, epsilon: Any,
) -> None:  # fmt: skip
    """Lazy Adam on touched rows: m += first·(g − m), v = kept·v + second·g², row −= rate·m/(√v/root + ε).

    Args:
        table: and `moment`, `variance` `[R, W]`, changed.
        moment: m.
        variance: v.
        rows: and `sums`, `starts`, `counts` as `sum_rows` gives them: no row twice.
        sums: g.
        first: 1 − β₁.
        kept: β₂.
        second: 1 − β₂, rounded by itself.
        rate: the learning rate over 1 − β₁ᵗ.
        root: √(1 − β₂ᵗ).
        epsilon: ε; all six float32.
    """
    width = table.shape[1]
    for p in prange(len(starts)):
        for u in range(starts[p], starts[p] + counts[p]):
            ahead = np.uint64(rows[min(u + _AHEAD, starts[p] + counts[p] - 1)] * width * 4)
            prefetch(table.ctypes.data + ahead)
            prefetch(moment.ctypes.data + ahead)
            prefetch(variance.ctypes.data + ahead)
            row = rows[u]
            for w in range(width):
                g = sums[u, w]
                m = moment[row, w] + (g - moment[row, w]) * first
                v = variance[row, w] * kept + g * g * second
                moment[row, w] = m
                variance[row, w] = v
                table[row, w] -= rate * (m / (np.sqrt(v) / root + epsilon))
