"""Gates over experts: softmax, weighted sum, and both backward, without stacking or copying the experts.

B rows, E experts, I gates, L logits in all, H expert width (a multiple of 16). An expert is given by the address of
its output of row 0 and by how many bytes apart its rows are: it may be a part of a larger product. What goes in and out
is float32, or all of it bf16 held as uint16.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.kernels.vectors import add_multiple, add_product, clear, dot, hold

_CHUNK = 32


@njit(parallel=True, cache=True, nogil=True)
def mix(experts: Any, strides: Any, logits: Any, starts: Any, members: Any, weights: Any, out: Any) -> None:
    """Gate i's mixture: out[i, b] = Σ_l weights[b, l] · expert members[l] of row b, over its own part of the logits.

    Args:
        experts: `[E]` uint64 addresses.
        strides: `[E]` int64 bytes.
        logits: `[B, L]` float32, gate after gate.
        starts: `[I + 1]` int64: where each gate's logits begin.
        members: `[L]` int64: the expert of each logit.
        weights: `[B, L]` float32, written: the softmax of each gate's logits.
        out: `[I, B, H]`, written.
    """
    gates, rows, width = out.shape
    vectors, kind, size = width // LANES, out.dtype.type(0), np.uint64(out.itemsize)
    for chunk in prange((rows + _CHUNK - 1) // _CHUNK):
        mixture = np.empty(width, np.float32)
        total_at = mixture.ctypes.data
        for b in range(chunk * _CHUNK, min(rows, (chunk + 1) * _CHUNK)):
            for i in range(gates):
                highest = logits[b, starts[i]]
                for k in range(starts[i] + 1, starts[i + 1]):
                    highest = max(highest, logits[b, k])
                total = np.float32(0.0)
                for k in range(starts[i], starts[i + 1]):
                    weights[b, k] = np.exp(logits[b, k] - highest)
                    total += weights[b, k]
                clear(total_at, vectors)
                for k in range(starts[i], starts[i + 1]):
                    weights[b, k] /= total
                    expert = experts[members[k]] + np.uint64(b * strides[members[k]])
                    add_multiple(total_at, expert, weights[b, k], vectors, kind)
                hold(out.ctypes.data + np.uint64((i * rows + b) * width) * size, total_at, vectors, kind)


@njit(parallel=True, cache=True, nogil=True)
def mix_back(
    experts: Any, strides: Any, weights: Any, starts: Any, members: Any, masks: Any, gradient: Any, to: Any,
    to_strides: Any, logit_gradient: Any,
) -> None:  # fmt: skip
    """Gradients of `mix`.

    Args:
        experts: and `strides`, `weights`, `starts`, `members` as in `mix`.
        masks: `[L, H]` float32: the share of each unit's gradient that a logit's expert is given; `[0, 0]`: all of it.
        gradient: `[I, B, H]` with respect to the mixtures.
        to: `[E]` uint64 addresses, written: the gradients with respect to the experts; 0 for one that no gate sees.
        to_strides: `[E]` int64 bytes.
        logit_gradient: `[B, L]` float32, written.
    """
    gates, rows, width = gradient.shape
    vectors, kind, size = width // LANES, gradient.dtype.type(0), np.uint64(gradient.itemsize)
    for chunk in prange((rows + _CHUNK - 1) // _CHUNK):
        totals = np.empty((len(to), width), np.float32)
        totals_at = totals.ctypes.data
        for b in range(chunk * _CHUNK, min(rows, (chunk + 1) * _CHUNK)):
            clear(totals_at, len(to) * vectors)
            for i in range(gates):
                given = gradient.ctypes.data + np.uint64((i * rows + b) * width) * size
                mean = np.float32(0.0)
                for k in range(starts[i], starts[i + 1]):
                    expert = experts[members[k]] + np.uint64(b * strides[members[k]])
                    slope = dot(given, expert, vectors, kind, kind)
                    logit_gradient[b, k] = slope
                    mean += weights[b, k] * slope
                    at = totals_at + np.uint64(members[k] * width * 4)
                    if len(masks):
                        mask = masks.ctypes.data + np.uint64(k * width * 4)
                        add_product(at, given, weights[b, k], mask, vectors, kind)
                    else:
                        add_multiple(at, given, weights[b, k], vectors, kind)
                for k in range(starts[i], starts[i + 1]):
                    logit_gradient[b, k] = weights[b, k] * (logit_gradient[b, k] - mean)
            for e in range(len(to)):
                at = totals_at + np.uint64(e * width * 4)
                hold(to[e] + np.uint64(b * to_strides[e]), at, vectors, kind)
