"""Fronts and volumes worked out by hand, against Optuna's, against counting random points, and their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume

from polyrank.evaluation.pareto import front, hypervolume, non_dominated

SMALL = st.tuples(st.integers(0, 8), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-2, 5).map(float))
)


def brute_force(values):
    def dominates(a, b):
        return (a >= b).all() and (a > b).any()

    return np.array([not any(dominates(other, one) for other in values) for one in values], bool)


def test_front_by_hand():
    values = [[1, 4], [3, 3], [4, 1], [2, 3], [0, 0], [3, 3]]
    assert non_dominated(values).tolist() == [True, True, True, False, False, True]


def test_a_point_that_is_not_finite_takes_no_part():
    values = [[np.nan, 9], [np.inf, 0], [1, 1]]
    assert non_dominated(values).tolist() == [False, False, True]
    assert hypervolume(values, [0, 0]) == 1.0
    assert front(values, [0, 0]).shares.tolist() == [0, 0, 1]


def test_no_point_and_one_objective():
    assert non_dominated(np.zeros((0, 3))).tolist() == []
    assert hypervolume(np.zeros((0, 3)), [0, 0, 0]) == 0.0
    assert hypervolume([[2.0], [5.0], [-1.0]], [1.0]) == 4.0
    assert non_dominated([[2.0], [5.0], [5.0]]).tolist() == [False, True, True]


@given(SMALL)
def test_front_equals_its_definition(values):
    assert non_dominated(values).tolist() == brute_force(values).tolist()


def test_two_dimensions_by_hand():
    # A staircase over the reference (0, 0): 1 × 4 + (3 − 1) × 3 + (4 − 3) × 1 = 11; [2, 2] and [−1, 9] add nothing.
    assert hypervolume([[1, 4], [3, 3], [4, 1], [2, 2], [-1, 9]], [0, 0]) == 11.0
    # From (1, 1) only [3, 3] is better in both: 2 × 2.
    assert hypervolume([[1, 4], [3, 3], [4, 1]], [1, 1]) == 4.0


def test_three_dimensions_by_hand():
    # Boxes 1×1×3, 1×3×1, 3×1×1 share the unit cube: 3 + 2 + 2. With 2×2×2: 8, and the three arms of one cube each.
    arms = [[1, 1, 3], [1, 3, 1], [3, 1, 1]]
    assert hypervolume(arms, [0, 0, 0]) == 7.0
    assert hypervolume([*arms, [2, 2, 2]], [0, 0, 0]) == 11.0


def test_four_dimensions_by_hand():
    # Two boxes of 2 with the intersection 1: 2 + 2 − 1.
    assert hypervolume([[2, 1, 1, 1], [1, 1, 1, 2]], [0, 0, 0, 0]) == 3.0


@pytest.mark.parametrize("objectives", [2, 3, 4, 5, 6])
def test_volume_is_that_of_optuna(objectives):
    rng = np.random.default_rng(objectives)
    values = rng.random((24, objectives))
    values[:4] = values[4:8]  # equal points
    values[8:12, 0] = values[12:16, 0]  # equal in one objective
    expected = compute_hypervolume(-values, np.zeros(objectives))
    assert hypervolume(values, np.zeros(objectives)) == pytest.approx(expected, rel=1e-12)


def test_volume_is_the_share_of_random_points_that_are_dominated():
    rng = np.random.default_rng(0)
    values, drawn = rng.random((12, 3)), rng.random((200_000, 3))
    share = (drawn[:, None] <= values).all(axis=2).any(axis=1).mean()
    assert hypervolume(values, [0, 0, 0]) == pytest.approx(share, abs=0.004)


@given(SMALL, st.permutations(range(8)))
def test_volume_has_no_order_and_scales_with_each_objective(values, order):
    corner = np.full(values.shape[1], -2.0)
    volume = hypervolume(values, corner)
    assert hypervolume(values[[i for i in order if i < len(values)]], corner) == volume
    assert hypervolume(values[:, ::-1], corner) == volume
    assert hypervolume(3.0 * values, 3.0 * corner) == volume * 3.0 ** values.shape[1]
    assert hypervolume(values[non_dominated(values)], corner) == volume


def test_shares_are_what_each_point_adds():
    found = front([[1, 4], [3, 3], [4, 1], [2, 2]], [0, 0])
    # Without [1, 4]: 9 + 1 = 10 of 11; without [3, 3]: 4 + 3 = 7; without [4, 1]: 10.
    assert found.volume == 11.0
    assert found.members.tolist() == [True, True, True, False]
    assert found.shares == pytest.approx([1 / 11, 4 / 11, 1 / 11, 0.0])


def test_equal_points_do_not_miss_each_other():
    found = front([[2, 1], [2, 1], [1, 2]], [0, 0])
    assert found.members.all()
    assert found.shares == pytest.approx([0, 0, 1 / 3])


def test_the_usual_reference_is_a_tenth_of_the_range_below_the_worst():
    found = front([[1.0, 30.0], [2.0, 10.0], [np.nan, 0.0]])
    assert found.reference == pytest.approx([0.9, 8.0])
    assert found.members.tolist() == [True, True, False]
    assert front([[5.0, 5.0]]).reference == pytest.approx([4.9, 4.9])


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"values must be \[points, objectives\]"):
        non_dominated([1.0, 2.0])
    with pytest.raises(ValueError, match="reference must be 2 finite numbers"):
        hypervolume([[1, 2]], [0])
    with pytest.raises(ValueError, match="reference must be 2 finite numbers"):
        hypervolume([[1, 2]], [0, np.nan])
    with pytest.raises(ValueError, match="a reference is needed"):
        front([[np.nan, 1.0]])
