"""Loops over vectors of sixteen float32, written in LLVM's own language: the inner loops of the other kernels.

What a compiler makes of the same loops in Python keeps sums in memory instead of registers, which is several times
slower. Addresses are unsigned integers, counts and strides are in bytes where they say so; nothing is checked here.

Activations may also be bf16, the upper half of a float32, held as uint16. An argument `kind`, a number of the type that
activations are held in, says which it is when a kernel is compiled; sums are float32 either way.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from polyrank.nn.kernels.llvm import (
    BYTES,
    FLOAT,
    HALF,
    LANE,
    LANES,
    OFFSET,
    VECTOR,
    ZERO,
    apart,
    ask,
    integer,
    load,
    loop,
    multiply_add,
    narrowed,
    splat,
    store,
    widened,
)

_LINE = 64  # bytes of the cache's


@njit(cache=True, nogil=True)
def room(size: int) -> Any:
    """`size` bytes, not set, that begin with a line of the cache: a vector that lies on two takes twice as long."""
    found = np.empty(size + _LINE, np.uint8)
    first = (_LINE - found.ctypes.data % _LINE) % _LINE
    return found[first : first + size]


@intrinsic
def number(typing: Any, held: Any) -> Any:
    """The float32 that a float32, or a bf16 held as uint16, stands for."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return widened(builder, arguments[0], FLOAT, OFFSET) if held == types.uint16 else arguments[0]

    return types.float32(held), body


@intrinsic
def size_of(typing: Any, kind: Any) -> Any:
    """The bytes of a number."""
    size = kind.bitwidth // 8
    return types.intp(kind), lambda context, builder, signature, arguments: integer(size)


@intrinsic
def rounded(typing: Any, value: Any, kind: Any) -> Any:
    """A float32 as it is held in `kind`: itself, or the nearest bf16 (to even), as uint16."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return narrowed(builder, arguments[0], FLOAT, OFFSET, HALF) if kind == types.uint16 else arguments[0]

    return kind(types.float32, kind), body


@intrinsic
def add_multiple(typing: Any, out: Any, rows: Any, scalar: Any, vectors: Any, kind: Any) -> Any:
    """out ← out + scalar · row, both of `vectors` × 16 numbers; out is float32, the row is held in `kind`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, row, scalar, vectors, _ = arguments
        factor = splat(builder, scalar, VECTOR)

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            at = builder.add(out, builder.mul(index, integer(BYTES)))
            added = load(builder, builder.add(row, builder.mul(index, integer(apart(half)))), half=half)
            store(builder, multiply_add(builder, factor, added, load(builder, at)), at)
            return []

        loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.float32, types.intp, kind), body


@intrinsic
def hold(typing: Any, out: Any, row: Any, vectors: Any, kind: Any) -> Any:
    """out ← row, both of `vectors` × 16 numbers; the row is float32, out is held in `kind`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, row, vectors, _ = arguments

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            value = load(builder, builder.add(row, builder.mul(index, integer(BYTES))))
            store(builder, value, builder.add(out, builder.mul(index, integer(apart(half)))), half=half)
            return []

        loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp, kind), body


@intrinsic
def clear(typing: Any, out: Any, vectors: Any) -> Any:
    """out ← 0, `vectors` × 16 numbers."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, vectors = arguments

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            store(builder, ZERO, builder.add(out, builder.mul(index, integer(BYTES))))
            return []

        loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp), body


@intrinsic
def dot(typing: Any, left: Any, right: Any, vectors: Any, kind: Any, right_kind: Any) -> Any:
    """Σ left · right over `vectors` × 16 numbers, held in `kind` and `right_kind`."""
    halves = kind == types.uint16, right_kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, vectors, *_ = arguments

        def step(index: Any, sums: list[Any]) -> list[Any]:
            a, b = (
                load(builder, builder.add(row, builder.mul(index, integer(apart(half)))), half=half)
                for row, half in zip((left, right), halves, strict=True)
            )
            return [multiply_add(builder, a, b, sums[0])]

        (total,) = loop(builder, vectors, [ZERO], step)
        lanes = LANES
        while lanes > 1:  # halves upon halves: always the same order
            lanes //= 2
            upper = ir.Constant(LANE, [lane + lanes if lane < lanes else 0 for lane in range(LANES)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, upper))
        return builder.extract_element(total, ir.Constant(OFFSET, 0))

    return types.float32(types.uintp, types.uintp, types.intp, kind, right_kind), body


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which may be anything."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ask(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.uintp), body
