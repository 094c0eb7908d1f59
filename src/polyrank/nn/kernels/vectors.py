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

LANES = 16
BYTES = 4 * LANES
STEP = 8  # places that `gather_add` and `scatter_add` take at a time

_FLOAT, _INT, _HALF = ir.FloatType(), ir.IntType(64), ir.IntType(16)
_OFFSET = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_LANE = ir.VectorType(_OFFSET, LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)
_HALVES = ir.VectorType(_HALF, LANES)


@intrinsic
def number(typing: Any, held: Any) -> Any:
    """The float32 that a float32, or a bf16 held as uint16, stands for."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _widened(builder, arguments[0], _FLOAT, _OFFSET) if held == types.uint16 else arguments[0]

    return types.float32(held), body


@intrinsic
def rounded(typing: Any, value: Any, kind: Any) -> Any:
    """A float32 as it is held in `kind`: itself, or the nearest bf16 (to even), as uint16."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _narrowed(builder, arguments[0], _FLOAT, _OFFSET, _HALF) if kind == types.uint16 else arguments[0]

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
                at = _element(builder, places, builder.add(index, _int(lane)), _OFFSET)
                row = _load(builder, builder.add(rows, builder.zext(at, _INT)))
                sums[lane % 4] = builder.fadd(sums[lane % 4], row)
            return sums

        sums = _loop(builder, count, [_load(builder, start), _ZERO, _ZERO, _ZERO], step, STEP)
        total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
        total = _combination(builder, total, scalars, _int(4), more, _int(BYTES), more_count)
        cut = builder.and_(_first_lanes(builder, rectified), builder.fcmp_ordered("<=", total, _ZERO))
        _store(builder, builder.select(cut, _ZERO, total), out, half=half)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, u, u, i, u, u, i, i, kind), body


@intrinsic
def passed(typing: Any, gradient: Any, values: Any, scale: Any, rectified: Any, total: Any, kind: Any) -> Any:
    """gradient ← gradient · scale where `values` > 0 in the first `rectified` lanes, 0 elsewhere in them.

    And total ← total + gradient, which is float32; gradient and values are held in `kind`.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gradient, values, scale, rectified, total, _ = arguments
        given = _load(builder, gradient, half=half)
        first = _first_lanes(builder, rectified)
        cut = builder.fcmp_ordered("<=", _load(builder, values, half=half), _ZERO)
        scaled = builder.select(cut, _ZERO, builder.fmul(given, _splat(builder, scale, _VECTOR)))
        result = builder.select(first, scaled, given)
        _store(builder, result, gradient, half=half)
        _store(builder, builder.fadd(_load(builder, total), result), total)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.float32, types.intp, types.uintp, kind), body


@intrinsic
def scatter_add(
    typing: Any, rows: Any, places: Any, count: Any, value: Any, scalars: Any, more: Any, more_count: Any, kind: Any
) -> Any:
    """rows[places[i]] ← rows[places[i]] + value for every i, and more[j] ← more[j] + scalars[j] · value for every j.

    Addresses as in `gather_add`; `value` is held in `kind`.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, places, count, value, scalars, more, more_count, _ = arguments
        added = _load(builder, value, half=half)

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            for lane in range(STEP):
                place = _element(builder, places, builder.add(index, _int(lane)), _OFFSET)
                at = builder.add(rows, builder.zext(place, _INT))
                _store(builder, builder.fadd(_load(builder, at), added), at)
            return []

        def scaled(index: Any, nothing: list[Any]) -> list[Any]:
            at = builder.add(more, builder.mul(index, _int(BYTES)))
            factor = _splat(builder, _element(builder, scalars, index, _FLOAT), _VECTOR)
            _store(builder, _multiply_add(builder, factor, added, _load(builder, at)), at)
            return []

        _loop(builder, count, [], step, STEP)
        _loop(builder, more_count, [], scaled)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, u, u, u, i, kind), body


@intrinsic
def combine(
    typing: Any, out: Any, start: Any, scalars: Any, scalar_stride: Any, rows: Any, row_stride: Any, count: Any
) -> Any:
    """out ← start + Σ_{i < count} scalars[i] · rows[i]; both strides in bytes."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, scalars, scalar_stride, rows, row_stride, count = arguments
        first = _load(builder, start)
        _store(builder, _combination(builder, first, scalars, scalar_stride, rows, row_stride, count), out)
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
        places = [builder.mul(_int(k), apart) for k in range(4)]

        def step(index: Any, sums: list[Any]) -> list[Any]:
            row = _load(builder, builder.add(rows, builder.mul(index, row_stride)))
            at = builder.add(scalars, builder.mul(index, scalar_stride))
            each = [builder.add(at, builder.mul(_int(k), scalar_apart)) for k in range(4)]
            factors = [_splat(builder, builder.load(builder.inttoptr(a, _FLOAT.as_pointer())), _VECTOR) for a in each]
            return [_multiply_add(builder, factor, row, total) for factor, total in zip(factors, sums, strict=True)]

        first = [_load(builder, builder.add(start, place)) for place in places]
        for place, total in zip(places, _loop(builder, count, first, step), strict=True):
            _store(builder, total, builder.add(out, place))
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, u, i, i, u, i, i), body


@intrinsic
def add_multiple(typing: Any, out: Any, rows: Any, scalar: Any, vectors: Any, kind: Any) -> Any:
    """out ← out + scalar · row, both of `vectors` × 16 numbers; out is float32, the row is held in `kind`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, row, scalar, vectors, _ = arguments
        factor = _splat(builder, scalar, _VECTOR)

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            at = builder.add(out, builder.mul(index, _int(BYTES)))
            added = _load(builder, builder.add(row, builder.mul(index, _int(_apart(half)))), half=half)
            _store(builder, _multiply_add(builder, factor, added, _load(builder, at)), at)
            return []

        _loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.float32, types.intp, kind), body


@intrinsic
def add_product(typing: Any, out: Any, rows: Any, scalar: Any, factors: Any, vectors: Any, kind: Any) -> Any:
    """out ← out + scalar · factors ⊙ row, `vectors` × 16 numbers; the row is held in `kind`, the others float32."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, row, scalar, factors, vectors, _ = arguments
        scale = _splat(builder, scalar, _VECTOR)

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            shift = builder.mul(index, _int(BYTES))
            at = builder.add(out, shift)
            added = _load(builder, builder.add(row, builder.mul(index, _int(_apart(half)))), half=half)
            factor = builder.fmul(scale, _load(builder, builder.add(factors, shift)))
            _store(builder, _multiply_add(builder, factor, added, _load(builder, at)), at)
            return []

        _loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.float32, types.uintp, types.intp, kind), body


@intrinsic
def hold(typing: Any, out: Any, row: Any, vectors: Any, kind: Any) -> Any:
    """out ← row, both of `vectors` × 16 numbers; the row is float32, out is held in `kind`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, row, vectors, _ = arguments

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            value = _load(builder, builder.add(row, builder.mul(index, _int(BYTES))))
            _store(builder, value, builder.add(out, builder.mul(index, _int(_apart(half)))), half=half)
            return []

        _loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp, kind), body


@intrinsic
def clear(typing: Any, out: Any, vectors: Any) -> Any:
    """out ← 0, `vectors` × 16 numbers."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, vectors = arguments

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            _store(builder, _ZERO, builder.add(out, builder.mul(index, _int(BYTES))))
            return []

        _loop(builder, vectors, [], step)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp), body


@intrinsic
def dot(typing: Any, left: Any, right: Any, vectors: Any, kind: Any) -> Any:
    """Σ left · right over `vectors` × 16 numbers, both held in `kind`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, vectors, _ = arguments

        def step(index: Any, sums: list[Any]) -> list[Any]:
            shift = builder.mul(index, _int(_apart(half)))
            a, b = (_load(builder, builder.add(row, shift), half=half) for row in (left, right))
            return [_multiply_add(builder, a, b, sums[0])]

        (total,) = _loop(builder, vectors, [_ZERO], step)
        lanes = LANES
        while lanes > 1:  # halves upon halves: always the same order
            lanes //= 2
            upper = ir.Constant(_LANE, [lane + lanes if lane < lanes else 0 for lane in range(LANES)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, upper))
        return builder.extract_element(total, ir.Constant(_OFFSET, 0))

    return types.float32(types.uintp, types.uintp, types.intp, kind), body


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which may be anything."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _OFFSET, _OFFSET, _OFFSET])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, near, data = ir.Constant(_OFFSET, 0), ir.Constant(_OFFSET, 3), ir.Constant(_OFFSET, 1)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, near, data])
        return context.get_dummy_value()

    return types.void(types.uintp), body


def _int(value: int) -> Any:
    return ir.Constant(_INT, value)


def _combination(
    builder: Any, start: Any, scalars: Any, scalar_stride: Any, rows: Any, row_stride: Any, count: Any
) -> Any:
    """start + Σ_i scalars[i] · rows[i]."""

    def step(index: Any, sums: list[Any]) -> list[Any]:
        at = builder.add(scalars, builder.mul(index, scalar_stride))
        factor = _splat(builder, builder.load(builder.inttoptr(at, _FLOAT.as_pointer())), _VECTOR)
        row = _load(builder, builder.add(rows, builder.mul(index, row_stride)))
        return [_multiply_add(builder, factor, row, sums[0])]

    return _loop(builder, count, [start], step)[0]


def _element(builder: Any, array: Any, index: Any, kind: Any) -> Any:
    at = builder.add(array, builder.mul(index, _int(4)))
    return builder.load(builder.inttoptr(at, kind.as_pointer()))


def _apart(half: bool) -> int:
    """How many bytes a vector of activations takes."""
    return BYTES // 2 if half else BYTES


def _load(builder: Any, address: Any, *, half: bool = False) -> Any:
    loaded = builder.load(builder.inttoptr(address, (_HALVES if half else _VECTOR).as_pointer()))
    loaded.align = 2 if half else 4
    return _widened(builder, loaded, _VECTOR, _LANE) if half else loaded


def _store(builder: Any, vector: Any, address: Any, *, half: bool = False) -> None:
    held = _narrowed(builder, vector, _VECTOR, _LANE, _HALVES) if half else vector
    builder.store(held, builder.inttoptr(address, held.type.as_pointer())).align = 2 if half else 4


def _widened(builder: Any, held: Any, kind: Any, bits: Any) -> Any:
    """bf16 → float32: the lower sixteen bits are 0."""
    return builder.bitcast(builder.shl(builder.zext(held, bits), _all(bits, 16)), kind)


def _narrowed(builder: Any, value: Any, kind: Any, bits: Any, held: Any) -> Any:
    """float32 → the nearest bf16, to even where two are as near; what is not a number stays so."""
    whole = builder.bitcast(value, bits)
    odd = builder.and_(builder.lshr(whole, _all(bits, 16)), _all(bits, 1))
    up = builder.lshr(builder.add(whole, builder.add(odd, _all(bits, 0x7FFF))), _all(bits, 16))
    strange = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(strange, _all(bits, 0x7FC0), up), held)


def _all(bits: Any, value: int) -> Any:
    return ir.Constant(bits, [value] * LANES if isinstance(bits, ir.VectorType) else value)


def _splat(builder: Any, scalar: Any, kind: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_OFFSET, 0))
    return builder.shuffle_vector(single, single, ir.Constant(_LANE, [0] * LANES))


def _first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the lanes below `count`."""
    limit = _splat(builder, builder.trunc(count, _OFFSET), _LANE)
    return builder.icmp_signed("<", ir.Constant(_LANE, list(range(LANES))), limit)


def _multiply_add(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left · right + addend, rounded once where the processor can."""
    contract = ("contract",)
    return builder.fadd(builder.fmul(left, right, flags=contract), addend, flags=contract)


def _loop(builder: Any, count: Any, sums: list[Any], step: Any, stride: int = 1) -> list[Any]:
    """`sums = step(i, sums)` for i = 0, `stride`, … below `count`; the final sums."""
    before = builder.block
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_INT)
    index.add_incoming(_int(0), before)
    carried = [builder.phi(_VECTOR) for _ in sums]
    for phi, value in zip(carried, sums, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, end)
    builder.position_at_end(body)
    results = step(index, list(carried))
    index.add_incoming(builder.add(index, _int(stride)), builder.block)
    for phi, value in zip(carried, results, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(end)
    return carried
