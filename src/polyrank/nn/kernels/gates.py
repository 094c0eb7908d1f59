"""Gates over experts: softmax, weighted sum, and both backward, without stacking or copying the experts.

B rows, E experts, I gates, L logits in all, H expert width (a multiple of 16). An expert is given by the address of
its output of row 0 and by how many bytes apart its rows are: it may be a part of a larger product. What goes in and out
is float32, or all of it bf16 held as uint16.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.kernels.mixtures import FOUR, four_dots, softmax, softmax_back, weighted, weighted_masked

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
    vectors, kind, size, each = width // LANES, out.dtype.type(0), np.uint64(out.itemsize), len(members)
    for chunk in prange((rows + _CHUNK - 1) // _CHUNK):
        begin, end = chunk * _CHUNK, min(rows, (chunk + 1) * _CHUNK)
        for b in range(begin, end):  # before they are read: a vector that was just stored in part is slow to read
            for i in range(gates):
                shift = np.uint64((b * each + starts[i]) * 4)
                softmax(logits.ctypes.data + shift, starts[i + 1] - starts[i], weights.ctypes.data + shift)
        places, steps = _places(experts, strides, members, begin)
        for b in range(begin, end):
            for i in range(gates):
                own = places.ctypes.data + np.uint64(starts[i] * 8)
                shares = weights.ctypes.data + np.uint64((b * each + starts[i]) * 4)
                to = out.ctypes.data + np.uint64((i * rows + b) * width) * size
                weighted(own, shares, starts[i + 1] - starts[i], vectors, to, kind)
            for k in range(len(places)):
                places[k] += steps[k]


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
    vectors, kind, size, each = width // LANES, gradient.dtype.type(0), np.uint64(gradient.itemsize), len(members)
    begins, seen, seers = _by_expert(starts, members, len(to))
    for chunk in prange((rows + _CHUNK - 1) // _CHUNK):
        begin, end = chunk * _CHUNK, min(rows, (chunk + 1) * _CHUNK)
        places, steps = _places(experts, strides, members, begin)
        slopes = np.empty((end - begin, len(places)), np.float32)
        given, shares = np.empty(each, np.uint64), np.empty(each, np.float32)
        shown = np.empty(each if len(masks) else 0, np.uint64)
        for j in range(each):
            given[j] = gradient.ctypes.data + np.uint64((seers[j] * rows + begin) * width) * size
        for j in range(len(shown)):
            shown[j] = masks.ctypes.data + np.uint64(seen[j] * width * 4)
        for b in range(begin, end):
            for i in range(gates):
                row = gradient.ctypes.data + np.uint64((i * rows + b) * width) * size
                for k in range(starts[i], starts[i + 1], FOUR):  # those too many are the next gate's, which come later
                    found = slopes.ctypes.data + np.uint64(((b - begin) * len(places) + k) * 4)
                    four_dots(row, places.ctypes.data + np.uint64(k * 8), vectors, found, kind)
            for k in range(len(places)):
                places[k] += steps[k]
            for j in range(each):
                shares[j] = weights[b, seen[j]]
            for e in range(len(to)):
                row, count = to[e] + np.uint64(b * to_strides[e]), begins[e + 1] - begins[e]
                own = given.ctypes.data + np.uint64(begins[e] * 8)
                scales = shares.ctypes.data + np.uint64(begins[e] * 4)
                if len(masks):
                    masked = shown.ctypes.data + np.uint64(begins[e] * 8)
                    weighted_masked(own, scales, masked, count, vectors, row, kind)
                else:
                    weighted(own, scales, count, vectors, row, kind)
            for j in range(each):
                given[j] += np.uint64(width) * size
        for b in range(begin, end):
            for i in range(gates):
                found = slopes.ctypes.data + np.uint64(((b - begin) * len(places) + starts[i]) * 4)
                shift, count = np.uint64((b * each + starts[i]) * 4), starts[i + 1] - starts[i]
                softmax_back(weights.ctypes.data + shift, found, count, logit_gradient.ctypes.data + shift)


@njit(cache=True, nogil=True)
def _places(experts: Any, strides: Any, members: Any, row: int) -> Any:
    """Where the expert of each logit has a row, and how far the next one is.

    The last one's stands there more often, so that there are four from each on.
    """
    count = len(members)
    places, steps = np.empty(count + FOUR - 1, np.uint64), np.empty(count + FOUR - 1, np.uint64)
    for k in range(len(places)):
        e = members[min(k, count - 1)]
        places[k], steps[k] = experts[e] + np.uint64(row * strides[e]), np.uint64(strides[e])
    return places, steps


@njit(cache=True, nogil=True)
def _by_expert(starts: Any, members: Any, experts: int) -> Any:
    """The logits of each expert, expert after expert: where each one's begin `[E + 1]`, which `[L]`, of which gates."""
    begins = np.zeros(experts + 1, np.int64)
    seen, seers = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    for e in range(experts):
        begins[e + 1] = begins[e]
        for i in range(len(starts) - 1):
            for k in range(starts[i], starts[i + 1]):
                if members[k] == e:
                    seen[begins[e + 1]], seers[begins[e + 1]] = k, i
                    begins[e + 1] += 1
    return begins, seen, seers
