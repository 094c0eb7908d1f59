"""It reaches the best linear policy, plans ahead, stays in the box, and is the same again for a seed."""

from dataclasses import replace

import numpy as np
import pytest

from polyrank.errors import TrainingDiverged
from polyrank.fusion.learners.linear_cem import LinearCEMConfig, fit
from polyrank.fusion.policy import Box
from polyrank.progress import Silent

QUICK = LinearCEMConfig(
    rounds=1, critics=1, hidden=(32,), steps=800, learning_rate=5e-3, batch_size=128, averaging=0.1, generations=60,
    states=256,
)  # fmt: skip


def test_the_known_optimum(quadratic, regret):
    log = quadratic(4000, noise=0.1)
    fitted = fit(log, Box.of(log), replace(QUICK, critics=2, steps=1000), Silent())
    assert regret(fitted.policy) < 0.05 * regret.constant
    assert fitted.curves["q"][-1][0] == 1000


def test_it_gives_up_reward_now_for_more_later(delayed):
    """Only the second step earns, by what the first one did: what is best at once says nothing of it."""
    log = delayed(3000)
    policy = fit(log, Box.of(log), replace(QUICK, gamma=0.9), Silent()).policy
    x = np.linspace(-1, 1, 21, dtype=np.float32)
    first = policy.act(np.stack([np.zeros_like(x), x], axis=1))[:, 0]
    assert np.abs(first - x / 2).mean() < 0.12
    myopic = fit(log, Box.of(log), replace(QUICK, gamma=0.0), Silent()).policy
    assert np.abs(myopic.act(np.stack([np.zeros_like(x), x], axis=1))[:, 0] - x / 2).mean() > 0.12


def test_a_seed_gives_the_same_again_and_the_box_holds(quadratic):
    log = quadratic(500)
    box = Box.of(log)
    tiny = replace(QUICK, steps=30, generations=3)
    states = np.random.default_rng(0).normal(scale=50, size=(50, 2)).astype(np.float32)
    one, two = (fit(log, box, tiny, Silent()).policy.act(states) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not box.outside(one).any()
    assert (fit(log, box, replace(tiny, seed=1), Silent()).policy.act(states) != one).any()


def test_divergence_is_told(delayed):
    log = delayed(50)
    wild = replace(QUICK, hidden=(), steps=50, learning_rate=1e4, averaging=1.0, gamma=0.9)
    with pytest.raises(TrainingDiverged, match="Q must stay"):
        fit(log, Box.of(log), wild, Silent())
