"""In-place passes over activations: bias and ReLU, dropout, and both backward with the bias' gradient, one pass each.

G groups, B rows, N columns of which the first H are activations. The others are left as they are. Activations are
float32, or bf16 held as uint16.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.vectors import number, rounded

CHUNK = 64  # rows whose part of a bias' gradient is summed together: fixed, so that threads do not change the sum


@njit(parallel=True, cache=True, nogil=True)
def rectify(values: Any, bias: Any) -> None:
    """values ← max(values + bias, 0); `values [G, B, N]`, `bias [G, H]` float32."""
    groups, rows, _ = values.shape
    width, kind = bias.shape[1], values.dtype.type(0)
    for at in prange(groups * rows):
        group = at // rows
        row, shift = values[group, at % rows], bias[group]
        for h in range(width):
            value = number(row[h]) + shift[h]
            passed = np.float32(0.0) if value <= np.float32(0.0) else value  # noqa: FURB136  # NaN stays NaN
            row[h] = rounded(passed, kind)


@njit(parallel=True, cache=True, nogil=True)
def drop(values: Any, bits: Any, dropped: int, scale: Any) -> None:
    """values ← 0 where bits < dropped − 2¹⁵, else values · scale; `values [G, B, N]`, `bits [G, B, H]` int16."""
    groups, rows, width = bits.shape
    limit, kind = dropped - 32_768, values.dtype.type(0)
    for at in prange(groups * rows):
        row, drawn = values[at // rows, at % rows], bits[at // rows, at % rows]
        for h in range(width):
            row[h] = rounded(number(row[h]) * scale if drawn[h] >= limit else np.float32(0.0), kind)


@njit(parallel=True, cache=True, nogil=True)
def rectify_back(gradient: Any, values: Any, scale: Any, partial: Any) -> None:
    """gradient ← gradient · scale where `values` passed the ReLU (and dropout), else 0.

    Args:
        gradient: `[G, B, N]`, changed.
        values: `[G, B, N']` the activations.
        scale: what dropout multiplied with, 1 without.
        partial: `[⌈B / CHUNK⌉, G, H]` float32, written: sums of the gradient over chunks of rows.
    """
    groups, rows = gradient.shape[0], gradient.shape[1]
    chunks, width, kind = partial.shape[0], partial.shape[2], gradient.dtype.type(0)
    for at in prange(groups * chunks):
        group, chunk = at // chunks, at % chunks
        total = partial[chunk, group]
        for h in range(width):
            total[h] = np.float32(0.0)
        for b in range(chunk * CHUNK, min(rows, (chunk + 1) * CHUNK)):
            given, value = gradient[group, b], values[group, b]
            for h in range(width):
                passed = np.float32(0.0) if number(value[h]) <= np.float32(0.0) else number(given[h]) * scale
                given[h] = rounded(passed, kind)
                total[h] += passed
