"""Loops over vectors of sixteen float32, written in LLVM's own language: the inner loops of the other kernels.

What a compiler makes of the same loops in Python keeps sums in memory instead of registers, which is several times
slower. Addresses are unsigned integers, counts and strides are in bytes where they say so; nothing is checked here.

Activations may also be bf16, the upper half of a float32, held as uint16. An argument `kind`, a number of the type that
activations are held in, says which it is when a kernel is compiled; sums are float32 either way.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from polyrank.nn.kernels.llvm import (
    BYTES,
    FLOAT,
    HALF,
    INT,
    LANE,
    LANES,
    OFFSET,
    VECTOR,
    ZERO,
    apart,
    element,
    first_lanes,
    integer,
    load,
    loop,
    multiply_add,
    narrowed,
    splat,
    store,
    widened,
)

STEP = 4  # places that `gather_add` takes at a time


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
def gather_add(
    typing: Any, out: Any, start: Any, rows: Any, places: Any, count: Any, scalars: Any, more: Any, more_count: Any,
    rectified: Any, kind: Any,
) -> Any:  # fmt: skip
    """out ← act(start + Σ_i rows[places[i]] + Σ_j scalars[j] · more[j]), act is max(·, 0) on the first lanes.

    `start`, `rows`, `scalars` and `more` (vectors, one after another) are addresses of float32, `places` of `count` (a
    multiple of STEP) int32 distances from `rows` in bytes, `out` of activations; `rectified` is the number of lanes.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, rows, places, count, scalars, more, more_count, rectified, _ = arguments

        def step(index: Any, sums: list[Any]) -> list[Any]:
            for lane in range(STEP):  # four sums: each addition has to wait for the one before it in the same sum
                at = element(builder, places, builder.add(index, integer(lane)), OFFSET)
                row = load(builder, builder.add(rows, builder.zext(at, INT)))
                sums[lane % 4] = builder.fadd(sums[lane % 4], row)
            return sums

        sums = loop(builder, count, [load(builder, start), ZERO, ZERO, ZERO], step, STEP)
        total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
        total = _combination(builder, total, scalars, integer(4), more, integer(BYTES), more_count)
        cut = builder.and_(first_lanes(builder, rectified), builder.fcmp_ordered("<=", total, ZERO))
        store(builder, builder.select(cut, ZERO, total), out, half=half)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, u, u, i, u, u, i, i, kind), body


@intrinsic
def passed(
    typing: Any, gradient: Any, values: Any, scale: Any, rectified: Any, out: Any, total: Any, kind: Any
) -> Any:  # fmt: skip
    """gradient ← gradient · scale where `values` > 0 in the first `rectified` lanes, 0 elsewhere in them.

    And out ← gradient, total ← total + gradient, both float32; gradient and values are held in `kind`.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gradient, values, scale, rectified, out, total, _ = arguments
        given = load(builder, gradient, half=half)
        first = first_lanes(builder, rectified)
        cut = builder.fcmp_ordered("<=", load(builder, values, half=half), ZERO)
        scaled = builder.select(cut, ZERO, builder.fmul(given, splat(builder, scale, VECTOR)))
        result = builder.select(first, scaled, given)
        store(builder, result, gradient, half=half)
        store(builder, result, out)
        store(builder, builder.fadd(load(builder, total), result), total)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.float32, types.intp, types.uintp, types.uintp, kind), body


@intrinsic
def combine(
    typing: Any, out: Any, start: Any, scalars: Any, scalar_stride: Any, rows: Any, row_stride: Any, count: Any
) -> Any:
    """out ← start + Σ_{i < count} scalars[i] · rows[i]; both strides in bytes."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, scalars, scalar_stride, rows, row_stride, count = arguments
        first = load(builder, start)
        store(builder, _combination(builder, first, scalars, scalar_stride, rows, row_stride, count), out)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, u, i, u, i, i), body


@intrinsic
def combine_four(
    typing: Any, out: Any, start: Any, apart: Any, scalars: Any, scalar_stride: Any, scalar_apart: Any, rows: Any,
    row_stride: Any, count: Any,
) -> Any:  # fmt: skip
    """out[k] ← start[k] + Σ_{i < count} scalars[i][k] · rows[i] for k = 0 … 3.

    Strides in bytes: `apart` from one `out`, and from one `start`, to the next, `scalar_apart` from one k, and
    `scalar_stride` and `row_stride` from one i to the next.
    """

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, apart, scalars, scalar_stride, scalar_apart, rows, row_stride, count = arguments
        places = [builder.mul(integer(k), apart) for k in range(4)]

        def step(index: Any, sums: list[Any]) -> list[Any]:
            row = load(builder, builder.add(rows, builder.mul(index, row_stride)))
            at = builder.add(scalars, builder.mul(index, scalar_stride))
            each = [builder.add(at, builder.mul(integer(k), scalar_apart)) for k in range(4)]
            factors = [splat(builder, builder.load(builder.inttoptr(a, FLOAT.as_pointer())), VECTOR) for a in each]
            return [multiply_add(builder, factor, row, total) for factor, total in zip(factors, sums, strict=True)]

        first = [load(builder, builder.add(start, place)) for place in places]
        for place, total in zip(places, loop(builder, count, first, step), strict=True):
            store(builder, total, builder.add(out, place))
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, u, i, i, u, i, i), body


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
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, OFFSET, OFFSET, OFFSET])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, near, data = ir.Constant(OFFSET, 0), ir.Constant(OFFSET, 3), ir.Constant(OFFSET, 1)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, near, data])
        return context.get_dummy_value()

    return types.void(types.uintp), body


def _combination(
    builder: Any, start: Any, scalars: Any, scalar_stride: Any, rows: Any, row_stride: Any, count: Any
) -> Any:
    """start + Σ_i scalars[i] · rows[i]."""

    def step(index: Any, sums: list[Any]) -> list[Any]:
        at = builder.add(scalars, builder.mul(index, scalar_stride))
        factor = splat(builder, builder.load(builder.inttoptr(at, FLOAT.as_pointer())), VECTOR)
        row = load(builder, builder.add(rows, builder.mul(index, row_stride)))
        return [multiply_add(builder, factor, row, sums[0])]

    return loop(builder, count, [start], step)[0]
