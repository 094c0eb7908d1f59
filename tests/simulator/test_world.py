import numpy as np
import pytest

from polyrank.simulator.draws import keys
from polyrank.simulator.users import draw_users
from polyrank.simulator.world import Requests, Videos, World, WorldConfig


def asked(world, rows=400, seed=0):
    key = keys(keys(seed, 0), np.arange(rows))
    users = draw_users(world.population, key, np.full(rows, 0.5), 0.4)
    return users, world.requests(users, keys(key, 1))


def test_perfect_heads_predict_the_true_chances():
    world = World(WorldConfig(noise=0, miscalibration=0))
    _, requests = asked(world)
    chance = 1 / (1 + np.exp(-requests.videos.odds.astype(np.float64)))
    expected = np.log(chance + 1e-3)
    expected[0] += np.log(requests.videos.seconds)  # that of watch is of seconds
    np.testing.assert_allclose(requests.heads, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["b", "c"])
def test_noise_is_what_was_asked_for_and_worse_for_who_seldom_acts(mode):
    world = World(WorldConfig(mode=mode, noise=0.5, miscalibration=0))
    users, requests = asked(world, 4_000)
    p = np.exp(requests.heads[1:].astype(np.float64)) - 1e-3
    error = np.log(p / (1 - p)) - requests.videos.odds[1:]
    assert error[0].std() == pytest.approx(0.5, rel=0.03)  # complete
    for head in (1, 2, 3):
        assert (error[head] * np.exp(users.activity / 2)[:, None]).std() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(error[0].ravel(), error[1].ravel())[0, 1]) < 0.03


def test_miscalibrated_heads_are_off_by_a_line_in_log_odds():
    world = World(WorldConfig(mode="b", noise=0, miscalibration=0.5))
    _, requests = asked(world)
    p = np.exp(requests.heads[2].astype(np.float64)) - 1e-3
    odds = requests.videos.odds[2].ravel().astype(np.float64)
    predicted = np.log(p / (1 - p)).ravel()
    slope, offset = np.polyfit(odds, predicted, 1)
    assert np.abs(predicted - slope * odds - offset).max() < 1e-2
    assert abs(slope - 1) > 0.02
    assert abs(offset) > 0.02


def test_more_heads_predict_the_same_behaviours_with_other_errors():
    world = World(WorldConfig(heads=8))
    assert world.heads == ("watch", "complete", "like", "share", "comment", "hate", "watch_again", "complete_again")
    _, requests = asked(world, 4_000)
    assert requests.heads.shape == (8, 4_000, 24)
    assert 0.5 < np.corrcoef(requests.heads[0].ravel(), requests.heads[6].ravel())[0, 1] < 0.99


def test_candidates_are_a_function_of_the_key():
    world = World(WorldConfig())
    _, first = asked(world)
    _, second = asked(world)
    np.testing.assert_array_equal(first.heads, second.heads)
    _, other = asked(world, seed=1)
    assert not np.array_equal(first.heads, other.heads)
    assert np.unique(first.videos.causes[1]).size > 3_000  # of 4,000 videos


def test_the_highest_sums_are_shown():
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(6, 3, 10)).astype(np.float32)
    each = np.tile(np.arange(10), (3, 1))
    requests = Requests(Videos(np.zeros((5, 3, 10)), each, np.zeros((6, 3, 10)), each), heads)
    weights = rng.normal(size=(3, 6)).astype(np.float32)
    expected = np.argsort(-np.einsum("knc,nk->nc", heads, weights), axis=1)[:, :4]
    np.testing.assert_array_equal(np.sort(requests.show(weights, 4).seconds), np.sort(expected))
    rows = np.array([2, 0])
    np.testing.assert_array_equal(np.sort(requests.show(weights[rows], 4, rows).keys), np.sort(expected[rows]))


def test_the_start_lies_within_the_bounds():
    world = World(WorldConfig())
    start = world.static_start()
    assert not world.bounds.outside(start[None]).any()
    np.testing.assert_array_equal(np.sign(start), [1, 1, 1, 1, 1, -1])
    np.testing.assert_array_equal(world.bounds.high, [3, 3, 3, 3, 3, 0])


@pytest.mark.parametrize(("wrong", "match"), [({"shown": 25}, "shown"), ({"worth": {"lik": 1.0}}, "'lik'")])
def test_a_config_that_makes_no_world(wrong, match):
    with pytest.raises(ValueError, match=match):
        WorldConfig(**wrong)
