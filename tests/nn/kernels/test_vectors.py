"""Each intrinsic in the smallest kernel there is, against numpy in float64."""

import numpy as np
import pytest
import torch
from numba import njit

from polyrank.nn.kernels import vectors as v

LANES = v.LANES


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


def test_addresses_need_not_be_aligned(rng):
    memory = floats(rng, 3 * LANES + 1)
    out, row = memory[1 : LANES + 1], memory[LANES + 3 : 2 * LANES + 3]
    expected = out + row
    add_multiple(out, row, np.float32(1.0))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("distance", [0, 1, 2**40])
def test_prefetch_may_ask_for_anything(distance):
    assert prefetch(np.array([7.0], np.float32), distance) == 7.0


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100_000])
def test_room_begins_with_a_line_of_the_cache(size):
    found = v.room(size)
    assert (found.dtype, found.shape) == (np.uint8, (size,))
    assert found.ctypes.data % 64 == 0
    found[:] = 7
    assert (found == 7).all()
