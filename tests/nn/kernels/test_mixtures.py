"""Each intrinsic in the smallest kernel there is, against numpy in float64."""

import math

import numpy as np
import pytest
import torch
from numba import njit

from polyrank.nn.kernels import mixtures as m
from polyrank.nn.kernels.llvm import LANES

COUNTS = [1, 2, 15, 16, 17, 33]


@njit
def softmax(logits, count, out):
    m.softmax(logits.ctypes.data, count, out.ctypes.data)


@njit
def softmax_back(weights, slopes, count, out):
    m.softmax_back(weights.ctypes.data, slopes.ctypes.data, count, out.ctypes.data)


@njit
def weighted(rows, weights, count, vectors, out):
    m.weighted(rows.ctypes.data, weights.ctypes.data, count, vectors, out.ctypes.data, out.dtype.type(0))


@njit
def weighted_masked(rows, weights, masks, count, vectors, out):
    m.weighted_masked(
        rows.ctypes.data, weights.ctypes.data, masks.ctypes.data, count, vectors, out.ctypes.data, out.dtype.type(0)
    )  # fmt: skip


@njit
def four_dots(row, others, vectors, out):
    m.four_dots(row.ctypes.data, others.ctypes.data, vectors, out.ctypes.data, row.dtype.type(0))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def as_held(values, half):
    values = np.array(values, np.float32, order="C")
    return torch.tensor(values).bfloat16().view(torch.uint16).numpy() if half else values


def wide(held):
    return torch.tensor(held).view(torch.bfloat16).float().numpy() if held.dtype == np.uint16 else held


def addresses(rows):
    """The rows in the other order than they lie in memory."""
    return np.array([row.ctypes.data for row in rows[::-1]], np.uint64)


def exact(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_softmax(rng, count, spread):
    logits = np.append(-np.abs(rng.normal(size=count + 1)) * spread, 1e6).astype(np.float32)
    logits[count // 2] = 0  # the highest: differences from it are exact
    out = np.full(count + 2, 7, np.float32)
    softmax(logits, count, out)
    np.testing.assert_allclose(out[:count], exact(logits[:count]), rtol=5e-7, atol=2.0**-126)
    assert (out[count:] == 7).all()


def test_powers_over_their_whole_range():
    """Beside a weight of about 1 stands eˣ itself, and 0 where it is too small for float32's full precision."""
    x = np.concatenate([-np.geomspace(20, 87.3, 2000), -np.linspace(87.34, 120, 50), [-1e4, -3e38, -math.inf]])
    out = np.empty(2, np.float32)
    for value in x.astype(np.float32):
        softmax(np.array([value, 0], np.float32), 2, out)
        np.testing.assert_allclose(out[0], np.exp(np.float64(value)), rtol=3e-7, atol=2.0**-126)
        assert out[1] == 1
        assert out[0] == 0 or value > -87.34


@pytest.mark.parametrize("logits", [[math.nan, 0.0], [0.0, math.nan], [math.inf, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("others", [0, 15, 17])
def test_what_has_no_softmax_is_not_a_number(logits, others):
    logits = np.array([*logits, *[logits[1]] * others], np.float32)
    out = np.zeros(len(logits), np.float32)
    softmax(logits, len(logits), out)
    assert np.isnan(torch.softmax(torch.tensor(logits), dim=0).numpy()).any()
    assert np.isnan(out[0])


@pytest.mark.parametrize("count", COUNTS)
def test_softmax_back(rng, count):
    weights, slopes = (np.append(rng.normal(size=count), [math.nan] * 2).astype(np.float32) for _ in range(2))
    out = np.full(count + 2, 7, np.float32)
    softmax_back(weights, slopes, count, out)
    own, given = weights[:count].astype(np.float64), slopes[:count].astype(np.float64)
    np.testing.assert_allclose(out[:count], own * (given - own @ given), rtol=1e-5, atol=1e-5)
    assert (out[count:] == 7).all()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("vectors", range(1, 10))
@pytest.mark.parametrize("count", [0, 1, 5])
def test_weighted(rng, half, vectors, count):
    """Whole numbers: sums are exact in any order."""
    width = vectors * LANES
    rows, weights = rng.integers(-3, 4, (count, width)), rng.integers(-3, 4, count).astype(np.float32)
    masks = rng.integers(0, 3, (count, width)).astype(np.float32)
    held = as_held(rows, half)
    out = as_held(np.full(width + 1, math.nan), half)
    weighted(addresses(held), weights, count, vectors, out)
    np.testing.assert_array_equal(wide(out)[:-1], weights @ rows[::-1])
    weighted_masked(addresses(held), weights, addresses(masks), count, vectors, out)
    np.testing.assert_array_equal(wide(out)[:-1], weights @ (masks * rows)[::-1])
    assert np.isnan(wide(out)[-1])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("vectors", [1, 3, 4])
def test_four_dots(rng, half, vectors):
    row, others = rng.integers(-3, 4, vectors * LANES), rng.integers(-3, 4, (4, vectors * LANES))
    held = as_held(others, half)
    out = np.full(5, 7, np.float32)
    four_dots(as_held(row, half), addresses(held), vectors, out)
    assert out.tolist() == [*(others[::-1] @ row).tolist(), 7]
