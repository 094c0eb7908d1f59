"""Each intrinsic in the smallest kernel there is, on whole numbers, whose sums are exact in any order."""

import math

import numpy as np
import pytest
import torch
from numba import njit

from polyrank.nn.kernels import products
from polyrank.nn.kernels import tiles as t
from polyrank.nn.kernels.llvm import LANES

FLOAT = pytest.param(
    False, id="float32", marks=pytest.mark.skipif(not products.able(half=False), reason="needs vectors of 512 bits")
)
HALF = pytest.param(
    True, id="bf16", marks=pytest.mark.skipif(not products.able(half=True), reason="needs AVX512-BF16, and no AMX")
)


@njit
def activated(rows, vectors, left, left_row, left_step, right, right_step, count, bias, out, out_row):
    t.activated(
        rows, vectors, left.ctypes.data, left_row, left_step, right.ctypes.data, right_step, count, bias.ctypes.data,
        out.ctypes.data, out_row, out.dtype.type(0),
    )  # fmt: skip


@njit
def written(rows, vectors, left, left_row, left_step, right, right_step, count, out, out_row):
    t.written(
        rows, vectors, left.ctypes.data, left_row, left_step, right.ctypes.data, right_step, count, out.ctypes.data,
        out_row, out.dtype.type(0),
    )  # fmt: skip


@njit
def added(rows, vectors, left, left_row, left_step, right, right_step, count, out, out_row):
    t.added(
        rows, vectors, left.ctypes.data, left_row, left_step, right.ctypes.data, right_step, count, out.ctypes.data,
        out_row, left.dtype.type(0),
    )  # fmt: skip


@njit
def cut(gradient, values, scale, out, totals):
    t.cut(
        gradient.ctypes.data, values.ctypes.data, scale, len(gradient) // LANES, out.ctypes.data, totals.ctypes.data,
        out.dtype.type(0),
    )  # fmt: skip


@njit
def interleaved(first, second, present, vectors, out):
    t.interleaved(first.ctypes.data, second.ctypes.data, present, vectors, out.ctypes.data)


@njit
def paired(first, second, width, vectors, out):
    t.paired(first.ctypes.data, second.ctypes.data, width, vectors, out.ctypes.data)


@njit
def transposed(rows, row_apart, width, out, out_apart):
    t.transposed(rows.ctypes.data, row_apart, width, out.ctypes.data, out_apart, out.dtype.type(0))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def whole(rng, *shape):
    return rng.integers(-3, 4, shape).astype(np.float32)


def as_held(values, half):
    values = np.array(values, np.float32, order="C")
    return torch.tensor(values).bfloat16().view(torch.uint16).numpy() if half else values


def wide(held):
    return torch.tensor(held).view(torch.bfloat16).float().numpy() if held.dtype == np.uint16 else held


def operands(rng, half, rows, vectors, count, turned):
    """What a tile multiplies, amid what is not a number; and the exact product.

    Left's rows stand side by side as they are in a layer, or its numbers of one k do as they do on the way back.
    """
    pairs, width = 2 if half else 1, vectors * LANES
    left, right = whole(rng, rows, count, pairs), whole(rng, count, width, pairs)
    exact = left.reshape(rows, -1).astype(np.float64) @ right.transpose(0, 2, 1).reshape(-1, width)
    spread = np.full((count + 2, rows + 3, pairs) if turned else (rows + 2, count + 3, pairs), math.nan, np.float32)
    spread[1:-1, 1:-2] = left.transpose(1, 0, 2) if turned else left
    around = np.full((count + 2, width + 5, pairs), math.nan, np.float32)
    around[1:-1, 2:-3] = right
    spread, around = as_held(spread, half), as_held(around, half)
    apart, step = 4 * spread.shape[1], 4
    apart, step = (step, apart) if turned else (apart, step)
    return (spread[1:, 1:], apart, step, around[1:, 2:], 4 * around.shape[1], count), exact


CASES = [
    pytest.mark.parametrize("half", [FLOAT, HALF]),
    pytest.mark.parametrize("rows", [1, t.ROWS]),
    pytest.mark.parametrize("vectors", range(1, t.VECTORS + 1)),
    pytest.mark.parametrize(("count", "turned"), [(0, False), (1, False), (7, False), (7, True), (64, False)]),
]


def every_tile(test):
    for case in CASES:
        test = case(test)
    return test


@every_tile
def test_written(rng, half, rows, vectors, count, turned):
    where, exact = operands(rng, half, rows, vectors, count, turned)
    out = as_held(np.full((rows + 2, vectors * LANES + 7), math.nan), half)
    written(rows, vectors, *where, out[1:, 3:], out.strides[0])
    np.testing.assert_array_equal(out[1:-1, 3:-4], as_held(exact, half))
    assert np.isfinite(wide(out)).sum() == exact.size  # its neighbours are as they were


@every_tile
def test_added(rng, half, rows, vectors, count, turned):
    where, exact = operands(rng, half, rows, vectors, count, turned)
    out = np.full((rows + 2, vectors * LANES + 7), math.nan, np.float32)
    start = whole(rng, *exact.shape)
    out[1:-1, 3:-4] = start
    added(rows, vectors, *where, out[1:, 3:], out.strides[0])
    np.testing.assert_array_equal(out[1:-1, 3:-4], start + exact)
    assert np.isfinite(out).sum() == exact.size


@every_tile
def test_activated(rng, half, rows, vectors, count, turned):
    where, exact = operands(rng, half, rows, vectors, count, turned)
    out, bias = as_held(np.full((rows + 2, vectors * LANES + 7), math.nan), half), whole(rng, vectors * LANES) * 5
    activated(rows, vectors, *where, bias, out[1:, 3:], out.strides[0])
    np.testing.assert_array_equal(wide(out)[1:-1, 3:-4], wide(as_held(np.maximum(exact + bias, 0), half)))
    assert np.isfinite(wide(out)).sum() == exact.size


@pytest.mark.parametrize("half", [FLOAT, HALF])
def test_sums_are_float32(half):
    """4096 and a hundred times a thousandth of it: bf16 would lose every one."""
    count = 51
    left, right = np.ones((1, 2 * count), np.float32), np.full((2 * count, LANES), 4.0, np.float32)
    right[0] = 4096.0
    out = np.zeros((1, LANES), np.float32)
    steps = as_held(left, half), as_held(right.reshape(count, 2, LANES).transpose(0, 2, 1) if half else right, half)
    added(1, 1, steps[0], 0, 4, steps[1], 64, count if half else 2 * count, out, 0)
    assert out.tolist() == [[4096.0 + 4.0 * 101] * LANES]


@pytest.mark.parametrize("half", [FLOAT, HALF])
@pytest.mark.parametrize("vectors", [0, 1, 3])
def test_cut(rng, half, vectors):
    width = vectors * LANES
    gradient, values = (as_held(rng.normal(size=width), half) for _ in range(2))
    totals, out = whole(rng, width), as_held(np.full(width + 1, math.nan), half)
    expected = np.where(wide(values) > 0, wide(gradient) * np.float32(1.3), np.float32(0))
    sums = totals + expected
    cut(gradient, values, np.float32(1.3), out, totals)
    np.testing.assert_array_equal(wide(out)[:-1], wide(as_held(expected, half)))
    np.testing.assert_array_equal(totals, sums)
    assert np.isnan(wide(out)[-1])


@pytest.mark.parametrize("half", [FLOAT, HALF])
def test_cut_passes_what_torchs_relu_does(half):
    values = as_held([math.nan, math.inf, -math.inf, 0.0, -0.0, 2.0**-126, -1.0, 1.0] * 2, half)
    gradient = as_held([1.0, 2.0, math.nan, math.nan, math.inf, 3.0, 4.0, math.nan] * 2, half)
    out, totals = as_held(np.full(LANES, 9.0), half), np.zeros(LANES, np.float32)
    cut(gradient, values, np.float32(2), out, totals)
    expected = [2.0, 4.0, 0.0, 0.0, 0.0, 6.0, 0.0, math.nan] * 2
    np.testing.assert_array_equal(wide(out), expected)
    np.testing.assert_array_equal(totals, expected)


@pytest.mark.parametrize("present", [0, 1])
@pytest.mark.parametrize("vectors", [0, 1, 3])
def test_interleaved(present, vectors):
    width = vectors * LANES
    first, second = np.arange(1, width + 1, dtype=np.uint16), np.arange(50_001, 50_001 + width, dtype=np.uint16)
    out = np.full((width + 1, 2), 7, np.uint16)
    interleaved(first, second, present, vectors, out)
    np.testing.assert_array_equal(out[:width, 0], first)
    np.testing.assert_array_equal(out[:width, 1], second if present else np.zeros_like(second))
    assert out[width].tolist() == [7, 7]


@pytest.mark.parametrize("missing", [0, 1, 15])
@pytest.mark.parametrize("vectors", [1, 3])
def test_paired(rng, missing, vectors):
    width = vectors * LANES - missing
    first, second = (np.append(rng.normal(size=width), [math.nan] * 16).astype(np.float32) for _ in range(2))
    out = np.full((vectors * LANES + 1, 2), 7, np.uint16)
    paired(first, second, width, vectors, out)
    expected = np.stack([as_held(row[:width], half=True) for row in (first, second)], axis=1)
    np.testing.assert_array_equal(out[:width], expected)
    assert not out[width:-1].any()
    assert out[-1].tolist() == [7, 7]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("width", [1, 7, 15, 16, 40])
def test_transposed(rng, half, width):
    rows = np.full((LANES, 50), math.nan, np.float32)
    used = min(width, LANES)
    rows[:, 1 : 1 + width] = rng.normal(size=(LANES, width))
    pairs = 2 if half else 1
    out = as_held(np.full((LANES // pairs + 1, LANES + 2, pairs), math.nan), half)
    transposed(rows[:, 1:], rows.strides[0], width, out[:, 1:], out.strides[0])
    expected = np.zeros((LANES, LANES), np.float32)
    expected[:used] = rows[:, 1 : 1 + used].T
    found = wide(out)[:-1, 1:-1].transpose(0, 2, 1).reshape(LANES, LANES)
    np.testing.assert_array_equal(found, wide(as_held(expected, half)))
    assert np.isfinite(wide(out)).sum() == expected.size
