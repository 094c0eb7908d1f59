"""Each intrinsic in the smallest kernel there is, against numpy in float64."""

import math

import numpy as np
import pytest
import torch
from numba import njit

from polyrank.nn.kernels import vectors as v

BYTES, LANES, STEP = v.BYTES, v.LANES, v.STEP


@njit
def gather_add(out, start, rows, places, scalars, more, rectified):
    v.gather_add(
        out.ctypes.data, start.ctypes.data, rows.ctypes.data, places.ctypes.data, len(places), scalars.ctypes.data,
        more.ctypes.data, len(scalars), rectified, out.dtype.type(0),
    )  # fmt: skip


@njit
def passed(gradient, values, scale, rectified, out, total):
    kind = gradient.dtype.type(0)
    v.passed(gradient.ctypes.data, values.ctypes.data, scale, rectified, out.ctypes.data, total.ctypes.data, kind)


@njit
def combine(out, start, scalars, scalar_stride, rows, row_stride, count):
    v.combine(
        out.ctypes.data, start.ctypes.data, scalars.ctypes.data, scalar_stride, rows.ctypes.data, row_stride, count
    )


@njit
def combine_four(out, start, apart, scalars, scalar_stride, scalar_apart, rows, row_stride, count):
    v.combine_four(
        out.ctypes.data, start.ctypes.data, apart, scalars.ctypes.data, scalar_stride, scalar_apart, rows.ctypes.data,
        row_stride, count,
    )  # fmt: skip


@njit
def add_multiple(out, row, scalar):
    v.add_multiple(out.ctypes.data, row.ctypes.data, scalar, len(out) // LANES, row.dtype.type(0))


@njit
def hold(out, row):
    v.hold(out.ctypes.data, row.ctypes.data, len(row) // LANES, out.dtype.type(0))


@njit
def numbers(held, out):
    for i in range(len(held)):
        out[i] = v.number(held[i])


@njit
def roundings(values, out):
    for i in range(len(values)):
        out[i] = v.rounded(values[i], out.dtype.type(0))


@njit
def clear(out, vectors):
    v.clear(out.ctypes.data, vectors)


@njit
def dot(left, right):
    return v.dot(left.ctypes.data, right.ctypes.data, left.size // LANES, left.dtype.type(0), right.dtype.type(0))


@njit
def prefetch(array, distance):
    v.prefetch(array.ctypes.data + np.uint64(distance))
    return array[0]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def close(found, expected, tolerance=2e-6):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("count", [0, STEP, 3 * STEP])
@pytest.mark.parametrize("more", [0, 1, 5])
@pytest.mark.parametrize("rectified", [0, 1, 7, 16])
def test_gather_add(rng, count, more, rectified):
    rows, start = floats(rng, 11, LANES), floats(rng, LANES)
    at = rng.integers(0, 11, count)
    scalars, others, out = floats(rng, more), floats(rng, more, LANES), np.full(LANES, np.nan, np.float32)
    gather_add(out, start, rows, (at * BYTES).astype(np.int32), scalars, others, rectified)
    expected = start.astype(np.float64) + rows[at].sum(axis=0, dtype=np.float64) + scalars.astype(np.float64) @ others
    expected[:rectified] = np.maximum(expected[:rectified], 0)
    close(out, expected, 5e-6)


def test_gather_add_lets_not_a_number_through(rng):
    start = np.array([math.nan, -1.0, math.inf, -math.inf] * 4, np.float32)
    out, none = np.zeros(LANES, np.float32), np.zeros(0, np.float32)
    gather_add(out, start, floats(rng, 1, LANES), np.zeros(0, np.int32), none, np.zeros((0, LANES), np.float32), LANES)
    np.testing.assert_array_equal(out, [math.nan, 0.0, math.inf, 0.0] * 4)


@pytest.mark.parametrize("rectified", [0, 1, 9, 16])
def test_passed(rng, rectified):
    gradient, values, total = floats(rng, LANES), floats(rng, LANES), floats(rng, LANES)
    values[2] = 0.0
    values[0] = math.nan
    expected = gradient.copy()
    with np.errstate(invalid="ignore"):
        expected[:rectified] = np.where(values <= 0, 0, gradient * np.float32(1.5))[:rectified]
    sums = total + expected
    out = np.empty(LANES, np.float32)
    passed(gradient, values, np.float32(1.5), rectified, out, total)
    np.testing.assert_array_equal(gradient, expected)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(total, sums)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_combine(rng, count):
    scalars, rows, start, out = (
        floats(rng, 40, 3),
        floats(rng, 40, 2 * LANES),
        floats(rng, LANES),
        np.empty(LANES, np.float32),
    )
    combine(out, start, scalars, 12, rows, 2 * BYTES, count)  # every third number, every second vector
    close(out, start + scalars[:count, 0].astype(np.float64) @ rows[:count, :LANES], 1e-5)
    combine(start, start, scalars, 0, rows, 2 * BYTES, count)  # onto itself, the same number again and again
    assert np.isfinite(start).all()


def test_combine_with_stride_zero_repeats_a_number(rng):
    rows, start, out = floats(rng, 6, LANES), floats(rng, LANES), np.empty(LANES, np.float32)
    combine(out, start, np.array([-1.0], np.float32), 0, rows, BYTES, 6)
    close(out, start - rows.sum(axis=0, dtype=np.float64))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_combine_four(rng, count):
    scalars, rows = floats(rng, count, 6), floats(rng, count, LANES)
    start = floats(rng, 4, LANES + 3)
    out = np.full((4, LANES + 3), np.nan, np.float32)
    combine_four(out, start, (LANES + 3) * 4, scalars, 24, 4, rows, BYTES, count)
    close(out[:, :LANES], start[:, :LANES] + scalars[:, :4].T.astype(np.float64) @ rows, 1e-5)
    assert np.isnan(out[:, LANES:]).all()


def test_combine_four_onto_itself_with_factors_that_stand_in_rows(rng):
    factors, rows, out = floats(rng, 4, LANES), floats(rng, LANES, 2 * LANES), floats(rng, 4, LANES)
    expected = out + factors.astype(np.float64) @ rows[:, :LANES]
    combine_four(out, out, BYTES, factors, 4, BYTES, rows, 2 * BYTES, LANES)
    close(out, expected, 1e-5)


@pytest.mark.parametrize("vectors", [0, 1, 4])
def test_add_multiple(rng, vectors):
    out, row = floats(rng, vectors * LANES), floats(rng, vectors * LANES)
    expected = out + 0.3 * row.astype(np.float64)
    add_multiple(out, row, np.float32(0.3))
    close(out, expected)


@pytest.mark.parametrize("vectors", [0, 1, 3])
def test_clear(vectors):
    out = np.ones(4 * LANES, np.float32)
    clear(out, vectors)
    assert out.tolist() == [0.0] * (vectors * LANES) + [1.0] * ((4 - vectors) * LANES)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_dot(rng, count):
    left, right = floats(rng, count, LANES), floats(rng, count, LANES)
    assert dot(left, right) == pytest.approx((left.astype(np.float64) * right).sum(), rel=1e-5, abs=1e-5)


def test_dot_of_one_lane_alone():
    for lane in range(LANES):
        left = np.zeros(LANES, np.float32)
        left[lane] = 3.0
        assert dot(left, np.arange(LANES, dtype=np.float32)) == 3.0 * lane


def halves(values):
    """As bf16, by torch; held as uint16."""
    return torch.tensor(values).bfloat16().view(torch.uint16).numpy()


def wide(held):
    return torch.tensor(held).view(torch.bfloat16).float().numpy()


def test_bf16_is_read_and_rounded_as_torch_does(rng):
    every = np.arange(2**16, dtype=np.uint16)
    out = np.empty(len(every), np.float32)
    numbers(every, out)
    np.testing.assert_array_equal(out, wide(every))
    upper = every.astype(np.uint32) << 16
    lower = np.array([0x0, 0x1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)  # ties and their neighbours
    values = (upper[:, None] | lower).view(np.float32).ravel()
    held = np.empty(len(values), np.uint16)
    roundings(values, held)
    np.testing.assert_array_equal(wide(held), wide(halves(values)))  # what is not a number is not a number
    many = np.empty(len(values), np.uint16)
    hold(many, values)
    with np.errstate(invalid="ignore"):
        tiny = np.abs(values) < np.finfo(np.float32).tiny  # a processor's own rounding may make 0 of these
    np.testing.assert_array_equal(wide(many)[~tiny], wide(held)[~tiny])
    assert (np.abs(wide(many)[tiny]) <= np.finfo(np.float32).tiny).all()


def test_vectors_of_bf16_give_what_their_float32_would(rng):
    gradient, values, row = (halves(floats(rng, LANES)) for _ in range(3))
    assert dot(gradient, values) == dot(wide(gradient), wide(values))
    out, exact = floats(rng, LANES), np.empty(LANES, np.float32)
    exact[:] = out
    add_multiple(out, row, np.float32(0.3))
    add_multiple(exact, wide(row), np.float32(0.3))
    np.testing.assert_array_equal(out, exact)
    total, other, exact = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), wide(gradient)
    unrounded = np.empty(LANES, np.float32)
    passed(gradient, values, np.float32(1.5), 9, unrounded, total)
    passed(exact, wide(values), np.float32(1.5), 9, np.empty(LANES, np.float32), other)
    np.testing.assert_array_equal(gradient, halves(exact))
    np.testing.assert_array_equal(unrounded, exact)
    np.testing.assert_array_equal(total, other)
    places, none, no_rows = np.zeros(STEP, np.int32), np.zeros(0, np.float32), np.zeros((0, LANES), np.float32)
    rows = floats(rng, 1, LANES)
    held, exact = np.empty(LANES, np.uint16), np.empty(LANES, np.float32)
    gather_add(held, total, rows, places, none, no_rows, LANES)
    gather_add(exact, total, rows, places, none, no_rows, LANES)
    np.testing.assert_array_equal(held, halves(exact))


def test_addresses_need_not_be_aligned(rng):
    memory = floats(rng, 3 * LANES + 1)
    out, row = memory[1 : LANES + 1], memory[LANES + 3 : 2 * LANES + 3]
    expected = out + row
    add_multiple(out, row, np.float32(1.0))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("distance", [0, 1, 2**40])
def test_prefetch_may_ask_for_anything(distance):
    assert prefetch(np.array([7.0], np.float32), distance) == 7.0
