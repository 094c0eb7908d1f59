import numpy as np
import pytest

from polyrank.fusion.reward import RewardConfig, reward

LABELS = {"click": np.array([1.0, 0.0, 1.0]), "watch": np.array([30.0, 0.0, 500.0]), "like": np.array([1.0, np.nan, 0])}


def test_by_hand():
    config = RewardConfig({"click": 1.0, "watch": 0.01, "like": 5.0}, {"watch": 100.0})
    np.testing.assert_allclose(reward(LABELS, config), [1 + 0.3 + 5, 0.0, 1 + 1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RewardConfig({"share": 1.0}), "got 'share'"),
        (RewardConfig({"click": 1.0}, {"share": 1.0}), "got 'share'"),
        (RewardConfig(), "above 0"),
        (RewardConfig({"click": 0.0}), "above 0"),
    ],
)
def test_what_is_no_reward_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        reward(LABELS, config)


def test_a_negative_label_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        reward({"click": np.array([-1.0])}, RewardConfig({"click": 1.0}))
