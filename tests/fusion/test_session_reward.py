import numpy as np
import pytest

from polyrank.errors import ConfigError
from polyrank.fusion.session_reward import SatisfactionConfig, aspects, rewarded, satisfaction, variants
from polyrank.fusion.sessions import SessionLog

SIGNALS = {
    "watch": np.array([30.0, 500.0, 0.0]),
    "like": np.array([1.0, 0.0, np.nan]),
    "hate": np.array([0.0, 1.0, 1.0]),
}
CONFIG = SatisfactionConfig({"watch": 0.01}, {"like": 2.0}, {"hate": 5.0}, {"watch": 100.0}, (-4.0, 2.0))


def log_of(signals):
    n = 3
    return SessionLog(
        np.arange(2), np.array([0, 2, 3]), np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32), np.zeros(n),
        np.full(n, 77.0), np.array([False, True, True]), signals,
    )  # fmt: skip


def test_by_hand():
    # 0.3 + 2 = 2.3, clipped to 2; 1 (capped) − 5 = −4; −5, clipped to −4
    np.testing.assert_allclose(satisfaction(SIGNALS, CONFIG), [2.0, -4.0, -4.0])
    parts = aspects(SIGNALS, CONFIG)
    np.testing.assert_allclose(parts["stickiness"], [0.3, 1.0, 0.0])
    np.testing.assert_allclose(parts["activeness"], [2.0, 0.0, 0.0])
    np.testing.assert_allclose(parts["aversion"], [0.0, 5.0, 5.0])


def test_a_log_is_rewarded_anew_and_nothing_else_of_it_changes():
    log = log_of(SIGNALS)
    again = rewarded(log, CONFIG)
    np.testing.assert_allclose(again.rewards, [2.0, -4.0, -4.0])
    assert log.rewards[0] == 77.0
    assert again.signals is log.signals
    assert again.starts is log.starts


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SatisfactionConfig({"wach": 1.0}), "did you mean 'watch'"),
        (SatisfactionConfig(), "above 0"),
        (SatisfactionConfig({"watch": 0.0}), "above 0"),
        (SatisfactionConfig({"watch": 1.0}, {"watch": 1.0}), "one aspect"),
        (SatisfactionConfig({"watch": 1.0}, caps={"like": 1.0}), "a cap of 'like' alone"),
        (SatisfactionConfig({"watch": 1.0}, clip=(1.0, 1.0)), "clip is"),
    ],
)
def test_what_is_no_reward_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        satisfaction(SIGNALS, config)


def test_a_log_without_signals_is_refused():
    with pytest.raises(ConfigError, match=r"leave \[rl.reward\] out"):
        rewarded(log_of({}), CONFIG)


def test_a_negative_signal_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        satisfaction({"watch": np.array([-1.0])}, SatisfactionConfig({"watch": 1.0}))


def test_variants_change_one_weight_each():
    found = list(variants(CONFIG, (0.0, 2.0)))
    assert [(name, factor) for name, factor, _ in found] == [
        ("watch", 0.0), ("watch", 2.0), ("like", 0.0), ("like", 2.0), ("hate", 0.0), ("hate", 2.0),
    ]  # fmt: skip
    assert found[1][2] == SatisfactionConfig({"watch": 0.02}, {"like": 2.0}, {"hate": 5.0}, {"watch": 100.0}, (-4, 2))
    assert [factor for _, factor, _ in variants(SatisfactionConfig({"watch": 1.0}), (0.0, 2.0))] == [2.0]
