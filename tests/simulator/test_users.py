import numpy as np
import pytest

from polyrank.simulator.draws import keys
from polyrank.simulator.users import HISTORY, MODES, Population, draw_users

KEYS = keys(keys(0, 0), np.arange(50_000))
MIDDLE = np.full(len(KEYS), 0.5)


def test_users_are_as_their_population():
    users = draw_users(Population(0.2, sensitivity_spread=1.5, activity_spread=0.7), KEYS, MIDDLE, blur=0.4)
    assert users.sensitivity.mean() == pytest.approx(0.2, abs=0.03)
    assert users.sensitivity.std() == pytest.approx(1.5, rel=0.02)
    assert users.activity.std() == pytest.approx(0.7, rel=0.02)
    assert np.abs(np.cov(users.taste.T) - np.eye(users.taste.shape[1])).max() < 0.03
    traits = np.column_stack([users.sensitivity, users.activity, users.satisfaction, users.fatigue, users.taste])
    assert np.abs(np.corrcoef(traits.T) - np.eye(traits.shape[1])).max() < 0.03
    assert users.fatigue.min() >= 0


def test_histories_tell_of_the_traits_with_an_error():
    blurred = draw_users(MODES["c"], KEYS, MIDDLE, blur=0.4)
    for place, name in enumerate(HISTORY):
        error = blurred.history[:, place] - getattr(blurred, name)
        assert error.std() == pytest.approx(0.4, rel=0.02)
        assert abs(np.corrcoef(error, getattr(blurred, name))[0, 1]) < 0.03
    sharp = draw_users(MODES["c"], KEYS, MIDDLE, blur=0)
    np.testing.assert_array_equal(sharp.sensitivity, blurred.sensitivity)
    np.testing.assert_array_equal(sharp.history[:, 0], sharp.sensitivity)


def test_users_of_modes_a_and_b_are_alike():
    for mode in "ab":
        users = draw_users(MODES[mode], KEYS[:100], MIDDLE[:100], blur=0.4)
        assert np.ptp(users.sensitivity) == np.ptp(users.activity) == 0


def test_a_drift_moves_users_and_not_what_is_known_of_them():
    early, late = (draw_users(MODES["d"], KEYS, np.full(len(KEYS), when), blur=0.4) for when in (0.0, 1.0))
    np.testing.assert_allclose(late.sensitivity - early.sensitivity, MODES["d"].drift, atol=1e-5)
    np.testing.assert_array_equal(late.history, early.history)
    still = draw_users(MODES["c"], KEYS, np.ones(len(KEYS)), blur=0.4)
    np.testing.assert_array_equal(still.sensitivity, draw_users(MODES["c"], KEYS, MIDDLE, blur=0.4).sensitivity)


def test_some_users_are_taken_out_and_put_in():
    users, others = (draw_users(MODES["c"], KEYS[part], MIDDLE[part], 0.4) for part in (slice(0, 5), slice(5, 7)))
    users[np.array([1, 3])] = others
    np.testing.assert_array_equal(users[np.array([3])].taste, others.taste[1:])
