"""It finds the known best cell of every context, for every scalarisation, and varies the weights that matter."""

from dataclasses import replace

import numpy as np
import pytest

from polyrank.errors import ConfigError, TrainingDiverged
from polyrank.fusion.learners.bandit import BanditConfig, fit
from polyrank.fusion.policy import Box
from polyrank.progress import Silent

LEVELS = np.linspace(0, 2, 3)
# mean reward by context, level of weight 1, level of weight 2; weight 0 does nothing
TABLE = np.array([[[0, 1, 2], [0, 5, 1], [1, 0, 0]], [[1, 0, 0], [0, 1, 0], [2, 1, 4]]], float)
QUICK = BanditConfig(hidden=(64,), steps=800, batch_size=256, learning_rate=5e-3, levels=3)


def log_of(one_step, n=6000):
    rng = np.random.default_rng(0)
    context, cells = rng.integers(0, 2, n), rng.integers(0, 3, size=(n, 3))
    mean = TABLE[context, cells[:, 1], cells[:, 2]]
    signals = {"calm": (-mean + rng.normal(size=n)).astype(np.float32)}
    rewards = mean + rng.normal(size=n)
    return one_step(np.eye(2)[context], LEVELS[cells], np.full(n, -np.log(27.0)), rewards, signals)


CONTEXTS = np.eye(2, dtype=np.float32)


def test_the_best_cell_of_every_context(one_step):
    log = log_of(one_step)
    policy = fit(log, Box.of(log), QUICK, Silent()).policy
    assert set(map(tuple, policy.grid[:, :1])) == {(0.0,)}  # weight 0 is not varied
    np.testing.assert_allclose(policy.act(CONTEXTS), [[1, 1, 1], [1, 2, 2]], atol=1e-6)
    values = policy.q(CONTEXTS, policy.grid)[:, :, 0].reshape(2, 3, 3)
    np.testing.assert_allclose(values, TABLE, atol=0.5)


def test_another_scalarisation_needs_no_learning(one_step):
    log = log_of(one_step)
    policy = fit(log, Box.of(log), replace(QUICK, components=("calm",)), Silent()).policy
    np.testing.assert_allclose(policy.act(CONTEXTS), [[1, 1, 1], [1, 2, 2]], atol=1e-6)
    calm = policy.scalarised(np.array([0.0, 1.0])).act(CONTEXTS)
    cells = np.rint(calm).astype(int)
    assert (TABLE[[0, 1], cells[:, 1], cells[:, 2]] == 0).all()  # the least reward is the most calm
    same = fit(log, Box.of(log), replace(QUICK, components=("calm",), alpha=(0.0, 1.0)), Silent()).policy
    np.testing.assert_array_equal(same.act(CONTEXTS), calm)


def test_with_gamma_it_counts_what_follows(delayed):
    log = delayed(4000)
    x = np.linspace(-1, 1, 21, dtype=np.float32)
    states = np.stack([np.zeros_like(x), x], axis=1)
    config = replace(QUICK, levels=9, varied=1)
    errors = [
        np.abs(fit(log, Box.of(log), replace(config, gamma=gamma), Silent()).policy.act(states)[:, 0] - x / 2).mean()
        for gamma in (0.0, 0.9)
    ]
    assert errors[1] < 0.15 < errors[0]


def test_what_cannot_be_learned_is_refused(one_step):
    log = log_of(one_step, 60)
    box = Box.of(log)
    with pytest.raises(ConfigError, match="did you mean 'calm'"):
        fit(log, box, replace(QUICK, components=("clam",)), Silent())
    with pytest.raises(ConfigError, match="alpha has a number"):
        fit(log, box, replace(QUICK, alpha=(1.0, 2.0)), Silent())
    with pytest.raises(ConfigError, match="at most 4,096 cells"):
        fit(log, box, replace(QUICK, levels=30, varied=3), Silent())
    with pytest.raises(TrainingDiverged, match="must be finite"):
        fit(log, box, replace(QUICK, steps=30, learning_rate=1e30), Silent())
