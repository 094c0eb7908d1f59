import numpy as np
import pytest

from polyrank.fusion.learners.grid import GridPolicy, operating_points, shares
from polyrank.fusion.policy import Box, Standard, load_policy, save_policy

# Q(s, w) = (s w, −s w + 1 − |w|) of one weight, by a network: relu(s w) needs a product, so states enter as ±1 only
LAYERS = (
    # inputs (s, w); hidden: relu(s + w), relu(−s − w), relu(s − w), relu(w − s), relu(w), relu(−w)
    (np.array([[1, -1, 1, -1, 0, 0], [1, -1, -1, 1, 1, -1]], np.float32), np.zeros(6, np.float32)),
    # |s + w| − |s − w| = 2 s w for |s| = 1 ≥ |w|
    (
        np.array([[0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [-0.5, 0.5], [0, -1], [0, -1]], np.float32),
        np.array([0.0, 1.0], np.float32),
    ),
)
POLICY = GridPolicy(
    Standard(np.zeros(1, np.float32), np.ones(1, np.float32)), Box(np.array([1.0]), np.array([3.0])),
    np.array([[-1.0], [0.0], [1.0]], np.float32), LAYERS, ("reward", "calm"), np.array([1.0, 0.0]),
)  # fmt: skip
STATES = np.array([[1.0], [-1.0]], np.float32)


def test_q_by_hand():
    np.testing.assert_allclose(POLICY.q(STATES, POLICY.grid)[0], [[-1, 1], [0, 1], [1, -1]])
    np.testing.assert_allclose(POLICY.q(STATES, POLICY.grid)[1], [[1, -1], [0, 1], [-1, 1]])


def test_the_best_cell_of_each_state_under_each_scalarisation():
    np.testing.assert_allclose(POLICY.act(STATES), [[3.0], [1.0]])
    np.testing.assert_allclose(POLICY.scalarised(np.array([0.9, 1.0])).act(STATES), [[2.0], [2.0]])
    np.testing.assert_allclose(POLICY.act(STATES), [[3.0], [1.0]])  # it is as it was
    with pytest.raises(ValueError, match="alpha must be a number for each"):
        POLICY.scalarised(np.array([1.0]))


def test_operating_points():
    points = operating_points(POLICY, STATES, np.array([[1.0, 0.0], [0.9, 1.0], [-1.0, 0.1]]))
    assert points[0]["predicted"] == {"reward": pytest.approx(1.0), "calm": pytest.approx(-1.0)}
    assert points[0]["static"] == {"reward": pytest.approx(0.0), "calm": pytest.approx(1.0)}  # its mean weight is 2
    assert points[1]["predicted"] == {"reward": pytest.approx(0.0), "calm": pytest.approx(1.0)}
    assert points[2]["predicted"] == {"reward": pytest.approx(-1.0), "calm": pytest.approx(1.0)}
    assert [point["front"] for point in points] == [True, True, False]


def test_shares():
    np.testing.assert_allclose(shares(3, 0, 2, 3), [[1, 0, 0], [0.5, 0, 0.5], [0, 0, 1]])


def test_saved_and_loaded_it_acts_the_same(tmp_path):
    save_policy(POLICY.scalarised(np.array([0.9, 1.0])), tmp_path)
    loaded = load_policy(tmp_path)
    np.testing.assert_array_equal(loaded.act(STATES), [[2.0], [2.0]])
    np.testing.assert_array_equal(loaded.scalarised(np.array([1.0, 0.0])).act(STATES), POLICY.act(STATES))
    assert loaded.components == ("reward", "calm")
