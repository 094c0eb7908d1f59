import math
from dataclasses import replace

import numpy as np
import pytest

from polyrank.fusion.explore import BoundedUniform
from polyrank.fusion.policy import StaticPolicy
from polyrank.fusion.sessions import read_sessions, write_sessions
from polyrank.simulator import behaviours
from polyrank.simulator.behaviours import BEHAVIOURS
from polyrank.simulator.sessions import STATE, Crowd, simulate, value
from polyrank.simulator.world import World, WorldConfig

CONSTANT = WorldConfig(leave=-1.0, leave_satisfaction=0, leave_fatigue=0, back=0.4, back_satisfaction=0, longest=8)
START = StaticPolicy(World(WorldConfig()).static_start())
EXPLORER = BoundedUniform(START, 0.6)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.fixture(scope="module")
def log():
    return simulate(World(WorldConfig()), EXPLORER, 5_000, seed=1)


def test_with_a_constant_hazard_sessions_are_geometric():
    sessions, hazard, longest = 20_000, sigmoid(-1.0), CONSTANT.longest
    log = simulate(World(CONSTANT), EXPLORER, sessions, seed=0)
    survival = (1 - hazard) ** np.arange(longest)
    expected = survival.sum()
    assert expected == pytest.approx((1 - (1 - hazard) ** longest) / hazard)
    error = log.lengths.std() / math.sqrt(sessions)
    assert log.lengths.mean() == pytest.approx(expected, abs=4 * error)
    for step in (1, 3, 7):
        share = (log.lengths > step).mean()
        assert share == pytest.approx(survival[step], abs=4 * math.sqrt(survival[step] / sessions)), step
    back = log.signals["return"][log.done].mean()
    assert back == pytest.approx(sigmoid(0.4), abs=4 * 0.5 / math.sqrt(sessions))


def test_with_constant_chances_too_the_return_is_exact(monkeypatch):
    monkeypatch.setattr(behaviours, "_EFFECTS", np.zeros_like(behaviours._EFFECTS))
    world = World(replace(CONSTANT, mode="b"))
    hazard, sessions = sigmoid(-1.0), 20_000
    m = sigmoid(-0.3)
    chances = {"like": sigmoid(-2.5), "share": sigmoid(-3.5), "comment": sigmoid(-3.5), "hate": sigmoid(-4.0)}
    video = m * world._seconds.mean() / 60
    video += 0.5 * chances["like"] + chances["share"] + 0.5 * chances["comment"] - 2 * chances["hate"]
    # every head predicts alike for all candidates but for its errors and the length, so length must not be preferred
    indifferent = StaticPolicy([0, 0, 1, 1, 1, -1])
    length = (1 - (1 - hazard) ** CONSTANT.longest) / hazard
    found = value(world, indifferent, sessions, seed=0)
    expected = length * 4 * video + 3 * sigmoid(0.4)
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / math.sqrt(sessions))
    assert found.std() / math.sqrt(sessions) < 0.015 * expected


def test_a_log_keeps_its_rules(log, tmp_path):
    write_sessions(log, tmp_path / "log.parquet")
    read = read_sessions(tmp_path / "log.parquet")  # refuses what breaks them
    np.testing.assert_array_equal(read.states, log.states)
    np.testing.assert_array_equal(read.starts, log.starts)
    np.testing.assert_allclose(read.rewards, log.rewards, rtol=1e-6)
    assert list(read.signals) == [*BEHAVIOURS, "return", "next_dwell"]
    assert log.done[log.starts[1:] - 1].all()
    assert log.done.sum() == len(log.sessions) == 5_000
    assert log.states.shape[1] == len(STATE)
    assert log.states.dtype == log.actions.dtype == np.float32
    assert log.lengths.max() <= WorldConfig().longest


def test_densities_are_those_of_the_explorer(log):
    np.testing.assert_allclose(log.log_densities, -6 * math.log(1.2))
    assert not EXPLORER.box.outside(log.actions).any()
    assert log.actions.std(axis=0) == pytest.approx(np.full(6, 1.2 / math.sqrt(12)), rel=0.03)


def test_rewards_are_the_declared_worth_of_the_signals(log):
    s = log.signals
    expected = s["watch"] / 60 + 0.5 * s["like"] + s["share"] + 0.5 * s["comment"] - 2 * s["hate"] + 3 * s["return"]
    np.testing.assert_allclose(log.rewards, expected, rtol=1e-5, atol=1e-5)
    for name in ("return", "next_dwell"):
        assert not s[name][~log.done].any()
    np.testing.assert_array_equal(s["next_dwell"] > 0, s["return"] == 1)


def test_the_satisfied_stay_and_return(log):
    ends = log.starts[1:] - 1
    satisfied = log.states[log.starts[:-1], STATE.index("history_satisfaction")]
    order = np.argsort(satisfied)
    lowest, highest = order[:1_500], order[-1_500:]
    assert log.lengths[highest].mean() > 1.2 * log.lengths[lowest].mean()
    assert log.signals["return"][ends][highest].mean() > log.signals["return"][ends][lowest].mean() + 0.05


def test_states_tell_of_the_session_so_far(log):
    at = {name: place for place, name in enumerate(STATE)}
    begin = log.starts[:-1]
    assert not log.states[begin][:, at["requests"] :].any()
    long = np.flatnonzero(log.lengths >= 3)[:100]
    second, third = log.starts[long] + 1, log.starts[long] + 2
    watched = log.signals["watch"] / 60 / 4
    np.testing.assert_allclose(log.states[second, at["minutes"]], watched[second - 1], rtol=1e-5)
    expected = 0.6 * watched[third - 2] + 0.4 * watched[third - 1]
    np.testing.assert_allclose(log.states[third, at["minutes"]], expected, rtol=1e-5)
    np.testing.assert_allclose(log.states[third, at["requests"]], math.log(3), rtol=1e-6)
    for name in ("sensitivity", "activity", "satisfaction", "fatigue"):  # of before the session
        column = log.states[:, at[f"history_{name}"]]
        np.testing.assert_array_equal(column[third], column[third - 2])


def test_satisfaction_and_leaving_by_hand():
    world = World(WorldConfig(longest=1_000))
    rows = np.arange(20_000)
    crowd = Crowd(world, 0, rows, np.full(len(rows), 0.5))
    before, tired = crowd.users.satisfaction.copy(), crowd.users.fatigue.copy()
    weights = START.act(crowd.states(rows))
    joy = behaviours.enjoyment(crowd.shown(rows, weights).causes).mean(axis=1)
    outcome = crowd.act(rows, weights)
    np.testing.assert_allclose(crowd.users.satisfaction, 0.7 * before + 0.3 * joy, rtol=1e-4, atol=1e-5)
    chance = 1 / (1 + np.exp(1.2 + 1.5 * crowd.users.satisfaction - 0.6 * (tired + 0.1)))
    for part in np.array_split(np.argsort(chance), 5):
        error = math.sqrt((chance[part] * (1 - chance[part])).sum()) / len(part)
        assert outcome.left[part].mean() == pytest.approx(chance[part].mean(), abs=4 * error)


def test_in_mode_a_leaving_is_blind_to_what_is_shown():
    world = World(WorldConfig(mode="a"))
    lengths = [
        simulate(world, BoundedUniform(StaticPolicy(weights), 1e-6), 2_000, seed=0).lengths
        for weights in ([1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, -1])
    ]
    np.testing.assert_array_equal(*lengths)  # the same luck


def test_a_seed_is_a_log_and_its_value():
    world = World(WorldConfig())
    narrow = BoundedUniform(START, 1e-7)
    first, second = (simulate(world, narrow, 500, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.rewards, second.rewards)
    other = simulate(world, narrow, 500, seed=4)
    assert len(other.rewards) != len(first.rewards) or not np.array_equal(other.rewards, first.rewards)
    # what a log of one policy brought is the policy's value under that seed
    brought = np.add.reduceat(first.rewards, first.starts[:-1])
    np.testing.assert_allclose(value(world, START, 500, seed=3), brought, rtol=1e-6)


def test_policies_meet_the_same_sessions():
    world = World(WorldConfig())
    other = StaticPolicy([1, 0.9, 1, 1, 1.1, -1])
    one, two = value(world, START, 4_000, seed=0), value(world, other, 4_000, seed=0)
    assert np.corrcoef(one, two)[0, 1] > 0.5
    unpaired = value(world, other, 4_000, seed=1)
    assert (one - two).std() < 0.7 * (one - unpaired).std()


def test_new_sessions_take_the_places_of_others():
    world = World(WorldConfig())
    crowd = Crowd(world, 0, np.arange(6), np.full(6, 0.5))
    rows = np.arange(6)
    crowd.act(rows, START.act(crowd.states(rows)))
    crowd.begin(np.array([1, 4]), np.array([100, 101]), np.full(2, 0.5))
    fresh = Crowd(world, 0, np.array([100, 101]), np.full(2, 0.5))
    some, both = np.array([1, 4]), np.arange(2)
    np.testing.assert_array_equal(crowd.states(some), fresh.states(both))
    weights = START.act(fresh.states(both))
    np.testing.assert_allclose(crowd.act(some, weights).rewards, fresh.act(both, weights).rewards, rtol=1e-6)


def test_a_log_may_cover_a_part_of_the_days():
    world = World(WorldConfig(mode="d"))
    early, late = (simulate(world, EXPLORER, 4_000, 0, when=when) for when in ((0.0, 0.2), (0.8, 1.0)))
    np.testing.assert_array_equal(early.states[early.starts[:-1]], late.states[late.starts[:-1]])  # no state tells
    assert late.lengths.mean() != pytest.approx(early.lengths.mean(), rel=0.02)


def test_one_session_and_one_request():
    log = simulate(World(WorldConfig(longest=1)), EXPLORER, 1, seed=0)
    assert log.lengths.tolist() == [1]
    assert log.done.tolist() == [True]
