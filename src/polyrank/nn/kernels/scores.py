"""The last layer of towers: one number from each row of each task, and backward. T tasks, B rows, H width.

H is a multiple of 16. What a tower's last hidden layer gave is float32, or bf16 held as uint16; all else float32.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.kernels.vectors import add_multiple, clear, dot, hold

CHUNK = 128  # rows whose part of the weights' gradient is summed together: fixed, whatever the number of threads
_ONE = np.float32(1.0)


@njit(parallel=True, cache=True, nogil=True)
def scores(values: Any, weight: Any, bias: Any, out: Any) -> None:
    """out[b, t] ← values[t, b] · weight[t] + bias[t].

    Args:
        values: `[T, B, H]`.
        weight: `[T, H]`.
        bias: `[T]`.
        out: `[B, T]`, written.
    """
    tasks, rows, width = values.shape
    kind, size = values.dtype.type(0), values.itemsize
    chunks = (rows + CHUNK - 1) // CHUNK
    for at in prange(tasks * chunks):
        t, begin = at // chunks, at % chunks * CHUNK
        own = weight[t].ctypes.data
        for b in range(begin, min(rows, begin + CHUNK)):
            row = values.ctypes.data + np.uint64((t * rows + b) * width * size)
            out[b, t] = bias[t] + dot(row, own, width // LANES, kind, _ONE)


@njit(parallel=True, cache=True, nogil=True)
def scores_back(values: Any, weight: Any, gradient: Any, to: Any, weight_parts: Any) -> None:
    """Gradients of `scores`.

    Args:
        values: `[T, B, H]`.
        weight: `[T, H]`.
        gradient: `[B, T]` with respect to the scores.
        to: `[T, B, H]`, written: with respect to `values`; held as they are.
        weight_parts: `[⌈B / CHUNK⌉, T, H]`, written: the weights' gradient, from each chunk of rows.
    """
    tasks, rows, width = values.shape
    vectors, kind, size = width // LANES, values.dtype.type(0), values.itemsize
    chunks = len(weight_parts)
    for at in prange(tasks * chunks):
        t, chunk = at // chunks, at % chunks
        own, sums = weight[t].ctypes.data, weight_parts[chunk, t].ctypes.data
        row = np.empty(width, np.float32)
        clear(sums, vectors)
        for b in range(chunk * CHUNK, min(rows, (chunk + 1) * CHUNK)):
            place = np.uint64((t * rows + b) * width * size)
            clear(row.ctypes.data, vectors)
            add_multiple(row.ctypes.data, own, gradient[b, t], vectors, _ONE)
            hold(to.ctypes.data + place, row.ctypes.data, vectors, kind)
            add_multiple(sums, values.ctypes.data + place, gradient[b, t], vectors, kind)
