import math
from pathlib import Path

import numpy as np
import pytest

from polyrank.simulator.behaviours import BEHAVIOURS, CAUSES, ENJOYMENT, LOG_ODDS, behave, enjoyment, log_odds
from polyrank.simulator.draws import keys

AT = {name: place for place, name in enumerate(BEHAVIOURS)}


def causes(**named):
    return np.array([named.get(name, 0.0) for name in CAUSES], np.float32)[:, None, None]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_log_odds_by_hand():
    odds = log_odds(causes(relevance=1, quality=2, bait=-1, disappointment=0.5), np.array([0.3], np.float32))
    assert odds.shape == (6, 1, 1)
    assert odds[AT["like"], 0, 0] == pytest.approx(-2.5 + 0.3 + 0.7 + 2 * 0.8 + 0.4 - 0.5 * 0.3, abs=1e-5)
    assert odds[AT["watch"], 0, 0] == pytest.approx(-0.3 + 0.6 + 2 * 0.2 - 1.0, abs=1e-5)
    ratio = math.exp(-0.3)  # m / (1 - m)
    assert sigmoid(odds[AT["complete"], 0, 0]) == pytest.approx(1 - 0.9**ratio, abs=1e-5)


def test_enjoyment_by_hand():
    assert enjoyment(causes(relevance=1, quality=2, bait=3, disappointment=0.5))[0, 0] == pytest.approx(
        0.3 + 0.6 - 1.2 * 0.5, abs=1e-6
    )


def test_bait_is_watched_by_everybody_and_disappoints_the_sensitive():
    plain, bait = causes(), causes(bait=1.0, disappointment=1.5)
    still = np.zeros(1, np.float32)
    assert log_odds(bait, still)[AT["watch"]] > log_odds(plain, still)[AT["watch"]]
    assert enjoyment(bait) < enjoyment(plain) < enjoyment(causes(bait=1.0, disappointment=-1.5))


def test_behaviours_come_as_often_as_their_chances_say():
    rows = 200_000
    odds = np.tile(log_odds(causes(relevance=1, quality=1), np.ones(1, np.float32)), (1, rows, 1))
    seconds = np.full((rows, 1), 20, np.float32)
    happened = behave(keys(5, np.arange(rows))[:, None], odds, seconds)[..., 0]
    for name in BEHAVIOURS[1:]:
        chance = sigmoid(odds[AT[name], 0, 0])
        error = math.sqrt(chance * (1 - chance) / rows)
        assert happened[AT[name]].mean() == pytest.approx(chance, abs=4 * error), name
        assert set(np.unique(happened[AT[name]])) == {0, 1}
    share = happened[AT["watch"]].astype(np.float64) / 20
    mean = sigmoid(odds[AT["watch"], 0, 0])
    a = mean / (1 - mean)
    assert share.mean() == pytest.approx(mean, abs=4 * share.std() / math.sqrt(rows))
    assert share.var() == pytest.approx(a / ((a + 1) ** 2 * (a + 2)), rel=0.02)  # of Beta(a, 1)
    np.testing.assert_array_equal(happened[AT["complete"]] == 1, share >= 0.9)


def test_what_happens_to_a_video_is_in_its_key():
    odds, seconds = np.zeros((6, 2, 1), np.float32), np.ones((2, 1), np.float32)
    both = behave(keys(5, np.array([[4], [9]])), odds, seconds)
    alone = behave(keys(5, np.array([[9]])), odds[:, :1], seconds[:1])
    np.testing.assert_array_equal(both[:, 1], alone[:, 0])


def test_the_documented_table_is_the_world_s():
    page = (Path(__file__).parents[2] / "docs/simulator.md").read_text(encoding="utf-8")
    for name, (base, activity, effects) in LOG_ODDS.items():
        cells = [f"{number:g}".replace("-", "−") for number in (base, activity, *effects)]
        assert f"| {name} | {' | '.join(cells)} |" in page
    relevance, quality, _, _, disappointment = ENJOYMENT
    assert f"{relevance} relevance + {quality} quality − {-disappointment} sensitivity × bait" in page
