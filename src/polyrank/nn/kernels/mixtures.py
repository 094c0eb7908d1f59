"""Loops of gates: softmax of a few logits, weighted sums of rows that lie anywhere, and dot products with four of them.

Sums stay in registers. Addresses and `kind` as in `polyrank.nn.kernels.vectors`; a list of rows is the address of
their addresses.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from polyrank.nn.kernels.llvm import (
    BYTES,
    FLOAT,
    INT,
    LANE,
    LANES,
    VECTOR,
    ZERO,
    apart,
    exchanged,
    integer,
    load,
    load_first,
    loop,
    multiply_add,
    shuffled,
    splat,
    store,
    store_first,
)

FOUR = 4  # rows of a dot product, and vectors of a weighted sum, at a time
_LOWEST = math.log(2.0**-126)
# Of eˣ = 1 + x + x² · (…), |x| ≤ ln 2 / 2, the highest power first; and ln 2 in two parts: S. L. Moshier, Cephes, expf.
_POWERS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LN_2 = (0.693359375, -2.12194440e-4)
_ROUNDING = 1.5 * 2.0**23  # added to a small number, it leaves the nearest integer in the lowest bits


@intrinsic
def softmax(typing: Any, logits: Any, count: Any, out: Any) -> Any:
    """out ← eˣ / Σ eˣ, x = logits − their maximum, of `count` float32; where one is not a number, nothing is."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        logits, count, out = arguments
        lowest = _all(-math.inf)

        def read(index: Any) -> Any:
            at = builder.add(logits, builder.mul(index, integer(4)))
            return load_first(builder, at, builder.sub(count, index), lowest)

        def higher(one: Any, other: Any) -> Any:  # of a number and NaN the number: NaN is in the sum below
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        def power(index: Any) -> Any:
            return _exponential(builder, builder.fsub(read(index), highest))

        def divide(index: Any, nothing: list[Any]) -> list[Any]:  # powers anew: cheaper than through memory
            at = builder.add(out, builder.mul(index, integer(4)))
            store_first(builder, builder.fdiv(power(index), total), at, builder.sub(count, index))
            return []

        (highest,) = loop(builder, count, [lowest], lambda index, best: [higher(read(index), best[0])], LANES)
        highest = _across(builder, highest, higher)
        (total,) = loop(builder, count, [ZERO], lambda index, sums: [builder.fadd(sums[0], power(index))], LANES)
        total = _across(builder, total, builder.fadd)
        loop(builder, count, [], divide, LANES)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.uintp), body


@intrinsic
def softmax_back(typing: Any, weights: Any, slopes: Any, count: Any, out: Any) -> Any:
    """out ← weights · (slopes − Σ weights · slopes): the logits' gradient from the weights', of `count` float32."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights, slopes, count, out = arguments

        def read(array: Any, index: Any) -> Any:
            return load_first(builder, builder.add(array, builder.mul(index, integer(4))), builder.sub(count, index))

        def add(index: Any, sums: list[Any]) -> list[Any]:
            return [multiply_add(builder, read(weights, index), read(slopes, index), sums[0])]

        def write(index: Any, nothing: list[Any]) -> list[Any]:
            found = builder.fmul(read(weights, index), builder.fsub(read(slopes, index), mean))
            at = builder.add(out, builder.mul(index, integer(4)))
            store_first(builder, found, at, builder.sub(count, index))
            return []

        (mean,) = loop(builder, count, [ZERO], add, LANES)
        mean = _across(builder, mean, builder.fadd)
        loop(builder, count, [], write, LANES)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp, types.uintp), body


@intrinsic
def weighted(typing: Any, rows: Any, weights: Any, count: Any, vectors: Any, out: Any, kind: Any) -> Any:
    """out ← Σ_{k < count} weights[k] · rows[k], `vectors` · 16 numbers held in `kind` as the rows; weights float32."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, weights, count, vectors, out, _ = arguments
        _weighted(builder, rows, weights, None, count, vectors, out, half=kind == types.uint16)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, i, u, kind), body


@intrinsic
def weighted_masked(
    typing: Any, rows: Any, weights: Any, masks: Any, count: Any, vectors: Any, out: Any, kind: Any
) -> Any:  # fmt: skip
    """out ← Σ_{k < count} weights[k] · masks[k] ⊙ rows[k]; masks are rows of float32, the others as of `weighted`."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, weights, masks, count, vectors, out, _ = arguments
        _weighted(builder, rows, weights, masks, count, vectors, out, half=kind == types.uint16)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, u, i, i, u, kind), body


@intrinsic
def four_dots(typing: Any, row: Any, others: Any, vectors: Any, out: Any, kind: Any) -> Any:
    """out[k] ← row · others[k] for k = 0 … 3, `vectors` · 16 numbers held in `kind` each; out float32."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, others, vectors, out, _ = arguments
        starts = [_entry(builder, others, integer(k)) for k in range(FOUR)]

        def step(index: Any, sums: list[Any]) -> list[Any]:
            shift = builder.mul(index, integer(apart(half)))
            own = load(builder, builder.add(row, shift), half=half)
            read = [load(builder, builder.add(start, shift), half=half) for start in starts]
            return [multiply_add(builder, own, other, total) for other, total in zip(read, sums, strict=True)]

        sums = loop(builder, vectors, [ZERO] * FOUR, step)
        for distance in (1, 2):  # half as many vectors, whose lanes are each several rows' in turn
            halves = zip(sums[::2], sums[1::2], strict=True)
            sums = [builder.fadd(*exchanged(builder, one, other, distance)) for one, other in halves]
        (total,) = sums
        for distance in (4, 8):
            total = builder.fadd(total, _crossed(builder, total, distance))
        first = shuffled(builder, total, total, list(range(FOUR)))
        builder.store(first, builder.inttoptr(out, first.type.as_pointer())).align = 4
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, u, kind), body


def _weighted(
    builder: Any, rows: Any, weights: Any, masks: Any, count: Any, vectors: Any, out: Any, *, half: bool
) -> None:  # fmt: skip
    """Four vectors at a time, and what is left by one."""

    def block(first: Any, wide: int) -> list[Any]:
        places = [builder.add(first, integer(v)) for v in range(wide)]
        shifts = [builder.mul(place, integer(apart(half))) for place in places]

        def step(k: Any, sums: list[Any]) -> list[Any]:
            at = builder.inttoptr(builder.add(weights, builder.mul(k, integer(4))), FLOAT.as_pointer())
            weight, row = splat(builder, builder.load(at), VECTOR), _entry(builder, rows, k)
            factors = [weight] * wide
            if masks is not None:
                mask = _entry(builder, masks, k)
                given = [load(builder, builder.add(mask, builder.mul(p, integer(BYTES)))) for p in places]
                factors = [builder.fmul(weight, each) for each in given]
            read = [load(builder, builder.add(row, shift), half=half) for shift in shifts]
            return [multiply_add(builder, *each) for each in zip(factors, read, sums, strict=True)]

        for shift, total in zip(shifts, loop(builder, count, [ZERO] * wide, step), strict=True):
            store(builder, total, builder.add(out, shift), half=half)
        return []

    whole = builder.and_(vectors, integer(-FOUR))
    loop(builder, whole, [], lambda first, _: block(first, FOUR), FOUR)
    loop(builder, builder.sub(vectors, whole), [], lambda more, _: block(builder.add(whole, more), 1))


def _exponential(builder: Any, x: Any) -> Any:
    """eˣ for x ≤ 0, within 3·10⁻⁷ of itself, and 0 below 2⁻¹²⁶: eˣ = 2ⁿ eʳ, n = ⌊x / ln 2⌉, r = x − n ln 2."""
    below = builder.fcmp_ordered("<", x, _all(_LOWEST))
    x = builder.select(below, _all(_LOWEST), x)
    counted = multiply_add(builder, x, _all(1 / math.log(2)), _all(_ROUNDING))
    n = builder.fsub(counted, _all(_ROUNDING))
    for part in _LN_2:
        x = multiply_add(builder, n, _all(-part), x)
    series = _all(_POWERS[0])
    for power in _POWERS[1:]:
        series = multiply_add(builder, series, x, _all(power))
    series = multiply_add(builder, series, builder.fmul(x, x), builder.fadd(x, _all(1.0)))
    exponent = builder.shl(builder.bitcast(counted, LANE), ir.Constant(LANE, [23] * LANES))
    scale = builder.bitcast(builder.add(exponent, ir.Constant(LANE, [127 << 23] * LANES)), VECTOR)
    return builder.select(below, ZERO, builder.fmul(series, scale))


def _across(builder: Any, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
    """All lanes joined, in every lane: always in the same order."""
    for distance in (8, 4, 2, 1):
        vector = join(vector, _crossed(builder, vector, distance))
    return vector


def _crossed(builder: Any, vector: Any, distance: int) -> Any:
    """Each lane's partner, which is as far away."""
    return shuffled(builder, vector, vector, [lane ^ distance for lane in range(LANES)])


def _entry(builder: Any, addresses: Any, index: Any) -> Any:
    at = builder.add(addresses, builder.mul(index, integer(8)))
    return builder.load(builder.inttoptr(at, INT.as_pointer()))


def _all(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * LANES)
