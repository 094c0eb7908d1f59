"""Of a narrow log plain TD3 believes what it cannot know; a learner that is held in the box does not."""

import numpy as np

from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import Box
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent


def fit(name, log, **knobs):
    method = METHODS[name]
    return method.fit(log, Box.of(log), method.config(**knobs), Silent())


def worth(actions):
    """Rises up to 0.2, and falls steeply beyond."""
    return (actions - 10 * np.maximum(actions - 0.2, 0) ** 2)[:, 0].astype(np.float64)


def test_td3_leaves_a_narrow_log_and_believes_in_it():
    rng = np.random.default_rng(0)
    states, actions = (rng.uniform(-0.2, 0.2, (1_000, 1)).astype(np.float32) for _ in range(2))
    ends = np.ones(1_000, np.bool_)
    log = SessionLog(np.arange(1_000), np.arange(1_001), states, actions, np.zeros(1_000), worth(actions), ends)
    knobs = {"steps": 300, "hidden": (16,), "batch_size": 64, "learning_rate": 1e-2, "averaging": 0.05}
    wild, held = fit("td3", log, **knobs), fit("unified_rl", log, **knobs, critics=3, every=1)
    assert Box.of(log).outside(wild.policy.act(states)).all()
    assert worth(wild.policy.act(states)).max() < -1 < 0.4 < wild.curves["q"][-1][1]
    assert worth(held.policy.act(states)).min() > 0.1
