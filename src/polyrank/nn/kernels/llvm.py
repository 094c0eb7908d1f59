"""Words of LLVM's own language that kernels are written in: vectors of sixteen numbers, loads, stores, loops.

Activations are float32, or bf16 ("half" here), the upper half of a float32, held as uint16.
"""

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils

UNITS = binding.get_host_cpu_features()  # the processor's, by LLVM's names
LANES = 16
BYTES = 4 * LANES

FLOAT, INT, HALF, OFFSET = ir.FloatType(), ir.IntType(64), ir.IntType(16), ir.IntType(32)
VECTOR, LANE, HALVES = (ir.VectorType(kind, LANES) for kind in (FLOAT, OFFSET, HALF))
ZERO = ir.Constant(VECTOR, [0.0] * LANES)


def integer(value: int) -> Any:
    """A constant of 64 bits."""
    return ir.Constant(INT, value)


def element(builder: Any, array: Any, index: Any, kind: Any) -> Any:
    """array[index], of four bytes."""
    at = builder.add(array, builder.mul(index, integer(4)))
    return builder.load(builder.inttoptr(at, kind.as_pointer()))


def apart(half: bool) -> int:
    """How many bytes a vector of activations takes."""
    return BYTES // 2 if half else BYTES


def load(builder: Any, address: Any, *, half: bool = False) -> Any:
    """Sixteen numbers from an address, as float32."""
    loaded = builder.load(builder.inttoptr(address, (HALVES if half else VECTOR).as_pointer()))
    loaded.align = 2 if half else 4
    return widened(builder, loaded, VECTOR, LANE) if half else loaded


def load_first(builder: Any, address: Any, count: Any, beyond: Any = ZERO) -> Any:
    """Sixteen float32 of which only those below `count` are read: the others are those of `beyond`."""
    given = [VECTOR.as_pointer(), OFFSET, ir.VectorType(ir.IntType(1), LANES), VECTOR]
    kind = ir.FunctionType(VECTOR, given)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0")
    pointer = builder.inttoptr(address, VECTOR.as_pointer())
    return builder.call(function, [pointer, ir.Constant(OFFSET, 4), first_lanes(builder, count), beyond])


def store_first(builder: Any, vector: Any, address: Any, count: Any) -> None:
    """Those below `count` of sixteen float32 to an address."""
    given = [VECTOR, VECTOR.as_pointer(), OFFSET, ir.VectorType(ir.IntType(1), LANES)]
    kind = ir.FunctionType(ir.VoidType(), given)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.store.v16f32.p0")
    pointer = builder.inttoptr(address, VECTOR.as_pointer())
    builder.call(function, [vector, pointer, ir.Constant(OFFSET, 4), first_lanes(builder, count)])


def store(builder: Any, vector: Any, address: Any, *, half: bool = False) -> None:
    """Sixteen numbers to an address, as bf16 if `half`."""
    held = halved(builder, vector) if half else vector
    builder.store(held, builder.inttoptr(address, held.type.as_pointer())).align = 2 if half else 4


def halved(builder: Any, vector: Any) -> Any:
    """Sixteen float32 → the nearest bf16: by the processor's own rounding where it has one.

    That takes one instruction instead of nine; what is too small for a bf16 of full precision becomes 0.
    """
    if not UNITS.get("avx512bf16", False):
        return narrowed(builder, vector, VECTOR, LANE, HALVES)
    kind = ir.FunctionType(HALVES, [VECTOR])
    name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])


def widened(builder: Any, held: Any, kind: Any, bits: Any) -> Any:
    """bf16 → float32: the lower sixteen bits are 0."""
    return builder.bitcast(builder.shl(builder.zext(held, bits), _all(bits, 16)), kind)


def narrowed(builder: Any, value: Any, kind: Any, bits: Any, held: Any) -> Any:
    """float32 → the nearest bf16, to even where two are as near; what is not a number stays so."""
    whole = builder.bitcast(value, bits)
    odd = builder.and_(builder.lshr(whole, _all(bits, 16)), _all(bits, 1))
    up = builder.lshr(builder.add(whole, builder.add(odd, _all(bits, 0x7FFF))), _all(bits, 16))
    strange = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(strange, _all(bits, 0x7FC0), up), held)


def _all(bits: Any, value: int) -> Any:
    return ir.Constant(bits, [value] * LANES if isinstance(bits, ir.VectorType) else value)


def splat(builder: Any, scalar: Any, kind: Any) -> Any:
    """The vector of one number sixteen times."""
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(OFFSET, 0))
    return builder.shuffle_vector(single, single, ir.Constant(LANE, [0] * LANES))


def shuffled(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    """The chosen lanes of two vectors; second's come after first's."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(OFFSET, len(lanes)), lanes))


def exchanged(builder: Any, first: Any, second: Any, distance: int) -> tuple[Any, Any]:
    """first's lanes l with l & `distance` = 0, each beside second's; and their other lanes likewise.

    Of two rows of a matrix, as many apart, those are the rows after blocks of that size are transposed.
    """
    low = [lane + (LANES - distance if lane & distance else 0) for lane in range(LANES)]
    high = [lane + (LANES if lane & distance else distance) for lane in range(LANES)]
    return shuffled(builder, first, second, low), shuffled(builder, first, second, high)


def first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the lanes below `count`."""
    limit = splat(builder, builder.trunc(count, OFFSET), LANE)
    return builder.icmp_signed("<", ir.Constant(LANE, list(range(LANES))), limit)


def multiply_add(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left · right + addend, rounded once where the processor can."""
    contract = ("contract",)
    return builder.fadd(builder.fmul(left, right, flags=contract), addend, flags=contract)


def ask(builder: Any, address: Any) -> None:
    """Ask for the cache line at an address, which may be anything."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, OFFSET, OFFSET, OFFSET])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, near, data = (ir.Constant(OFFSET, value) for value in (0, 3, 1))
    builder.call(function, [builder.inttoptr(address, pointer), read, near, data])


def loop(builder: Any, count: Any, sums: list[Any], step: Any, stride: int = 1) -> list[Any]:
    """`sums = step(i, sums)` for i = 0, `stride`, … below `count`; the final sums."""
    before = builder.block
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INT)
    index.add_incoming(integer(0), before)
    carried = [builder.phi(VECTOR) for _ in sums]
    for phi, value in zip(carried, sums, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, end)
    builder.position_at_end(body)
    results = step(index, list(carried))
    index.add_incoming(builder.add(index, integer(stride)), builder.block)
    for phi, value in zip(carried, results, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(end)
    return carried
