"""The first layer over small tables: the tables are multiplied with the weights, not the batch.

B rows, C id columns with a small table each, W embedding width, R rows of these tables together, D numbers, N outputs.

x W for x = [e_1(i_1), …, e_C(i_C), numbers] is Σ_c e_c(i_c) W_c + numbers · W_n. Where tables are small, P_c = e_c W_c
(a product of R rows instead of B) leaves a sum of C rows of P for each row of the batch: one addition where the product
has W multiplications. Backward likewise: the outputs' gradients are summed by table row first and multiplied after.

Most columns have a usual value (0 clicks, not in the universe, nothing given). Its row of P is taken into account once
for the whole batch, and only the rows of the batch that differ add the difference: what is usual costs nothing.

Outputs are worked on in blocks of thirty-two: all R rows of such a block stay in a core's own cache, from the product
with the weights to the last row of the batch. Neighbouring blocks are dealt out to GROUPS groups, whatever the number
of threads, and sums run in a fixed order: the result does not depend on the number of threads.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels import tiles
from polyrank.nn.kernels.blocks import AHEAD, BLOCK, STEP, cut_rows, gather, gather_add, multiples
from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.kernels.vectors import number, prefetch, room

GROUPS = 16
_BYTES = 4 * BLOCK
_NONE = np.float32(0.0)


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
        for c in range(columns):  # no branch: the processor could not guess which way it goes
            row = begins[c] + ids[b, c]
            places[b, length] = row * _BYTES
            length += row != usual[c]
        spare = 0
        while length % STEP:  # STEP spare rows follow the tables', all zero: see `gather_add`
            places[b, length] = (len(counts) + spare) * _BYTES
            spare += 1
            length += 1
        lengths[b] = length


@njit(parallel=True, cache=True, nogil=True)
def project(
    tables: Any, begins: Any, weight: Any, bias: Any, counts: Any, usual: Any, places: Any, lengths: Any, numbers: Any,
    added: bool, out: Any,
) -> None:  # fmt: skip
    """out ← act(x W + bias), or act(out + x W + bias); act is max(·, 0) on those outputs that have a bias.

    Args:
        tables: `[R, W]` float32: the small tables, one after another.
        begins: `[C + 1]` int64: where each begins.
        weight: `[≥ C·W + D, N]` float32.
        bias: `[≤ N]` float32, of the first outputs.
        counts: and `usual`, `places`, `lengths` as `survey` gives them.
        usual: the columns' usual rows.
        places: where in a block the rows' unusual values stand.
        lengths: how many these are.
        numbers: `[B, D]` float32.
        added: whether to add to what `out` holds.
        out: `[B, ≥ N, a multiple of 16]` float32, or bf16 held as uint16; changed.
    """
    width, outputs, padded = tables.shape[1], weight.shape[1], out.shape[1]
    kind, size = out.dtype.type(0), out.itemsize
    batch, listed = places.shape
    columns, count, rectified = len(usual), numbers.shape[1], len(bias)
    rows, blocks, across = begins[columns], (padded + BLOCK - 1) // BLOCK, columns * width
    # The usual rows side by side, and by how much the others differ from them.
    common, others = np.zeros(across, np.float32), np.empty((rows, width), np.float32)
    for c in range(columns):
        if usual[c] >= 0:
            common[c * width : (c + 1) * width] = tables[usual[c]]
        for r in range(begins[c], begins[c + 1]):
            for w in range(width):
                others[r, w] = tables[r, w] - common[c * width + w]
    deep = rows + STEP + count + 2
    scratch = room(GROUPS * deep * _BYTES).view(np.float32).reshape(GROUPS, deep, BLOCK)
    tail = np.zeros((across, BLOCK), np.float32)  # weights of the last block, where that is no whole vectors
    for group in prange(GROUPS):
        own = scratch[group]
        base = own.ctypes.data
        shift, more = base + np.uint64((rows + STEP) * _BYTES), base + np.uint64((rows + STEP + 2) * _BYTES)
        for block in range(group * blocks // GROUPS, (group + 1) * blocks // GROUPS):
            first = block * BLOCK
            vectors, end = min(2, (padded - first) // LANES), min(outputs, first + BLOCK)
            own[rows:, :] = np.float32(0.0)
            for d in range(count):
                own[rows + STEP + 2 + d, : end - first] = weight[across + d, first:end]
            for j in range(first, min(end, rectified)):
                own[rows + STEP, j - first] = bias[j]
            corner, apart = weight.ctypes.data + np.uint64(first * 4), outputs * 4
            if (end - first) % LANES:
                tail[:, : end - first] = weight[:across, first:end]
                corner, apart = tail.ctypes.data, _BYTES
            tiles.added(1, vectors, common.ctypes.data, 0, 4, corner, apart, across, shift, 0, _NONE)
            for c in range(columns):
                right = corner + np.uint64(c * width * apart)
                r = begins[c]
                while r < begins[c + 1]:
                    several = tiles.ROWS if r + tiles.ROWS <= begins[c + 1] else 1
                    if _seen(counts, r, several):
                        left, to = others.ctypes.data + np.uint64(r * width * 4), base + np.uint64(r * _BYTES)
                        tiles.written(several, vectors, left, width * 4, 4, right, apart, width, to, _BYTES, _NONE)
                    r += several
            lanes, begin = min(max(rectified - first, 0), BLOCK), shift
            for b in range(batch):
                to = out.ctypes.data + np.uint64((b * padded + first) * size)
                prefetch(to + np.uint64(AHEAD * padded * size))
                if added:
                    begin = shift + np.uint64(_BYTES)
                    for j in range(end - first):
                        own[rows + STEP + 1, j] = number(out[b, first + j]) + own[rows + STEP, j]
                at = places.ctypes.data + np.uint64(b * listed * 4)
                scalars = numbers.ctypes.data + np.uint64(b * count * 4)
                gather_add(vectors, to, begin, base, at, lengths[b], scalars, more, count, lanes, kind)


@njit(cache=True, nogil=True, inline="always")
def _seen(counts: Any, row: int, several: int) -> bool:
    """Whether the batch has any of `several` rows of the tables."""
    total = 0
    for k in range(several):
        total += counts[row + k]
    return total > 0


@njit(cache=True, nogil=True)
def _rows_of(begins: Any, counts: Any, usual: Any, places: Any, lengths: Any, size: int) -> Any:
    """For each table row the rows of the batch that have it as an unusual value, each times `size`, and where each list
    ends and the next begins: whole STEPs, filled up with the row after the batch's last.
    """  # noqa: D205
    rows, batch = begins[-1], len(places)
    ends = np.empty(rows + 1, np.int64)
    ends[0] = 0
    for c in range(len(usual)):
        for r in range(begins[c], begins[c + 1]):
            ends[r + 1] = ends[r] + (0 if r == usual[c] else (counts[r] + STEP - 1) // STEP * STEP)
    found, at = np.full(ends[rows], batch * size, np.int32), ends[:rows].copy()
    for b in range(batch):
        for k in range(lengths[b]):
            r = places[b, k] // _BYTES
            if r < rows:
                found[at[r]] = b * size
                at[r] += 1
    return found, ends


@njit(parallel=True, cache=True, nogil=True)
def project_back(
    tables: Any, begins: Any, weight: Any, counts: Any, usual: Any, places: Any, lengths: Any, numbers: Any, scale: Any,
    values: Any, gradient: Any, kept: bool, bias_gradient: Any, weight_gradient: Any, table_gradient: Any,
) -> None:  # fmt: skip
    """Gradients of `project` with respect to bias, weight and tables.

    Args:
        tables: and `begins`, `counts`, `usual`, `places`, `lengths`, `numbers` as in `project`.
        weight: `[≥ C·W + D, N]` float32.
        scale: what dropout multiplied the rectified outputs with, 1 without.
        values: `[B, ≥ N]` what `project` gave, after dropout.
        gradient: with respect to it, and held as it is.
        kept: whether `gradient` is changed into that with respect to what the activation was given.
        bias_gradient: `[≤ N]` float32, written.
        weight_gradient: `[≥ C·W + D, N]` float32, its first C·W + D rows written.
        table_gradient: `[R, W]` float32, written.
    """
    width, outputs, padded = tables.shape[1], weight.shape[1], gradient.shape[1]
    batch, rows, columns, count = len(places), len(tables), len(usual), numbers.shape[1]
    across, blocks, rectified = columns * width, (padded + BLOCK - 1) // BLOCK, len(bias_gradient)
    wide = (width + LANES - 1) // LANES * LANES
    kind, held = gradient.dtype.type(0), gradient.itemsize
    rows_of, ends = _rows_of(begins, counts, usual, places, lengths, BLOCK * held)
    parts = room(GROUPS * rows * wide * 4).view(np.float32).reshape(GROUPS, rows, wide)
    scratch = room(GROUPS * (rows + 2) * _BYTES).view(np.float32).reshape(GROUPS, rows + 2, BLOCK)
    minus = np.full(1, -1.0, np.float32)
    tail = np.empty((across + count, BLOCK), np.float32)  # of the last block, where that is no whole vectors
    for group in prange(GROUPS):
        own, base = scratch[group], scratch[group].ctypes.data
        rest, total = base + np.uint64(rows * _BYTES), base + np.uint64((rows + 1) * _BYTES)
        parts[group, :, :] = np.float32(0.0)
        # A block of the weight transposed, with room to read beyond; one of the gradient, and zeros.
        turned, given = room((BLOCK * across + wide) * 4).view(np.float32), room((batch + 1) * BLOCK * held)
        turned[BLOCK * across :] = np.float32(0.0)
        given[batch * BLOCK * held :] = 0
        for block in range(group * blocks // GROUPS, (group + 1) * blocks // GROUPS):
            first = block * BLOCK
            vectors, end = min(2, (padded - first) // LANES), min(outputs, first + BLOCK)
            place = np.uint64(first * held)
            cut_rows(
                vectors, gradient.ctypes.data + place, values.ctypes.data + place, padded * held, batch, scale,
                min(max(rectified - first, 0), BLOCK), kept, given.ctypes.data, total, kind,
            )  # fmt: skip
            for j in range(first, min(end, rectified)):
                bias_gradient[j] = own[rows + 1, j - first]
            for r in range(rows):
                listed = rows_of.ctypes.data + np.uint64(ends[r] * 4)
                gather(vectors, base + np.uint64(r * _BYTES), given.ctypes.data, listed, ends[r + 1] - ends[r], kind)
            whole = (end - first) % LANES == 0
            corner, apart = weight_gradient.ctypes.data + np.uint64(first * 4), outputs * 4
            if not whole:
                corner, apart = tail.ctypes.data, _BYTES
            several = 4 if count >= 4 else 1
            for begin in range(0, count, several):
                d = min(begin, count - several)  # the last four may be some of those before
                to, scalars = corner + np.uint64((across + d) * apart), numbers.ctypes.data + np.uint64(d * 4)
                multiples(vectors, several, scalars, count * 4, given.ctypes.data, batch, to, apart, kind)
            for c in range(columns):
                size = begins[c + 1] - begins[c]
                right = base + np.uint64(begins[c] * _BYTES)
                if usual[c] >= 0:  # what all rows of the batch sent back, less what the unusual ones did
                    own[rows, :] = own[rows + 1, :]
                    tiles.added(1, vectors, minus.ctypes.data, 0, 0, right, _BYTES, size, rest, 0, _NONE)
                    own[usual[c], :] = own[rows, :]
                w = 0
                while w < width:
                    several = tiles.ROWS if w + tiles.ROWS <= width else 1
                    left = tables.ctypes.data + np.uint64((begins[c] * width + w) * 4)
                    to = corner + np.uint64((c * width + w) * apart)
                    tiles.written(several, vectors, left, 4, width * 4, right, _BYTES, size, to, apart, _NONE)
                    w += several
            if not whole:
                weight_gradient[: across + count, first:end] = tail[:, : end - first]
            whole_rows = across // LANES * LANES
            for v in range(0, whole_rows, LANES):
                for j in range(0, end - first, LANES):
                    left = weight.ctypes.data + np.uint64((v * outputs + first + j) * 4)
                    to = turned.ctypes.data + np.uint64((j * across + v) * 4)
                    tiles.transposed(left, outputs * 4, end - first - j, to, across * 4, _NONE)
            for v in range(whole_rows, across):
                for j in range(end - first):
                    turned[j * across + v] = weight[v, first + j]
            for c in range(columns):
                r = begins[c]
                while r < begins[c + 1]:
                    several = tiles.ROWS if r + tiles.ROWS <= begins[c + 1] else 1
                    left = base + np.uint64(r * _BYTES)
                    for w in range(0, wide if _seen(counts, r, several) else 0, tiles.VECTORS * LANES):
                        right = turned.ctypes.data + np.uint64((c * width + w) * 4)
                        to = parts[group, r].ctypes.data + np.uint64(w * 4)
                        some = min(tiles.VECTORS, (wide - w) // LANES)
                        tiles.added(
                            several, some, left, _BYTES, 4, right, across * 4, end - first, to, wide * 4, _NONE
                        )  # fmt: skip
                    r += several
    for r in prange(rows):
        for w in range(width):
            table_gradient[r, w] = np.float32(0.0)
        for group in range(GROUPS):
            for w in range(width):
                table_gradient[r, w] += parts[group, r, w]
