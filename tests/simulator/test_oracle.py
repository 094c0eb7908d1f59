import numpy as np
import pytest

from polyrank.fusion.policy import Box, StaticPolicy
from polyrank.simulator.oracle import FOLLOWED, OracleConfig, Rehearsal, best_static, oracle
from polyrank.simulator.sessions import STATE, value
from polyrank.simulator.world import World, WorldConfig

SHORT = OracleConfig(static_generations=12, generations=15)


@pytest.fixture(scope="module")
def rehearsal():
    return Rehearsal(World(WorldConfig(longest=6)), 400, seed=2)


@pytest.fixture(scope="module")
def static(rehearsal):
    return best_static(rehearsal, SHORT)


def test_a_rehearsal_is_the_sessions_themselves(rehearsal):
    policies = [StaticPolicy([1, 1, 1, 1, 1, -1]), StaticPolicy([0, 0, 2, 1, 0, -1]), StaticPolicy([3, 0, 0, 0, 0, 0])]
    found = rehearsal.returns([policy.act for policy in policies])
    again = rehearsal.returns([policies[2].act])
    for policy, returns in zip(policies, found, strict=True):
        np.testing.assert_allclose(returns, value(rehearsal.world, policy, 400, seed=2), rtol=1e-5)
    np.testing.assert_allclose(again[0], found[2], rtol=1e-6)
    assert not np.array_equal(rehearsal.fresh(policies[0].act), found[0])


def test_the_best_static_weights_beat_the_start(rehearsal, static):
    start = StaticPolicy(rehearsal.world.static_start())
    assert np.abs(static.weights).mean() == pytest.approx(1)
    assert (static.weights * rehearsal.world.static_start() >= 0).all()
    own, other = (value(rehearsal.world, policy, 4_000, seed=9) for policy in (static, start))
    assert own.mean() > 1.02 * other.mean()


def test_the_oracle_follows_the_state_and_gains(rehearsal, static):
    found = oracle(rehearsal, static, SHORT)
    own, other = (value(rehearsal.world, policy, 4_000, seed=9) for policy in (found, static))
    gain = own - other
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))
    followed = np.isin(STATE, FOLLOWED)
    assert not found.slopes[:, ~followed].any()
    assert found.slopes[:, followed].any()


def test_an_oracle_in_a_box_stays_there(rehearsal, static):
    box = Box(static.weights - 0.2, static.weights + 0.2)
    found = oracle(rehearsal, static, SHORT, box)
    states = np.random.default_rng(0).normal(size=(200, len(STATE)))
    assert not box.outside(found.act(states)).any()


def test_where_nothing_can_be_gained_the_start_is_kept():
    # the errors of histories are all that states tell here
    world = World(WorldConfig(mode="a", longest=1, blur=50.0))
    rehearsal = Rehearsal(world, 50, seed=0)
    start = StaticPolicy(best_static(rehearsal, SHORT).weights)
    found = oracle(rehearsal, start, OracleConfig(generations=1, sigma=3.0))
    own, other = (rehearsal.fresh(policy.act).mean() for policy in (found, start))
    assert own >= other - 1e-9


def test_a_seed_is_a_search(rehearsal, static):
    again = best_static(Rehearsal(rehearsal.world, 400, seed=2), SHORT)
    np.testing.assert_array_equal(again.weights, static.weights)
