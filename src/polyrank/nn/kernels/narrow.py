"""The first layer over small tables: the tables are multiplied with the weights, not the batch.

B rows, C id columns with a small table each, W embedding width, R rows of these tables together, D numbers, N outputs.

x W for x = [e_1(i_1), …, e_C(i_C), numbers] is Σ_c e_c(i_c) W_c + numbers · W_n. Where tables are small, P_c = e_c W_c
(a product of R rows instead of B) leaves a sum of C rows of P for each row of the batch: one addition where the product
has W multiplications. Backward likewise: the outputs' gradients are summed by table row first and multiplied after.

Most columns have a usual value (0 clicks, not in the universe, nothing given). Its row of P is taken into account once
for the whole batch, and only the rows of the batch that differ add the difference: what is usual costs nothing.

Outputs are worked on in blocks of sixteen: all R rows of such a block stay in a core's own cache, from the product with
the weights to the last row of the batch. Blocks are dealt out to GROUPS groups, whatever the number of threads, and
sums run in a fixed order: the result does not depend on the number of threads.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels import tiles
from polyrank.nn.kernels.llvm import BYTES, LANES
from polyrank.nn.kernels.vectors import (
    STEP,
    add_multiple,
    clear,
    combine,
    combine_four,
    gather_add,
    number,
    passed,
    prefetch,
)

GROUPS = 16
_AHEAD = 12  # rows asked for before they are needed: they stand too far apart for the processor to guess


@njit(cache=True, nogil=True)
def survey(begins: Any, ids: Any, counts: Any, usual: Any, places: Any, lengths: Any) -> None:
    """Count a batch's values, name each column's usual one, and list for each row where its unusual ones stand.

    Args:
        begins: `[C + 1]` int64: where each table begins.
        ids: `[B, C]` int32, local to each table.
        counts: `[R]` int32, written: how often the batch has each row of the tables.
        usual: `[C]` int64, written: the commonest row, if more than a quarter of the batch has it, else -1.
        places: `[B, ≥ C, a multiple of STEP]` int32: the first `lengths[b]` of each row written, in bytes of a block.
        lengths: `[B]` int64, written.
    """
    batch, columns = ids.shape
    for r in range(len(counts)):
        counts[r] = 0
    for b in range(batch):
        for c in range(columns):
            counts[begins[c] + ids[b, c]] += 1
    for c in range(columns):
        row = begins[c]
        for r in range(begins[c], begins[c + 1]):
            if counts[r] > counts[row]:
                row = r
        # A rarer one's share of the gradient would drown in the rounding of the sum it is found by subtraction from.
        usual[c] = row if 4 * counts[row] > batch else -1
    for b in range(batch):
        length = 0
        for c in range(columns):
            row = begins[c] + ids[b, c]
            if row != usual[c]:
                places[b, length] = row * BYTES
                length += 1
        spare = 0
        while length % STEP:  # STEP spare rows follow the tables', all zero: see `gather_add`
            places[b, length] = (len(counts) + spare) * BYTES
            spare += 1
            length += 1
        lengths[b] = length


@njit(parallel=True, cache=True, nogil=True)
def project(
    tables: Any, begins: Any, weight: Any, bias: Any, rectified: int, counts: Any, usual: Any, places: Any,
    lengths: Any, numbers: Any, added: bool, scratch: Any, out: Any,
) -> None:  # fmt: skip
    """out ← act(x W + bias), or act(out + x W + bias); act is max(·, 0) on the first `rectified` outputs.

    Args:
        tables: `[R, W]` float32: the small tables, one after another.
        begins: `[C + 1]` int64: where each begins.
        weight: `[≥ C·W + D, N]` float32, N a multiple of 16.
        bias: `[N]` float32.
        rectified: how many outputs pass a ReLU.
        counts: and `usual`, `places`, `lengths` as `survey` gives them.
        usual: the columns' usual rows.
        places: where in a block the rows' unusual values stand.
        lengths: how many these are.
        numbers: `[B, D]` float32.
        added: whether to add to what `out` holds.
        scratch: `[GROUPS, R + STEP + D + 3, 16]` float32, changed.
        out: `[B, N]` float32, or bf16 held as uint16; changed.
    """
    width, outputs = tables.shape[1], weight.shape[1]
    kind, size = out.dtype.type(0), out.itemsize
    batch, listed = places.shape
    columns, count = len(usual), numbers.shape[1]
    rows = begins[columns] + STEP
    for group in prange(GROUPS):
        own = scratch[group]
        base = own.ctypes.data
        more = base + np.uint64(rows * BYTES)
        zero = more + np.uint64(count * BYTES)
        common, start = zero + np.uint64(BYTES), zero + np.uint64(2 * BYTES)
        own[begins[columns] : rows, :] = np.float32(0.0)
        own[rows + count, :] = np.float32(0.0)
        for block in range(group, outputs // LANES, GROUPS):
            for j in range(LANES):
                for d in range(count):
                    own[rows + d, j] = weight[columns * width + d, block * LANES + j]
                own[rows + count + 1, j] = bias[block * LANES + j]
            for c in range(columns):
                first = weight.ctypes.data + np.uint64((c * width * outputs + block * LANES) * 4)
                for r in range(begins[c], begins[c + 1]):
                    if counts[r] > 0:
                        scalars = tables.ctypes.data + np.uint64(r * width * 4)
                        combine(base + np.uint64(r * BYTES), zero, scalars, 4, first, outputs * 4, width)
                if usual[c] >= 0:
                    for j in range(LANES):
                        own[rows + count + 1, j] += own[usual[c], j]
                    other = base + np.uint64(usual[c] * BYTES)
                    for r in range(begins[c], begins[c + 1]):
                        if r != usual[c] and counts[r] > 0:
                            add_multiple(base + np.uint64(r * BYTES), other, np.float32(-1.0), 1, np.float32(0.0))
            lanes = min(max(rectified - block * LANES, 0), LANES)
            for b in range(batch):
                to = out.ctypes.data + np.uint64((b * outputs + block * LANES) * size)
                prefetch(to + np.uint64(_AHEAD * outputs * size))
                begin = common
                if added:
                    begin = start
                    for j in range(LANES):
                        own[rows + count + 2, j] = number(out[b, block * LANES + j]) + own[rows + count + 1, j]
                at = places.ctypes.data + np.uint64(b * listed * 4)
                scalars = numbers.ctypes.data + np.uint64(b * count * 4)
                gather_add(to, begin, base, at, lengths[b], scalars, more, count, lanes, kind)


@njit(cache=True, nogil=True)
def _rows_of(begins: Any, counts: Any, usual: Any, places: Any, lengths: Any) -> Any:
    """For each table row the rows of the batch that have it as an unusual value, in bytes of a block, and where each
    list ends and the next begins: whole STEPs, filled up with the row after the batch's last.
    """  # noqa: D205
    rows, batch = begins[-1], len(places)
    ends = np.empty(rows + 1, np.int64)
    ends[0] = 0
    for c in range(len(usual)):
        for r in range(begins[c], begins[c + 1]):
            ends[r + 1] = ends[r] + (0 if r == usual[c] else (counts[r] + STEP - 1) // STEP * STEP)
    found, at = np.full(ends[rows], batch * BYTES, np.int32), ends[:rows].copy()
    for b in range(batch):
        for k in range(lengths[b]):
            r = places[b, k] // BYTES
            if r < rows:
                found[at[r]] = b * BYTES
                at[r] += 1
    return found, ends


@njit(parallel=True, cache=True, nogil=True)
def project_back(
    tables: Any, begins: Any, weight: Any, turned: Any, rectified: int, counts: Any, usual: Any, places: Any,
    lengths: Any, numbers: Any, scale: Any, values: Any, gradient: Any, scratch: Any, parts: Any, bias_gradient: Any,
    weight_gradient: Any, table_gradient: Any,
) -> None:  # fmt: skip
    """Gradients of `project` with respect to bias, weight and tables.

    Args:
        tables: and `begins`, `rectified`, `counts`, `usual`, `places`, `lengths`, `numbers` as in `project`.
        weight: `[≥ C·W + D, N]` float32.
        turned: `[GROUPS, 16 · C·W + 16]` float32, changed: a block of the weight transposed, and room to read beyond.
        scale: what dropout multiplied the rectified outputs with, 1 without.
        values: `[B, N]` what `project` gave, after dropout.
        gradient: `[B, N]`, held as `values` are, with respect to it; changed into that with respect to what the
            activation was given.
        scratch: `[GROUPS, R + D + 3, 16]` float32, changed.
        parts: `[GROUPS, R, V]` float32, changed, V the multiple of 16 from W on.
        bias_gradient: `[N]` float32, written.
        weight_gradient: `[≥ C·W + D, N]` float32, its first C·W + D rows written.
        table_gradient: `[R, W]` float32, written.
    """
    width, outputs = tables.shape[1], weight.shape[1]
    batch = len(places)
    columns, count = len(usual), numbers.shape[1]
    rows, wide, across = len(tables), parts.shape[2], len(usual) * tables.shape[1]
    kind, held = gradient.dtype.type(0), gradient.itemsize
    rows_of, ends = _rows_of(begins, counts, usual, places, lengths)
    for group in prange(GROUPS):
        own = scratch[group]
        base = own.ctypes.data
        more = base + np.uint64(rows * BYTES)
        table_part = parts.ctypes.data + np.uint64(group * parts.shape[1] * wide * 4)
        parts[group, :, :] = np.float32(0.0)
        total = more + np.uint64(count * BYTES)
        zero, minus = total + np.uint64(BYTES), total + np.uint64(2 * BYTES)
        own[rows + count + 1, :] = np.float32(0.0)
        own[rows + count + 2, :] = np.float32(-1.0)
        sent = turned[group].ctypes.data
        given = np.empty((batch + 1, LANES), np.float32)  # a block of the gradient, and zeros
        given[batch, :] = np.float32(0.0)
        given_at = given.ctypes.data
        for block in range(group, outputs // LANES, GROUPS):
            lanes = min(max(rectified - block * LANES, 0), LANES)
            clear(more, count + 1)
            for b in range(batch):
                place = np.uint64((b * outputs + block * LANES) * held)
                at = gradient.ctypes.data + place
                prefetch(at + np.uint64(_AHEAD * outputs * held))
                prefetch(values.ctypes.data + place + np.uint64(_AHEAD * outputs * held))
                passed(at, values.ctypes.data + place, scale, lanes, given_at + np.uint64(b * BYTES), total, kind)
            for r in range(len(tables)):
                listed = rows_of.ctypes.data + np.uint64(ends[r] * 4)
                gather_add(
                    base + np.uint64(r * BYTES), zero, given_at, listed, ends[r + 1] - ends[r], zero, zero, 0, 0,
                    np.float32(0.0),
                )  # fmt: skip
            d = 0
            while d < count:
                several = tiles.ROWS if count - d >= tiles.ROWS else 1
                scalars = numbers.ctypes.data + np.uint64(d * 4)
                tiles.added(
                    several, 1, scalars, 4, count * 4, given_at, BYTES, batch, more + np.uint64(d * BYTES), BYTES,
                    np.float32(0.0),
                )  # fmt: skip
                d += several
            for j in range(LANES):
                for d in range(count):
                    weight_gradient[columns * width + d, block * LANES + j] = own[rows + d, j]
                bias_gradient[block * LANES + j] = own[rows + count, j]
            for c in range(columns):
                first, size = base + np.uint64(begins[c] * BYTES), begins[c + 1] - begins[c]
                if usual[c] >= 0:  # what all rows of the batch sent back, less what the unusual ones did
                    all_rows = more + np.uint64(count * BYTES)
                    combine(base + np.uint64(usual[c] * BYTES), all_rows, minus, 0, first, BYTES, size)
                for w in range(width):
                    to = weight_gradient.ctypes.data + np.uint64(((c * width + w) * outputs + block * LANES) * 4)
                    scalars = tables.ctypes.data + np.uint64((begins[c] * width + w) * 4)
                    if w % 4 == 0 and w + 4 <= width:
                        for k in range(4):
                            clear(to + np.uint64(k * outputs * 4), 1)
                        combine_four(to, to, outputs * 4, scalars, width * 4, 4, first, BYTES, size)
                    elif w >= width - width % 4:
                        combine(to, zero, scalars, width * 4, first, BYTES, size)
            for j in range(LANES):
                for v in range(across):
                    turned[group, j * across + v] = weight[v, block * LANES + j]
            for c in range(columns):
                own_sent = sent + np.uint64(c * width * 4)
                r = begins[c]
                while r < begins[c + 1]:
                    several = 4 if r + 4 <= begins[c + 1] else 1
                    seen = counts[r] > 0 or (several == 4 and counts[r + 1] + counts[r + 2] + counts[r + 3] > 0)
                    row = base + np.uint64(r * BYTES)
                    for v in range(0, wide * 4 if seen else 0, BYTES):
                        to, other = table_part + np.uint64(r * wide * 4 + v), own_sent + np.uint64(v)
                        if several == 4:
                            combine_four(to, to, wide * 4, row, 4, BYTES, other, across * 4, LANES)
                        else:
                            combine(to, to, row, 4, other, across * 4, LANES)
                    r += several
    for r in prange(len(tables)):
        for w in range(width):
            total = np.float32(0.0)
            for group in range(GROUPS):
                total += parts[group, r, w]
            table_gradient[r, w] = total
