"""Policies: a box, its normalised actions, the matched static formula, and their form on disk."""

from pathlib import Path

import numpy as np
import pytest

from polyrank.errors import RunError
from polyrank.files import read_json, write_json
from polyrank.fusion.policies import POLICIES
from polyrank.fusion.policy import Box, Policy, Standard, StaticPolicy, frozen, load_facts, load_policy, save_policy
from polyrank.fusion.sessions import SessionLog


class Sum(Policy):
    """Weights (Σ s, 2 Σ s)."""

    kind = "sum"

    def act(self, states):
        return np.sum(states, axis=1, keepdims=True) * np.array([1, 2], np.float32)

    def arrays(self):
        return {}

    def document(self):
        return {}

    @classmethod
    def restore(cls, document, arrays):
        return cls()


def log_of(states, actions):
    rows = len(states)
    states, actions = (np.asarray(values, np.float32) for values in (states, actions))
    return SessionLog(
        np.arange(rows), np.arange(rows + 1), states, actions, np.zeros(rows), np.zeros(rows), np.ones(rows, np.bool_)
    )


def test_a_frozen_policy_has_the_mean_weights_everywhere():
    static = frozen(Sum(), np.array([[1.0, 1.0], [3.0, 3.0]]))
    np.testing.assert_array_equal(static.act(np.zeros((3, 2))), [[4, 8]] * 3)
    assert static.act(np.zeros((3, 2))).dtype == np.float32


def test_a_box_is_what_the_log_explored():
    box = Box.of(log_of(np.zeros((3, 1)), [[0.0, 5.0], [2.0, 5.0], [1.0, 5.0]]))
    np.testing.assert_array_equal([box.low, box.high], [[0, 5], [2, 5]])
    actions = np.array([[0.5, 5.0], [3.0, 5.0], [1.0, 5.1], [2.0, 5.0]], np.float32)
    np.testing.assert_array_equal(box.outside(actions), [False, True, True, False])
    np.testing.assert_array_equal(box.clip(actions)[1:3], [[2, 5], [1, 5]])
    np.testing.assert_allclose(box.normalised(actions[[0, 3]]), [[-0.5, 0], [1, 0]])
    np.testing.assert_allclose(box.weights(np.array([[-0.5, 0.7], [1, -1]])), [[0.5, 5], [2, 5]])


@pytest.mark.parametrize(("low", "high"), [([1.0], [0.0]), ([0.0], [np.inf]), ([0.0], [1.0, 1.0]), (0.0, 1.0)])
def test_what_is_no_box(low, high):
    with pytest.raises(ValueError, match="a box must be finite"):
        Box(np.array(low), np.array(high))


def test_states_are_standardised_as_the_log_was():
    standard = Standard.of(log_of([[0.0, 7.0], [2.0, 7.0]], [[0.0], [0.0]]))
    np.testing.assert_allclose(standard(np.array([[1.0, 9.0], [3.0, 7.0]])), [[0, 0], [2, 0]])
    for wrong in (np.zeros(2), np.zeros((1, 3)), np.array([[np.nan, 0.0]])):
        with pytest.raises(ValueError, match="states must"):
            standard(wrong)


def test_a_saved_policy_is_the_same_policy(tmp_path: Path):
    policy = StaticPolicy(np.array([0.25, -1.5]))
    save_policy(policy, tmp_path, {"method": "none"})
    np.testing.assert_array_equal(load_policy(tmp_path).act(np.zeros((2, 9))), [[0.25, -1.5]] * 2)
    assert load_facts(tmp_path) == {"method": "none"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.json", "policy.safetensors"]


def test_the_registry_names_each_kind():
    assert all(kind.kind == name for name, kind in POLICIES.items())


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"kind": "statics"}, {"arrays_sha256": "0"}, {"policy": None, "arrays_sha256": None}]
)
def test_a_damaged_one_is_refused(change, tmp_path: Path):
    save_policy(StaticPolicy(np.ones(2)), tmp_path)
    write_json(tmp_path / "policy.json", read_json(tmp_path / "policy.json") | change)
    with pytest.raises(RunError):
        load_policy(tmp_path)


def test_a_missing_one_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"policy\.json must be there"):
        load_policy(tmp_path)
    save_policy(StaticPolicy(np.ones(2)), tmp_path)
    (tmp_path / "policy.safetensors").unlink()
    with pytest.raises(RunError, match="a policy must be whole"):
        load_policy(tmp_path)
