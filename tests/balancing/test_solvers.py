"""The references: enumeration of all supports, KKT conditions, a dense grid."""

from itertools import chain, combinations

import numpy as np
import pytest

from polyrank.balancing.solvers import (
    bargained,
    conflict_averse,
    cosines,
    into_dual_cone,
    least_norm,
    length,
    nearest_to_origin,
    onto_simplex,
    root,
)

G = np.array([[6, 1, -1.5], [1, 3, -1.5], [-1.5, -1.5, 9.25]])


def problems(count, spread):
    rng = np.random.default_rng(5)
    for _ in range(count):
        tasks = int(rng.integers(2, 7))
        rows = rng.normal(size=(tasks, 8)) * 10 ** rng.uniform(-spread, spread, (tasks, 1))
        yield rows @ rows.T


def supports(tasks):
    return chain.from_iterable(combinations(range(tasks), size) for size in range(1, tasks + 1))


def by_enumeration(gramian):
    """The least norm over the simplex: the best of the stationary points of all its faces."""
    best, answer = np.inf, None
    for support in supports(len(gramian)):
        inside = np.linalg.solve(gramian[np.ix_(support, support)], np.ones(len(support)))
        if (inside >= 0).all():
            weights = np.zeros(len(gramian))
            weights[list(support)] = inside / inside.sum()
            if weights @ gramian @ weights < best:
                best, answer = weights @ gramian @ weights, weights
    return answer


def test_a_root_of_the_cosines():
    basis = root(cosines(G))
    np.testing.assert_allclose(basis.T @ basis, cosines(G), atol=1e-12)
    assert length(np.array([1.0, 0.0, 0.0]), G) == pytest.approx(6**0.5)


@pytest.mark.parametrize("spread", [0, 2])
def test_least_norm_is_the_best_of_all_supports(spread):
    for gramian in problems(40, spread):
        np.testing.assert_allclose(least_norm(gramian), by_enumeration(gramian), atol=1e-7)


def test_least_norm_above_bounds_is_optimal():
    rng = np.random.default_rng(6)
    for gramian in problems(40, 1):
        bounds = rng.dirichlet(np.ones(len(gramian))) * 0.7
        found = least_norm(gramian, bounds)
        slopes = gramian @ found
        assert found.sum() == pytest.approx(1.0)
        assert (found >= bounds - 1e-9).all()
        free = found > bounds + 1e-7
        level = slopes[free].mean()
        scale = np.abs(slopes).max()
        np.testing.assert_allclose(slopes[free], level, atol=1e-6 * scale)
        assert (slopes[~free] >= level - 1e-6 * scale).all()


def test_all_at_the_origin():
    assert nearest_to_origin(np.zeros((2, 4))).tolist() == [0.25] * 4


def test_onto_the_simplex():
    assert onto_simplex(np.array([0.2, 0.3, 0.5])).tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert onto_simplex(np.array([2.0, 0.0, 0.5])).tolist() == [1.0, 0.0, 0.0]
    assert onto_simplex(np.array([0.4, 0.2]), 0.2).tolist() == pytest.approx([0.2, 0.0])
    assert onto_simplex(np.array([1e31, 1e15, 0.0])).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("spread", [0, 2])
def test_projections_into_the_dual_cone_are_optimal(spread):
    for gramian in problems(30, spread):
        for task, row in enumerate(into_dual_cone(gramian)):
            added, size = row - np.eye(len(gramian))[task], np.sqrt(gramian.diagonal())
            slopes = gramian @ row / size
            scale = size[task]
            assert (added >= -1e-9).all()
            assert (slopes >= -1e-7 * scale).all()  # in the cone
            np.testing.assert_allclose(added * size * slopes / scale**2, 0.0, atol=1e-7)  # and no further than needed


def test_conflict_averse_is_the_best_on_a_grid():
    share = np.linspace(0, 1, 101)
    first, second = np.meshgrid(share, share)
    inside = first + second <= 1
    grid = np.stack([first[inside], second[inside], 1 - first[inside] - second[inside]])
    mean = np.full(3, 1 / 3)

    def value(weights, radius, gramian):
        return weights.T @ gramian @ mean + radius * length(mean, gramian) * np.sqrt(
            np.einsum("t...,ts,s...->...", weights, gramian, weights).clip(0)
        )

    rng = np.random.default_rng(7)
    for radius in (0.1, 0.5, 0.9):
        for _ in range(5):
            rows = rng.normal(size=(3, 5))
            gramian = rows @ rows.T
            assert value(conflict_averse(gramian, radius), radius, gramian) <= value(grid, radius, gramian).min() + 1e-9


def test_conflict_averse_goldens():
    np.testing.assert_allclose(conflict_averse(G, 0.5), (0, 0.900606, 0.099394), atol=1e-6)
    np.testing.assert_allclose(conflict_averse(G, 0.4), (0, 0.977796, 0.022204), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
def test_bargains_solve_their_equations_over_many_scales(alpha):
    for gramian in problems(40, 3):
        found = bargained(gramian, alpha)
        assert (found > 0).all()
        np.testing.assert_allclose((gramian @ found) * found ** (1 / alpha), 1.0, atol=1e-5)


def test_opposite_gradients_have_a_large_bargain():
    for alpha in (1.0, 2.0, 10.0):
        found = bargained(np.array([[1.0, -1.0], [-1.0, 1.0]]), alpha)
        assert np.isfinite(found).all()
        assert found[0] == pytest.approx(found[1])
        assert found[0] > 100
