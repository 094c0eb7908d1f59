import numpy as np

from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.policy import Box, Standard, load_policy, save_policy

POLICY = LinearPolicy(
    Standard(np.array([1.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
    Box(np.array([0.0, -1.0]), np.array([4.0, 1.0])),
    np.array([0.0, 0.5], np.float32),
    np.array([[0.5, 0.0], [0.0, 1.0]], np.float32),
)


def test_by_hand():
    """The state (3, 0.25) is (1, 0.25) standardised: 2 + 2 · 0.5 and 0.5 + 0.25; then both sides of the box."""
    actions = POLICY.act(np.array([[3.0, 0.25], [101.0, -9.0]], np.float32))
    np.testing.assert_allclose(actions, [[3.0, 0.75], [4.0, -1.0]], atol=1e-6)
    assert actions.dtype == np.float32


def test_saved_and_loaded_it_acts_the_same(tmp_path):
    save_policy(POLICY, tmp_path)
    states = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.testing.assert_array_equal(load_policy(tmp_path).act(states), POLICY.act(states))
