"""A layer of M networks side by side: product, bias and ReLU in one pass, and all of it backward in another.

B rows, K inputs and H outputs (both multiples of 16) of each of M networks. Rows are worked on in chunks that stay in
a core's own cache, from what is read to what is written; a gradient is cut off by its ReLU where the products read it.

Activations are given by address, and by how many bytes rows of an input stand apart: it may be a part of a larger
product. Inputs and outputs are float32, or all of them bf16 held as uint16, as `kind` is, a number of
that type; biases, weights and all gradients of parameters are float32.

For processors with vectors of 512 bits, and for bf16 with products of pairs of them (AVX512-BF16).
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.llvm import LANES, UNITS
from polyrank.nn.kernels.tiles import ROWS, VECTORS, activated, added, cut, interleaved, paired, transposed, written
from polyrank.nn.kernels.vectors import clear, room, size_of

CHUNK = 128  # rows: even, and fixed, so that the result does not depend on the number of threads
PARTS = 16  # of all rows of all networks, each with sums of its own on the way back
_ONE = np.float32(1.0)


def able(*, half: bool) -> bool:
    """Whether the processor can run these; and in bf16 has no AMX, which torch uses and these do not."""
    if half:
        return bool(UNITS.get("avx512bf16")) and not UNITS.get("amx-bf16")
    return bool(UNITS.get("avx512f"))


@njit(cache=True, nogil=True)
def packed(weight: Any, out: Any) -> None:
    """Weights as tiles read them in bf16: float32 `weight [M, K, H]` → `out [M, K / 2, N, 2]`, k in pairs.

    N ≥ H is a multiple of 16: what is beyond H is 0. Not in parallel: to start threads would take as long.
    """
    networks, steps, padded, _ = out.shape
    width = weight.shape[2]
    for at in range(networks * steps):
        first = weight.ctypes.data + np.uint64(at * 2 * width * 4)
        to = out.ctypes.data + np.uint64(at * padded * 4)
        paired(first, first + np.uint64(width * 4), width, padded // LANES, to)


@njit(cache=True, nogil=True)
def turned(weight: Any, out: Any) -> None:
    """The same for the way back: `weight [M, K, H]` float32 → `out [M, N / P, K, P]`, P neighbours in h side by side.

    P is 2 for bf16 and 1 for float32.
    """
    networks, steps, inputs, pairs = out.shape
    width, kind = weight.shape[2], out.dtype.type(0)
    for m in range(networks):
        for h in range(0, width, LANES):
            for k in range(0, inputs, LANES):
                block = weight.ctypes.data + np.uint64(((m * inputs + k) * width + h) * 4)
                to = out.ctypes.data + np.uint64(((m * steps + h // pairs) * inputs + k) * 4)
                transposed(block, width * 4, width - h, to, inputs * 4, kind)


@njit(parallel=True, cache=True, nogil=True)
def layer(rows: int, reads: Any, row_apart: int, weight: Any, bias: Any, out: Any, kind: Any) -> None:
    """out ← act(x W + bias), act is max(·, 0) on those outputs that have a bias.

    Args:
        rows: B.
        reads: `[M]` uint64: where each network's x, `[B, K]`, begins.
        row_apart: from one row of x to the next.
        weight: `[M, K, H]`.
        bias: `[M, ≤ H, a multiple of 16]`, of the first outputs.
        out: `[M, B, N]`, written, N the multiple of 16 from H on.
        kind: as what x and out are held.
    """
    size, rectified = size_of(kind), bias.shape[1]
    networks, inputs, outputs = weight.shape
    width = (outputs + LANES - 1) // LANES * LANES
    out = np.uint64(out)
    steps, chunks = inputs * size // 4, (rows + CHUNK - 1) // CHUNK
    many = networks if size == 2 else 0
    pairs = room(many * steps * width * 4).view(np.uint16).reshape(many, steps, width, 2)
    packed(weight, pairs)
    filled = np.zeros((networks if size == 4 and outputs < width else 0, inputs, width), np.float32)
    filled[:, :, :outputs] = weight[: len(filled)]
    for at in prange(networks * chunks):
        m, begin = at // chunks, at % chunks * CHUNK
        end = min(rows, begin + CHUNK)
        tiles = pairs.ctypes.data if size == 2 else filled.ctypes.data if len(filled) else weight.ctypes.data
        first = 0
        while first < width:
            vectors = min(VECTORS, ((rectified if first < rectified else width) - first) // LANES)
            right = tiles + np.uint64((m * steps * width + first) * 4)
            shift = bias.ctypes.data + np.uint64((m * rectified + first) * 4)
            b = begin
            while b < end:
                several = ROWS if end - b >= ROWS else 1
                left = reads[m] + np.uint64(b * row_apart)
                to = out + np.uint64(((m * rows + b) * width + first) * size)
                if first < rectified:
                    activated(
                        several, vectors, left, row_apart, 4, right, width * 4, steps, shift, to, width * size, kind
                    )
                else:
                    written(several, vectors, left, row_apart, 4, right, width * 4, steps, to, width * size, kind)
                b += several
            first += vectors * LANES


@njit(parallel=True, cache=True, nogil=True)
def layer_back(
    rows: int, reads: Any, row_apart: int, weight: Any, values: Any, scale: Any, gradient: Any, tos: Any,
    to_row_apart: int, weight_gradient: Any, bias_gradient: Any, kind: Any,
) -> None:  # fmt: skip
    """Gradients of `layer`, after dropout of the rectified outputs.

    Args:
        rows: and `reads`, `row_apart`, `weight`, `kind` as of `layer`.
        reads: x.
        row_apart: from one row of x to the next.
        weight: W.
        values: `[M, B, N]` what the layer gave, after dropout.
        scale: what dropout multiplied the rectified ones with, 1 without.
        gradient: `[M, B, N]` with respect to them; held as they are.
        tos: `[M]` uint64: where the gradient with respect to each network's x goes; held as x is.
        to_row_apart: from one row of it to the next.
        weight_gradient: `[M, K, H]` float32, written.
        bias_gradient: `[M, ≤ H]` float32, written, of those outputs that passed a ReLU.
        kind: as what activations are held.
    """
    size, pairs, rectified = size_of(kind), 4 // size_of(kind), bias_gradient.shape[1]
    networks, inputs, outputs = weight.shape
    width = (outputs + LANES - 1) // LANES * LANES
    values, gradient = np.uint64(values), np.uint64(gradient)
    positive = np.ones(width * size, np.uint8)  # numbers above 0: they stand in where is no ReLU
    wide, across, chunks = width // LANES, inputs // LANES, (rows + CHUNK - 1) // CHUNK
    parts = max(1, min((PARTS + networks - 1) // networks, chunks))
    sums = (
        room(networks * parts * (inputs + 1) * width * 4).view(np.float32).reshape(networks, parts, inputs + 1, width)
    )
    matrix = room(networks * width * inputs * size)
    if size == 2:
        turned(weight, matrix.view(np.uint16).reshape(networks, width // 2, inputs, 2))
    else:
        turned(weight, matrix.view(np.float32).reshape(networks, width, inputs, 1))
    for at in prange(networks * parts):
        m, part = at // parts, at % parts
        sum_at = sums[m, part].ctypes.data
        total_at = sum_at + np.uint64(inputs * width * 4)
        clear(sum_at, (inputs + 1) * wide)
        # The gradient of what the ReLU was given; and in bf16 this and x with two rows' numbers side by side.
        own = room(CHUNK * (2 * width + inputs) * size)
        for chunk in range(part * chunks // parts, (part + 1) * chunks // parts):
            cut_at = np.uint64(
                own.ctypes.data
            )  # in the loop: numba may free an array after the last place that names it
            cut_pairs_at = cut_at + np.uint64(CHUNK * width * size)
            read_pairs_at = cut_at + np.uint64(2 * CHUNK * width * size)
            begin = chunk * CHUNK
            many = min(rows, begin + CHUNK) - begin
            place = np.uint64((m * rows + begin) * width * size)
            for b in range(many):
                shift = np.uint64(b * width * size)
                given, value, out = gradient + place + shift, values + place + shift, cut_at + shift
                cut(given, value, scale, rectified // LANES, out, total_at, kind)
                if rectified < width:
                    beyond, more = np.uint64(rectified * size), wide - rectified // LANES
                    ones = positive.ctypes.data
                    cut(given + beyond, ones, _ONE, more, out + beyond, total_at + np.uint64(rectified * 4), kind)
            for first in range(0, inputs, VECTORS * LANES):
                vectors = min(VECTORS, (inputs - first) // LANES)
                right = matrix.ctypes.data + np.uint64(m * width * inputs * size + first * 4)
                b = 0
                while b < many:
                    several = ROWS if many - b >= ROWS else 1
                    left = cut_at + np.uint64(b * width * size)
                    out = tos[m] + np.uint64((begin + b) * to_row_apart + first * size)
                    written(
                        several, vectors, left, width * size, 4, right, inputs * 4, width // pairs, out, to_row_apart,
                        kind,
                    )  # fmt: skip
                    b += several
            left, left_step, right = reads[m] + np.uint64(begin * row_apart), row_apart, cut_at
            if pairs == 2:
                for b in range(0, many, 2):
                    both = 1 if b + 1 < many else 0
                    above, below = left + np.uint64(b * row_apart), cut_at + np.uint64(b * width * 2)
                    to_read, to_cut = np.uint64(b * inputs * 2), np.uint64(b * width * 2)
                    interleaved(above, above + np.uint64(both * row_apart), both, across, read_pairs_at + to_read)
                    interleaved(below, below + np.uint64(both * width * 2), both, wide, cut_pairs_at + to_cut)
                left, left_step, right = read_pairs_at, inputs * 4, cut_pairs_at
            for first in range(0, width, VECTORS * LANES):
                vectors = min(VECTORS, (width - first) // LANES)
                for k in range(0, inputs, ROWS):
                    added(
                        ROWS, vectors, left + np.uint64(k * 4), 4, left_step, right + np.uint64(first * 4), width * 4,
                        (many + pairs - 1) // pairs, sum_at + np.uint64((k * width + first) * 4), width * 4, kind,
                    )  # fmt: skip
    for at in prange(networks * (inputs + 1)):
        m, k = at // (inputs + 1), at % (inputs + 1)
        found = bias_gradient[m] if k == inputs else weight_gradient[m, k]
        found[:] = sums[m, 0, k, : len(found)]
        for part in range(1, parts):
            for h in range(len(found)):
                found[h] += sums[m, part, k, h]
