"""Passes over blocks of outputs, two vectors side by side: the inner loops of `polyrank.nn.kernels.narrow`.

A block of a row in bf16 is one line of the cache, and what is asked of a row (where it stands, how many times it is
summed) is asked once for both vectors. `vectors` is 2, or 1 for a last block of sixteen outputs; blocks stand as far
apart. Addresses, strides and `kind` as in `polyrank.nn.kernels.vectors`.
"""

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
    OFFSET,
    VECTOR,
    ZERO,
    apart,
    ask,
    element,
    first_lanes,
    integer,
    load,
    loop,
    multiply_add,
    splat,
    store,
)

BLOCK = 2 * LANES
STEP = 2  # places that are taken at a time: each addition has to wait for the one before it in the same sum
AHEAD = 12  # rows asked for before they are needed: they stand too far apart for the processor to guess


@intrinsic
def gather_add(
    typing: Any, vectors: Any, out: Any, start: Any, rows: Any, places: Any, count: Any, scalars: Any, more: Any,
    more_count: Any, rectified: Any, kind: Any,
) -> Any:  # fmt: skip
    """out ← act(start + Σ_i rows[places[i]] + Σ_j scalars[j] · more[j]), act is max(·, 0) on the first outputs.

    `start`, `rows`, `scalars` and `more` (blocks, one after another) are addresses of float32, `places` of `count` (a
    multiple of STEP) int32 distances from `rows` in bytes, `out` of activations; `rectified` is how many pass a ReLU.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, out, start, rows, places, count, scalars, more, more_count, rectified, _ = arguments

        def run(many: int) -> None:
            def multiply(begin: Any, lanes: int) -> Any:
                def step(index: Any, sums: list[Any]) -> list[Any]:
                    for lane in range(lanes):
                        at = builder.add(begin, builder.add(index, integer(lane)))
                        factor = splat(builder, element(builder, scalars, at, FLOAT), VECTOR)
                        row = _block(builder, builder.add(more, builder.mul(at, integer(2 * BYTES))), many)
                        for v, part in enumerate(row, start=lane * many):
                            sums[v] = multiply_add(builder, factor, part, sums[v])
                    return sums

                return step

            def read(at: Any) -> list[Any]:
                return _block(builder, builder.add(rows, at), many)

            sums = [*_block(builder, start, many), *[ZERO] * (many * (STEP - 1))]
            sums = loop(builder, count, sums, _adding(builder, places, read, many), STEP)
            even = builder.and_(more_count, integer(-STEP))
            sums = loop(builder, even, sums, multiply(integer(0), STEP), STEP)
            sums = loop(builder, builder.sub(more_count, even), sums, multiply(even, 1))
            for v, total in enumerate(_added(builder, sums[:many], sums[many:])):
                first = first_lanes(builder, builder.sub(rectified, integer(v * LANES)))
                cut = builder.and_(first, builder.fcmp_ordered("<=", total, ZERO))
                at = builder.add(out, integer(v * apart(half)))
                store(builder, builder.select(cut, ZERO, total), at, half=half)

        _in_size(builder, vectors, run)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, u, u, u, u, i, u, u, i, i, kind), body


@intrinsic
def gather(typing: Any, vectors: Any, out: Any, rows: Any, places: Any, count: Any, kind: Any) -> Any:
    """out ← Σ_i rows[places[i]], float32, of rows held in `kind`; places as in `gather_add`."""
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, out, rows, places, count, _ = arguments

        def run(many: int) -> None:
            def read(at: Any) -> list[Any]:
                return _read(builder, builder.add(rows, at), many, half=half)

            sums = loop(builder, count, [ZERO] * (many * STEP), _adding(builder, places, read, many), STEP)
            _write(builder, _added(builder, sums[:many], sums[many:]), out, half=half)

        _in_size(builder, vectors, run)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, u, u, u, i, kind), body


@intrinsic
def multiples(
    typing: Any, vectors: Any, several: Any, scalars: Any, scalar_apart: Any, rows: Any, count: Any, out: Any,
    out_apart: Any, kind: Any,
) -> Any:  # fmt: skip
    """out[k] ← Σ_{i < count} scalars[i][k] · rows[i], float32, for k below `several`, 4 or 1.

    `rows` are blocks held in `kind`, one after another; `scalar_apart` is by how many bytes the scalars of one row and
    of the next stand apart, `out_apart` one `out` and the next.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, several, scalars, scalar_apart, rows, count, out, out_apart, _ = arguments

        def run(many: int, factors: int) -> None:
            def step(index: Any, sums: list[Any]) -> list[Any]:
                place = builder.add(rows, builder.mul(index, integer(2 * apart(half))))
                row = _read(builder, place, many, half=half)
                at = builder.add(scalars, builder.mul(index, scalar_apart))
                each = [splat(builder, element(builder, at, integer(k), FLOAT), VECTOR) for k in range(factors)]
                return [multiply_add(builder, each[n // many], row[n % many], total) for n, total in enumerate(sums)]

            sums = loop(builder, count, [ZERO] * (many * factors), step)
            for k in range(factors):
                to = builder.add(out, builder.mul(out_apart, integer(k)))
                _write(builder, sums[k * many : (k + 1) * many], to, half=half)

        with builder.if_else(builder.icmp_signed("==", several, integer(4))) as (four, one):
            with four:
                _in_size(builder, vectors, lambda many: run(many, 4))
            with one:
                _in_size(builder, vectors, lambda many: run(many, 1))
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, i, u, i, u, i, u, i, kind), body


@intrinsic
def cut_rows(
    typing: Any, vectors: Any, gradient: Any, values: Any, row_apart: Any, rows: Any, scale: Any, rectified: Any,
    kept: Any, out: Any, total: Any, kind: Any,
) -> Any:  # fmt: skip
    """out ← gradient · scale where `values` > 0 in the first `rectified` outputs, 0 elsewhere in them, row after row.

    And total ← the sum over the `rows`, float32; and gradient ← out, if `kept`. Blocks of gradient and values stand
    `row_apart` bytes apart, those of out one after another; all three are held in `kind`.
    """
    half = kind == types.uint16

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, gradient, values, row_apart, rows, scale, rectified, kept, out, total, _ = arguments
        factor, keeping = splat(builder, scale, VECTOR), builder.icmp_signed("!=", kept, integer(0))
        first = [first_lanes(builder, builder.sub(rectified, integer(v * LANES))) for v in range(2)]

        def run(many: int) -> None:
            def step(index: Any, sums: list[Any]) -> list[Any]:
                shift = builder.mul(index, row_apart)
                ahead = builder.add(shift, builder.mul(row_apart, integer(AHEAD)))
                for address in (gradient, values):
                    ask(builder, builder.add(address, ahead))
                at = builder.add(gradient, shift)
                given = _block(builder, at, many, half=half)
                passed = []
                for v, value in enumerate(_block(builder, builder.add(values, shift), many, half=half)):
                    stopped = builder.fcmp_ordered("<=", value, ZERO)
                    scaled = builder.select(stopped, ZERO, builder.fmul(given[v], factor))
                    passed.append(builder.select(first[v], scaled, given[v]))
                _hold(builder, passed, builder.add(out, builder.mul(index, integer(2 * apart(half)))), half=half)
                with builder.if_then(keeping):
                    _hold(builder, passed, at, half=half)
                return _added(builder, sums, passed)

            _hold(builder, loop(builder, rows, [ZERO] * many, step), total, half=False)

        _in_size(builder, vectors, run)
        return context.get_dummy_value()

    u, i = types.uintp, types.intp
    return types.void(i, u, u, i, i, types.float32, i, i, u, u, kind), body


def _in_size(builder: Any, vectors: Any, run: Callable[[int], None]) -> None:
    """What `run` builds for two vectors, or for one."""
    with builder.if_else(builder.icmp_signed("==", vectors, integer(2))) as (two, one):
        with two:
            run(2)
        with one:
            run(1)


def _adding(builder: Any, places: Any, read: Callable[[Any], list[Any]], many: int) -> Any:
    """A step of a loop over places, which adds STEP rows to as many sums of `many` vectors each."""

    def step(index: Any, sums: list[Any]) -> list[Any]:
        found = []
        for lane in range(STEP):
            at = element(builder, places, builder.add(index, integer(lane)), OFFSET)
            found += _added(builder, sums[lane * many : (lane + 1) * many], read(builder.zext(at, INT)))
        return found

    return step


def _block(builder: Any, address: Any, many: int, *, half: bool = False) -> list[Any]:
    """A block's vectors, in order."""
    return [load(builder, builder.add(address, integer(v * apart(half))), half=half) for v in range(many)]


def _hold(builder: Any, block: list[Any], address: Any, *, half: bool) -> None:
    """Store a block's vectors, in order."""
    for v, part in enumerate(block):
        store(builder, part, builder.add(address, integer(v * apart(half))), half=half)


def _read(builder: Any, address: Any, many: int, *, half: bool) -> list[Any]:
    """A block's vectors for `_write`: two of bf16 as the even outputs and the odd ones, which takes one load."""
    if not half or many == 1:
        return _block(builder, address, many, half=half)
    both = builder.load(builder.inttoptr(address, LANE.as_pointer()))
    both.align = 2
    even = builder.shl(both, ir.Constant(LANE, [16] * LANES))
    odd = builder.and_(both, ir.Constant(LANE, [0xFFFF0000] * LANES))
    return [builder.bitcast(part, VECTOR) for part in (even, odd)]


def _write(builder: Any, block: list[Any], address: Any, *, half: bool) -> None:
    """To an address, in order and as float32, what `_read` gave, or sums of it."""
    if half and len(block) == 2:
        order = [lane // 2 + lane % 2 * LANES for lane in range(2 * LANES)]
        block = [builder.shuffle_vector(*block, ir.Constant(LANE, part)) for part in (order[:LANES], order[LANES:])]
    _hold(builder, block, address, half=False)


def _added(builder: Any, left: list[Any], right: list[Any]) -> list[Any]:
    return [builder.fadd(one, other) for one, other in zip(left, right, strict=True)]
