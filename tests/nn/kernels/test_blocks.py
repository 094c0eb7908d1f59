"""Each pass over blocks in the smallest kernel there is, against numpy in float64."""

import math

import numpy as np
import pytest
import torch
from numba import njit

from polyrank.nn.kernels import blocks
from polyrank.nn.kernels.blocks import BLOCK, STEP
from polyrank.nn.kernels.llvm import LANES

BYTES = 4 * BLOCK
KINDS = [np.float32, np.uint16]


@njit
def gather_add(vectors, out, start, rows, places, scalars, more, rectified):
    blocks.gather_add(
        vectors, out.ctypes.data, start.ctypes.data, rows.ctypes.data, places.ctypes.data, len(places),
        scalars.ctypes.data, more.ctypes.data, len(scalars), rectified, out.dtype.type(0),
    )  # fmt: skip


@njit
def gather(vectors, out, rows, places):
    blocks.gather(vectors, out.ctypes.data, rows.ctypes.data, places.ctypes.data, len(places), rows.dtype.type(0))


@njit
def multiples(vectors, several, scalars, rows, out):
    blocks.multiples(
        vectors, several, scalars.ctypes.data, scalars.shape[1] * 4, rows.ctypes.data, len(rows), out.ctypes.data,
        out.shape[1] * 4, rows.dtype.type(0),
    )  # fmt: skip


@njit
def cut_rows(vectors, gradient, values, scale, rectified, kept, out, total):
    apart = gradient.shape[1] * gradient.itemsize
    blocks.cut_rows(
        vectors, gradient.ctypes.data, values.ctypes.data, apart, len(gradient), scale, rectified, kept,
        out.ctypes.data, total.ctypes.data, gradient.dtype.type(0),
    )  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def held(values, kind):
    """As activations are held: float32, or bf16 as uint16."""
    return values if kind == np.float32 else torch.tensor(values).bfloat16().view(torch.uint16).numpy()


def wide(values):
    """The float32 that they stand for."""
    return values if values.dtype == np.float32 else torch.tensor(values).view(torch.bfloat16).float().numpy()


def close(found, expected, tolerance=5e-6):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


both = pytest.mark.parametrize("vectors", [1, 2])


@both
@pytest.mark.parametrize("count", [0, STEP, 3 * STEP])
@pytest.mark.parametrize("more", [0, 1, 2, 7])
@pytest.mark.parametrize("rectified", [0, 1, 7, 16, 21, 32])
def test_gather_add(rng, vectors, count, more, rectified):
    rows, start = floats(rng, 11, BLOCK), floats(rng, BLOCK)
    at = rng.integers(0, 11, count)
    scalars, others, out = floats(rng, more), floats(rng, more, BLOCK), np.full(BLOCK, np.nan, np.float32)
    places = (at * BYTES).astype(np.int32)
    gather_add(vectors, out, start, rows, places, scalars, others, rectified)
    expected = start.astype(np.float64) + rows[at].sum(axis=0, dtype=np.float64) + scalars.astype(np.float64) @ others
    expected[:rectified] = np.maximum(expected[:rectified], 0)
    expected[vectors * LANES :] = np.nan  # untouched
    close(out, expected)
    half = np.full(BLOCK, 0x7FC0, np.uint16)
    gather_add(vectors, half, start, rows, places, scalars, others, rectified)
    np.testing.assert_array_equal(wide(half), wide(held(out, np.uint16)))


def test_gather_add_lets_not_a_number_through(rng):
    start = np.array([math.nan, -1.0, math.inf, -math.inf] * 8, np.float32)
    out, none, rows = np.zeros(BLOCK, np.float32), np.zeros(0, np.float32), floats(rng, 1, BLOCK)
    gather_add(2, out, start, rows, np.zeros(0, np.int32), none, np.zeros((0, BLOCK), np.float32), BLOCK)
    np.testing.assert_array_equal(out, [math.nan, 0.0, math.inf, 0.0] * 8)


@both
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, STEP, 5 * STEP])
def test_gather(rng, vectors, kind, count):
    rows, at, out = held(floats(rng, 9, BLOCK), kind), rng.integers(0, 9, count), np.full(BLOCK, np.nan, np.float32)
    gather(vectors, out, rows, (at * rows.itemsize * BLOCK).astype(np.int32))
    expected = wide(rows)[at].sum(axis=0, dtype=np.float64)
    expected[vectors * LANES :] = np.nan
    close(out, expected)


@both
@pytest.mark.parametrize("kind", KINDS)
def test_gather_of_one_row_gives_it_in_its_order(rng, vectors, kind):
    rows, out = held(floats(rng, 3, BLOCK), kind), np.empty(BLOCK, np.float32)
    rows[2] = 0
    gather(vectors, out, rows, np.array([rows.itemsize * BLOCK] + [2 * rows.itemsize * BLOCK] * (STEP - 1), np.int32))
    np.testing.assert_array_equal(out[: vectors * LANES], wide(rows)[1, : vectors * LANES])


@both
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("several", [1, 4])
def test_multiples(rng, vectors, kind, count, several):
    scalars, rows = floats(rng, count, 6), held(floats(rng, count, BLOCK), kind)
    out, width = np.full((5, BLOCK + 3), np.nan, np.float32), vectors * LANES
    multiples(vectors, several, scalars, rows, out)
    close(out[:several, :width], scalars[:, :several].T.astype(np.float64) @ wide(rows)[:, :width])
    assert np.isnan(out[several:]).all()
    assert np.isnan(out[:, width:]).all()


@both
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rectified", [-32, 0, 1, 9, 16, 25, 32, 64])
@pytest.mark.parametrize("kept", [False, True])
def test_cut_rows(rng, vectors, kind, rectified, kept):
    width = vectors * LANES
    gradient, values = (held(floats(rng, 5, 2 * BLOCK), kind) for _ in range(2))
    values[1, 2] = 0
    values[0, 0] = held(np.array([math.nan], np.float32), kind)[0]
    before, stopped = gradient.copy(), wide(values)[:, :width] <= 0
    expected = wide(before)[:, :width].copy()
    first = np.arange(width) < rectified
    expected[:, first] = np.where(stopped, 0, expected * np.float32(1.5))[:, first]
    out, total = np.empty((5, BLOCK), kind), np.full(BLOCK, np.nan, np.float32)
    cut_rows(vectors, gradient, values, np.float32(1.5), rectified, kept, out, total)
    np.testing.assert_array_equal(out[:, :width], held(expected, kind))
    np.testing.assert_array_equal(gradient[:, :width], out[:, :width] if kept else before[:, :width])
    np.testing.assert_array_equal(gradient[:, width:], before[:, width:])
    close(total[:width], expected.sum(axis=0, dtype=np.float64))
    assert np.isnan(total[width:]).all()
