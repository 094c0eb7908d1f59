"""The reference is the textbook formula in float64. What callers promise is tested in tests/heads/test_binary.py."""

import math

import numpy as np
import pytest

from polyrank.nn.kernels.entropies import mean_entropies

NO_WEIGHTS = np.empty((0, 0), np.float32)


def run(logits, labels, where, weights=NO_WEIGHTS):
    slopes, out = np.full_like(logits, np.nan), np.full(logits.shape[1], np.nan, np.float32)
    mean_entropies(logits, labels, where, weights, slopes, out)
    return out, slopes


def alone(logit, label):
    """ℓ and its slope of one row."""
    out, slopes = run(np.array([[logit]], np.float32), np.array([[label]], np.float32), np.ones((1, 1), bool))
    return out[0], slopes[0, 0]


@pytest.mark.parametrize("label", [0.0, 0.05, 0.5, 1.0])
def test_every_logit_has_its_loss_to_the_last_digits(label):
    for logit in np.concatenate([np.linspace(-30, 30, 241), np.geomspace(1e-8, 80, 50), -np.geomspace(1e-8, 80, 50)]):
        z, y = float(np.float32(logit)), float(np.float32(label))
        loss, slope = alone(logit, label)
        exact = max(z, 0.0) - z * y + math.log1p(math.exp(-abs(z)))
        assert loss == pytest.approx(exact, rel=1e-6)
        assert slope == pytest.approx(1 / (1 + math.exp(-z)) - y, abs=2e-7)


@pytest.mark.parametrize(("logit", "label", "loss", "slope"), [
    (1e4, 1.0, 0.0, 0.0), (1e4, 0.0, 1e4, 1.0), (-1e4, 0.0, 0.0, 0.0), (-1e4, 1.0, 1e4, -1.0),
    (0.0, 1.0, math.log(2), -0.5), (math.log(3), 0.0, math.log(4), 0.75),
])  # fmt: skip
def test_by_hand(logit, label, loss, slope):
    assert alone(logit, label) == pytest.approx((loss, slope), rel=1e-6)


def test_means_by_hand():
    logits = np.array([[0, 0], [math.log(3), 9], [7, 0]], np.float32)
    labels = np.array([[1, 0], [0, 5], [5, 5]], np.float32)
    where = np.array([[True, True], [True, False], [False, False]])
    out, slopes = run(logits, labels, where)
    assert out.tolist() == pytest.approx([(math.log(2) + math.log(4)) / 2, math.log(2)], rel=1e-6)
    np.testing.assert_allclose(slopes, [[-0.25, 0.5], [0.375, 0], [0, 0]], rtol=1e-6)
    out, slopes = run(logits, labels, where, np.array([[3, 0.5], [1, 7], [7, 7]], np.float32))
    assert out.tolist() == pytest.approx([(3 * math.log(2) + math.log(4)) / 4, math.log(2)], rel=1e-6)
    np.testing.assert_allclose(slopes, [[-0.375, 0.5], [0.1875, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 3])
def test_no_row_that_counts_gives_zeros(rows):
    out, slopes = run(np.ones((rows, 2), np.float32), np.ones((rows, 2), np.float32), np.zeros((rows, 2), bool))
    assert out.tolist() == [0.0, 0.0]
    assert not slopes.any()


@pytest.mark.parametrize("counts", [True, False])
def test_what_is_not_a_number_shows_in_its_task(counts):
    logits, where = np.zeros((5, 3), np.float32), np.ones((5, 3), bool)
    logits[2, 1], where[2, 1] = np.nan, counts
    out, slopes = run(logits, np.zeros((5, 3), np.float32), where)
    assert np.isnan(out).tolist() == [False, True, False]
    assert np.argwhere(np.isnan(slopes)).tolist() == [[2, 1]]


def test_sums_do_not_lose_small_weights():
    """In float32 the ten thousand rows after the first would add nothing to 2²⁴ times their weight."""
    rows = 10_001
    weights = np.ones((rows, 1), np.float32)
    weights[0] = 2.0**24
    logits = np.zeros((rows, 1), np.float32)
    logits[0] = -1e4
    out, _ = run(logits, np.zeros((rows, 1), np.float32), np.ones((rows, 1), bool), weights)
    assert out[0] == pytest.approx(10_000 * math.log(2) / (2**24 + 10_000), rel=1e-6)
