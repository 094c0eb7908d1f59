import numpy as np
import pytest

from polyrank.fusion.lambdarank import LEVELS, LambdaRankConfig, LambdaRankFusion, _edges


def test_few_rewards_keep_a_grade_each():
    rewards = np.array([0.0, 2.0, 0.5, 2.0])
    edges = _edges(rewards)
    np.testing.assert_array_equal(np.searchsorted(edges, rewards, side="left"), [0, 2, 1, 2])


def test_many_rewards_share_grades_in_order_and_nothing_keeps_its_own():
    rng = np.random.default_rng(0)
    rewards = np.concatenate((np.zeros(500), rng.exponential(size=2_000)))
    grades = np.searchsorted(_edges(rewards), rewards, side="left")
    assert grades.max() + 1 == LEVELS
    assert (grades[rewards == 0] == 0).all()
    assert (grades[rewards > 0] > 0).all()
    order = np.argsort(rewards)
    assert (np.diff(grades[order]) >= 0).all()
    sizes = np.bincount(grades)[1:]
    assert sizes.max() < 2 * sizes.min()


def test_a_damaged_model_is_refused():
    with pytest.raises(ValueError, match="must be whole"):
        LambdaRankFusion(("click",), LambdaRankConfig(), "tree\nnonsense")
