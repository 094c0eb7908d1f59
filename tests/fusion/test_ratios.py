"""Importance weights: exact means, the product kernel's normalisation, the box, the choice of a bandwidth."""

import math

import numpy as np
import pytest

from polyrank.fusion.estimate import effective_size
from polyrank.fusion.ratios import density_ratio, kernel_ratio, lepski


def test_density_ratio_by_hand():
    found = density_ratio(np.log([0.5, 0.2, 1.0]), np.log([0.25, 0.4, 1.0]))
    np.testing.assert_allclose(found, [2.0, 0.5, 1.0])
    assert density_ratio(np.array([-np.inf]), np.array([0.0])) == 0.0
    with pytest.raises(ValueError, match="must be finite"):
        density_ratio(np.zeros(1), np.array([-np.inf]))


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
def test_one_weight_by_hand(kernel):
    found = kernel_ratio(
        np.array([[0.1, 0.0]]), np.array([[0.0, 0.0]]), np.log([0.5]), np.array([0.2, 0.5]), kernel=kernel
    )
    at, zero = {
        "gaussian": (math.exp(-0.125) / math.sqrt(2 * math.pi), 1 / math.sqrt(2 * math.pi)),
        "epanechnikov": (0.75 * 0.75, 0.75),
    }[kernel]
    assert found[0] == pytest.approx(at / 0.2 * zero / 0.5 / 0.5)


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("target", [0.0, 0.95])
def test_weights_have_mean_one_in_any_dimension_and_at_the_boxs_edge(kernel, dimensions, target):
    """E_μ[w] = 1 whatever the kernel, where the normaliser is Π h and the box's edge is corrected."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, size=(400_000, dimensions))
    density = np.full(len(actions), -dimensions * math.log(2))
    box = (np.full(dimensions, -1.0), np.full(dimensions, 1.0))
    weights = kernel_ratio(np.full(actions.shape, target), actions, density, 0.3, box=box, kernel=kernel)
    assert weights.mean() == pytest.approx(1.0, abs=4 * weights.std() / math.sqrt(len(weights)))
    assert weights.std() / math.sqrt(len(weights)) < 0.03
    if target == 0.95:  # half of each kernel lies outside
        uncorrected = kernel_ratio(np.full(actions.shape, target), actions, density, 0.3, kernel=kernel)
        inside = {"gaussian": 0.5662, "epanechnikov": 0.6238}[kernel]  # Φ(1/6), and ½ + ¾u − ¼u³ at u = 1/6
        assert uncorrected.mean() == pytest.approx(inside**dimensions, rel=0.05)


def test_effective_sizes_of_wide_exploration():
    """Computed for 200,000 uniform actions on [−1, 1]^d: at h = 0.1 two dimensions leave 6,309 rows, ten about one."""
    rng = np.random.default_rng(1)
    sizes = {}
    for d in (1, 2, 5):
        actions = rng.uniform(-1, 1, size=(200_000, d))
        sizes[d] = effective_size(kernel_ratio(np.zeros_like(actions), actions, np.zeros(200_000), 0.1))
    assert sizes[1] == pytest.approx(35_662, rel=0.02)
    assert sizes[2] == pytest.approx(6_309, rel=0.05)
    assert sizes[5] == pytest.approx(40, rel=0.4)


def test_a_target_outside_of_the_box_is_an_error():
    with pytest.raises(ValueError, match="in or near the box"):
        kernel_ratio(np.array([[5.0]]), np.zeros((1, 1)), np.zeros(1), 0.1, box=([-1.0], [1.0]), kernel="epanechnikov")
    with pytest.raises(ValueError, match="above 0"):
        kernel_ratio(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), 0.0)
    with pytest.raises(ValueError, match=r"\[N, K\] alike"):
        kernel_ratio(np.zeros((1, 1)), np.zeros((1, 2)), np.zeros(1), 0.1)


def test_lepski_by_hand():
    assert lepski([1.0, 1.1, 1.05, 3.0], [0.5, 0.3, 0.1, 0.05]) == 2  # the last one's interval misses the others'
    assert lepski([1.0, 1.0, 1.0], [0.3, 0.2, 0.1]) == 2
    assert lepski([math.nan, 1.0, 9.0], [math.nan, 0.1, 0.1]) == 1
    with pytest.raises(ValueError, match="no bandwidth"):
        lepski([math.nan], [math.nan])


def test_an_epanechnikov_kernel_gives_far_actions_nothing():
    assert kernel_ratio(np.zeros((1, 1)), np.ones((1, 1)), np.zeros(1), 0.5, kernel="epanechnikov") == 0.0
