import sys

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from polyrank.errors import RunFailed
from polyrank.fusion.policy import StaticPolicy
from polyrank.simulator.environment import SessionsEnv
from polyrank.simulator.sessions import value
from polyrank.simulator.world import World, WorldConfig

WORLD = World(WorldConfig())
START = StaticPolicy(WORLD.static_start())


def play(env, steps, seed=0):
    """Returns of the first session of each place."""
    states, _ = env.reset(seed=seed)
    total, over = np.zeros(env.num_envs), np.zeros(env.num_envs, bool)
    for _ in range(steps):
        states, rewards, ended, cut, _ = env.step(START.act(states))
        total += np.where(over, 0, rewards)
        over |= ended
        assert not cut.any()
    assert over.all()
    return total


def test_its_sessions_are_those_of_the_simulator():
    env = SessionsEnv(WORLD, 300)
    np.testing.assert_allclose(play(env, WORLD.config.longest), value(WORLD, START, 300, seed=0), rtol=1e-5)


def test_spaces_hold_what_comes_and_goes():
    env = SessionsEnv(WORLD, 8)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    states, infos = env.reset(seed=1)
    assert infos == {}
    assert env.observation_space.contains(states)
    assert env.action_space.shape == (8, 6)
    env.action_space.seed(0)
    states, rewards, ended, cut, infos = env.step(env.action_space.sample())
    assert env.observation_space.contains(states)
    assert rewards.shape == ended.shape == cut.shape == infos["watch"].shape == (8,)
    assert set(infos) == {"watch", "complete", "like", "share", "comment", "hate", "return", "next_dwell"}


def test_an_ended_session_is_replaced_in_the_next_step():
    env = SessionsEnv(World(WorldConfig(longest=1)), 5)
    first, _ = env.reset(seed=0)
    last, rewards, ended, _, _ = env.step(START.act(first))
    assert ended.all()
    assert (rewards != 0).all()
    np.testing.assert_array_equal(last[:, :4], first[:, :4])  # the same users, after their last request
    new, rewards, ended, _, infos = env.step(START.act(last))
    assert not ended.any()
    assert not rewards.any()
    assert not infos["watch"].any()
    assert not new[:, 4:].any()
    assert (new[:, 0] != first[:, 0]).all()
    again = SessionsEnv(World(WorldConfig(longest=1)), 10)
    np.testing.assert_array_equal(new, again.reset(seed=0)[0][5:])  # sessions 5 to 9


def test_a_seed_begins_anew_and_no_seed_goes_on():
    env = SessionsEnv(WORLD, 4)
    first, _ = env.reset(seed=3)
    second, _ = env.reset()
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert SessionsEnv(WORLD, 4).reset()[0].shape == first.shape


def test_wrong_use_is_told():
    env = SessionsEnv(WORLD, 2)
    with pytest.raises(ValueError, match="reset"):
        env.step(np.ones((2, 6)))
    env.reset(seed=0)
    for wrong in (np.ones((3, 6)), np.full((2, 6), np.nan)):
        with pytest.raises(ValueError, match=r"\(2, 6\)"):
            env.step(wrong)


def test_without_gymnasium_one_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "polyrank.simulator.environment")
    with pytest.raises(RunFailed, match=r"polyrank\[rl\]"):
        import polyrank.simulator.environment  # noqa: F401
