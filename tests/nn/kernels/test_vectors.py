"""Each intrinsic in the smallest kernel there is, against numpy in float64."""

import math

import numpy as np
import pytest
from numba import njit

from polyrank.nn.kernels import vectors as v

BYTES, LANES, STEP = v.BYTES, v.LANES, v.STEP


@njit
def gather_add(out, start, rows, places, scalars, more, rectified):
    v.gather_add(
        out.ctypes.data, start.ctypes.data, rows.ctypes.data, places.ctypes.data, len(places), scalars.ctypes.data,
        more.ctypes.data, len(scalars), rectified,
    )  # fmt: skip


@njit
def passed(gradient, values, scale, rectified, total):
    v.passed(gradient.ctypes.data, values.ctypes.data, scale, rectified, total.ctypes.data)


@njit
def scatter_add(rows, places, value, scalars, more):
    v.scatter_add(
        rows.ctypes.data, places.ctypes.data, len(places), value.ctypes.data, scalars.ctypes.data, more.ctypes.data,
        len(scalars),
    )  # fmt: skip


@njit
def combine(out, start, scalars, scalar_stride, rows, row_stride, count):
    v.combine(
        out.ctypes.data, start.ctypes.data, scalars.ctypes.data, scalar_stride, rows.ctypes.data, row_stride, count
    )


@njit
def combine_four(out, out_stride, scalars, scalar_stride, rows):
    v.combine_four(out.ctypes.data, out_stride, scalars.ctypes.data, scalar_stride, rows.ctypes.data, len(rows))


@njit
def add_multiple(out, row, scalar):
    v.add_multiple(out.ctypes.data, row.ctypes.data, scalar, len(out) // LANES)


@njit
def clear(out, vectors):
    v.clear(out.ctypes.data, vectors)


@njit
def dot(left, left_stride, right, right_stride, count):
    return v.dot(left.ctypes.data, left_stride, right.ctypes.data, right_stride, count)


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
    passed(gradient, values, np.float32(1.5), rectified, total)
    np.testing.assert_array_equal(gradient, expected)
    np.testing.assert_array_equal(total, sums)


@pytest.mark.parametrize("count", [0, STEP, 2 * STEP])
@pytest.mark.parametrize("more", [0, 1, 5])
def test_scatter_add(rng, count, more):
    rows, value, scalars, others = (
        floats(rng, 9, LANES),
        floats(rng, LANES),
        floats(rng, more),
        floats(rng, more, LANES),
    )
    at = rng.integers(0, 9, count)  # places repeat
    expected, expected_others = rows.astype(np.float64), others + np.outer(scalars, value).astype(np.float64)
    np.add.at(expected, at, value)
    scatter_add(rows, (at * BYTES).astype(np.int32), value, scalars, others)
    close(rows, expected, 5e-6)
    close(others, expected_others)


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


@pytest.mark.parametrize("count", [0, 1, 30])
def test_combine_four(rng, count):
    scalars, rows = floats(rng, count, 6), floats(rng, count, LANES)
    out = np.full((4, LANES + 3), np.nan, np.float32)
    combine_four(out, (LANES + 3) * 4, scalars, 24, rows)
    close(out[:, :LANES], scalars[:, :4].T.astype(np.float64) @ rows, 1e-5)
    assert np.isnan(out[:, LANES:]).all()


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
    left, right = floats(rng, 5, LANES), floats(rng, 5, 3 * LANES)
    found = dot(left, BYTES, right, 3 * BYTES, count)
    assert found == pytest.approx((left[:count].astype(np.float64) * right[:count, :LANES]).sum(), rel=1e-5, abs=1e-5)


def test_dot_of_one_lane_alone():
    for lane in range(LANES):
        left = np.zeros(LANES, np.float32)
        left[lane] = 3.0
        assert dot(left, BYTES, np.arange(LANES, dtype=np.float32), BYTES, 1) == 3.0 * lane


def test_addresses_need_not_be_aligned(rng):
    memory = floats(rng, 3 * LANES + 1)
    out, row = memory[1 : LANES + 1], memory[LANES + 3 : 2 * LANES + 3]
    expected = out + row
    add_multiple(out, row, np.float32(1.0))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("distance", [0, 1, 2**40])
def test_prefetch_may_ask_for_anything(distance):
    assert prefetch(np.array([7.0], np.float32), distance) == 7.0
