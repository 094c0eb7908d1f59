"""Tiles of matrix products, held in registers: four rows, or one, by one to four vectors of sixteen outputs.

out[r] = Σ_k left[r, k] · right[k], where left's numbers may lie anywhere and right's rows of sixteen lie together. A
step of the sum takes four bytes of each: one float32 of either, or two neighbouring bf16 in k, whose products the
processor adds up at once (`vdpbf16ps`). Sums are float32. Addresses and strides as in `polyrank.nn.kernels.vectors`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from polyrank.nn.kernels.llvm import (
    BYTES,
    HALVES,
    INT,
    LANE,
    LANES,
    OFFSET,
    VECTOR,
    ZERO,
    apart,
    exchanged,
    halved,
    integer,
    load,
    load_first,
    loop,
    multiply_add,
    shuffled,
    splat,
    store,
)

ROWS = 4
VECTORS = 4
_MANY = (ROWS, 1)

Final = Callable[[Any, Any, int], Any]
"""(a row's sum of one vector, the address it goes to, which of the vectors it is) → what is stored."""


@intrinsic
def activated(
    typing: Any, rows: Any, vectors: Any, left: Any, left_row: Any, left_step: Any, right: Any, right_step: Any,
    count: Any, bias: Any, out: Any, out_row: Any, kind: Any,
) -> Any:  # fmt: skip
    """out[r] ← max(Σ_{k < count} left[r, k] · right[k] + bias, 0).

    Args:
        typing: numba's.
        rows: 4 or 1.
        vectors: 1 to 4: how many times sixteen outputs.
        left: address of the first row's first number.
        left_row: bytes from one row to the next.
        left_step: bytes from one k to the next.
        right: address of the first row of `vectors` · 16 numbers.
        right_step: bytes from one k to the next.
        count: of k.
        bias: address of `vectors` · 16 float32.
        out: address, of numbers held in `kind`.
        out_row: bytes from one row to the next.
        kind: a number as left and right are held.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *where, bias, out, out_row, _ = arguments

        def final(total: Any, at: Any, vector: int) -> Any:
            shifted = builder.fadd(total, load(builder, builder.add(bias, integer(vector * BYTES))))
            return builder.select(builder.fcmp_ordered("<=", shifted, ZERO), ZERO, shifted)

        _tile(builder, where, out, out_row, final, half=half, held=half)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, i, u, i, i, u, i, i, u, u, i, kind), body


@intrinsic
def written(
    typing: Any, rows: Any, vectors: Any, left: Any, left_row: Any, left_step: Any, right: Any, right_step: Any,
    count: Any, out: Any, out_row: Any, kind: Any,
) -> Any:  # fmt: skip
    """out[r] ← Σ_{k < count} left[r, k] · right[k], held in `kind`; arguments as of `activated`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *where, out, out_row, _ = arguments
        _tile(builder, where, out, out_row, lambda total, at, vector: total, half=half, held=half)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, i, u, i, i, u, i, i, u, i, kind), body


@intrinsic
def added(
    typing: Any, rows: Any, vectors: Any, left: Any, left_row: Any, left_step: Any, right: Any, right_step: Any,
    count: Any, out: Any, out_row: Any, kind: Any,
) -> Any:  # fmt: skip
    """out[r] ← out[r] + Σ_{k < count} left[r, k] · right[k], out float32; arguments as of `activated`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *where, out, out_row, _ = arguments

        def final(total: Any, at: Any, vector: int) -> Any:
            return builder.fadd(load(builder, at), total)

        _tile(builder, where, out, out_row, final, half=half, held=False)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, i, u, i, i, u, i, i, u, i, kind), body


@intrinsic
def cut(
    typing: Any, gradient: Any, values: Any, scale: Any, vectors: Any, out: Any, totals: Any, kind: Any
) -> Any:  # fmt: skip
    """out ← gradient · scale where `values` > 0, else 0, for `vectors` · 16 numbers; totals ← totals + out, float32."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gradient, values, scale, vectors, out, totals, _ = arguments
        factor = splat(builder, scale, VECTOR)

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            shift = builder.mul(index, integer(apart(half)))
            given, value = (load(builder, builder.add(a, shift), half=half) for a in (gradient, values))
            stopped = builder.fcmp_ordered("<=", value, ZERO)
            passed = builder.select(stopped, ZERO, builder.fmul(given, factor))
            store(builder, passed, builder.add(out, shift), half=half)
            at = builder.add(totals, builder.mul(index, integer(BYTES)))
            store(builder, builder.fadd(load(builder, at), passed), at)
            return []

        loop(builder, vectors, [], step)
        return context.get_dummy_value()

    u = types.uintp
    return types.void(u, u, types.float32, types.intp, u, u, kind), body


@intrinsic
def interleaved(typing: Any, first: Any, second: Any, present: Any, vectors: Any, out: Any) -> Any:
    """out[i] ← (first[i], second[i]), bf16 side by side, for `vectors` · 16 numbers; second's 0 unless `present`."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second, present, vectors, out = arguments
        mask = splat(builder, builder.trunc(builder.neg(present), OFFSET), LANE)

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            shift = builder.mul(index, integer(BYTES // 2))
            low, high = (builder.zext(_load(builder, builder.add(a, shift), HALVES), LANE) for a in (first, second))
            both = builder.or_(low, builder.and_(builder.shl(high, ir.Constant(LANE, [16] * LANES)), mask))
            at = builder.add(out, builder.mul(index, integer(BYTES)))
            _store(builder, both, at)
            return []

        loop(builder, vectors, [], step)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, i, u), body


@intrinsic
def paired(typing: Any, first: Any, second: Any, width: Any, vectors: Any, out: Any) -> Any:
    """out[i] ← (first[i], second[i]), float32 rounded to bf16 side by side, for `vectors` · 16 numbers.

    Both rows are 0 from `width` on.
    """
    side_by_side = [lane + row * LANES for lane in range(LANES) for row in range(2)]

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second, width, vectors, out = arguments

        def step(index: Any, nothing: list[Any]) -> list[Any]:
            shift, left = builder.mul(index, integer(BYTES)), builder.sub(width, builder.mul(index, integer(LANES)))
            low, high = (halved(builder, load_first(builder, builder.add(a, shift), left)) for a in (first, second))
            _store(builder, shuffled(builder, low, high, side_by_side), builder.add(out, shift))
            return []

        loop(builder, vectors, [], step)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, u, i, i, u), body


@intrinsic
def transposed(typing: Any, rows: Any, row_apart: Any, width: Any, out: Any, out_apart: Any, kind: Any) -> Any:
    """out[h] ← (rows[0][h], …, rows[15][h]) for h < 16, as `kind`; in bf16 out[h / 2] holds pairs of neighbours in h.

    Of the rows, float32, only what is below `width` is read: the rest is 0.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, row_apart, width, out, out_apart, _ = arguments
        places = [builder.add(rows, builder.mul(row_apart, integer(r))) for r in range(LANES)]
        block = [load_first(builder, place, width) for place in places]
        if half:  # two rows' pairs in one vector, those of row r + 8 above those of row r
            held = [halved(builder, row) for row in block]
            both = zip(held[: LANES // 2], held[LANES // 2 :], strict=True)
            block = [builder.bitcast(shuffled(builder, *two, list(range(2 * LANES))), LANE) for two in both]
        for r, row in enumerate(_turned(builder, block)):
            _store(builder, row, builder.add(out, builder.mul(out_apart, integer(r))))
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(u, i, i, u, i, kind), body


def _turned(builder: Any, block: list[Any]) -> list[Any]:
    """N vectors of sixteen lanes, N = 8 or 16: each N × N of their lanes transposed, by halves of halves.

    Step d = 1, 2, …, N / 2 swaps bit d of a number's row with that bit of its lane.
    """
    block, distance = list(block), 1
    while distance < len(block):
        for r in range(len(block)):
            if not r & distance:
                block[r], block[r + distance] = exchanged(builder, block[r], block[r + distance], distance)
        distance *= 2
    return block


def _store(builder: Any, vector: Any, address: Any) -> None:
    builder.store(vector, builder.inttoptr(address, vector.type.as_pointer())).align = 4


def _tile(
    builder: Any, where: list[Any], out: Any, out_row: Any, final: Final, *, half: bool, held: bool
) -> None:  # fmt: skip
    """A loop for every size of a tile, of which the processor takes the one that is asked for, and stores.

    `half` says whether bf16 is read, `held` whether it is written.
    """
    rows, vectors, *rest = where
    end = builder.append_basic_block("end")
    for many in _MANY:
        for wide in range(1, VECTORS + 1):
            fits = builder.and_(
                builder.icmp_signed("==", rows, integer(many)), builder.icmp_signed("==", vectors, integer(wide))
            )
            own, other = builder.append_basic_block("tile"), builder.append_basic_block("other")
            builder.cbranch(fits, own, other)
            builder.position_at_end(own)
            for r, row in enumerate(_sums(builder, many, wide, rest, half=half)):
                for v, total in enumerate(row):
                    start = builder.add(out, builder.mul(out_row, integer(r)))
                    at = builder.add(start, integer(v * apart(held)))
                    store(builder, final(total, at, v), at, half=held)
            builder.branch(end)
            builder.position_at_end(other)
    builder.branch(end)
    builder.position_at_end(end)


def _sums(builder: Any, rows: int, vectors: int, where: list[Any], *, half: bool) -> list[list[Any]]:
    left, left_row, left_step, right, right_step, count = where
    starts = [builder.add(left, builder.mul(left_row, integer(r))) for r in range(rows)]
    before = builder.block
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INT)
    index.add_incoming(integer(0), before)
    sums = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(rows)]
    for row in sums:
        for phi in row:
            phi.add_incoming(ZERO, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, end)
    builder.position_at_end(body)
    whole = LANE if half else VECTOR
    from_right = builder.add(right, builder.mul(index, right_step))
    columns = [_load(builder, builder.add(from_right, integer(v * BYTES)), whole) for v in range(vectors)]
    for start, row in zip(starts, sums, strict=True):
        at = builder.inttoptr(builder.add(start, builder.mul(index, left_step)), whole.element.as_pointer())
        scalar = builder.load(at)
        scalar.align = 2
        factor = splat(builder, scalar, whole)
        for phi, column in zip(row, columns, strict=True):
            found = _pairs(builder, phi, factor, column) if half else multiply_add(builder, factor, column, phi)
            phi.add_incoming(found, body)
    index.add_incoming(builder.add(index, integer(1)), body)
    builder.branch(head)
    builder.position_at_end(end)
    return sums


def _pairs(builder: Any, total: Any, left: Any, right: Any) -> Any:
    """total + left · right of pairs of bf16, in each of sixteen lanes."""
    kind = ir.FunctionType(total.type, [total.type, left.type, right.type])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
    return builder.call(function, [total, left, right])


def _load(builder: Any, address: Any, kind: Any) -> Any:
    found = builder.load(builder.inttoptr(address, kind.as_pointer()))
    found.align = 2
    return found
