"""Two requests of two users, every number worked out by hand; then a larger sample with a known winner."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from polyrank.evaluation.fused import COMPOSITE, JudgeConfig, judge, measure, valid_view
from polyrank.evaluation.requests import Requests
from polyrank.progress import Silent

LOG3 = math.log2(3)


@pytest.fixture
def small():
    """Request 10 of user 1: rows 0–2; request 20 of user 2: rows 3–5. `like` is missing where there was no click."""
    return Requests(
        columns={
            "click": np.array([0.9, 0.5, 0.1, 0.2, 0.4, 0.6]),
            "like": np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1]),
            "watch": np.array([60_000.0, 30_000.0, 30_000.0, 120_000.0, 60_000.0, 60_000.0]),
        },
        heads=("click", "like", "watch"),
        labels={
            "click": np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.0]),
            "like": np.array([0.0, np.nan, 1.0, 1.0, 0.0, np.nan]),
            "watch": np.array([5.0, 0.0, 10.0, 30.0, 10.0, 0.0]),
        },
        numeric=frozenset({"watch"}),
        requests=np.array([10, 10, 10, 20, 20, 20]),
        users=np.array([1, 1, 1, 2, 2, 2]),
        reward=np.array([1.0, 0.0, 3.0, 3.0, 1.0, 0.0]),
    )


def test_every_metric_by_hand(small):
    # The order is 0, 1, 2 in request 10, and 3, 4, 5 in request 20.
    scores = np.array([3.0, 2.0, 1.0, 3.0, 2.0, 1.0])
    found = measure(small, scores, JudgeConfig(k=2, minutes="watch"))
    mean = {key: values.mean() for key, values in found.items()}
    # Clicks 1,0,1 → one of two pairs; 1,1,0 → both.
    assert mean["gauc", "click"] == pytest.approx(0.75)
    # Likes of clicked rows alone: 0 before 1, then 1 before 0.
    assert mean["gauc", "like"] == pytest.approx(0.5)
    # Watch 5, 0, 10: one of three pairs; 30, 10, 0: all three.
    assert mean["gauc", "watch"] == pytest.approx((1 / 3 + 1) / 2)
    assert mean["ndcg", "click"] == pytest.approx((1 / (1 + 1 / LOG3) + 1) / 2)
    assert mean["hit_rate", "click"] == 1.0
    assert ("hit_rate", "watch") not in mean
    # Reward 1, 0, 3: DCG@2 = 1, ideal 3 + 1/log2 3.
    assert mean["ndcg", "reward"] == pytest.approx((1 / (3 + 1 / LOG3) + 1) / 2)
    # Clicks weigh reward + 1 = 2 and 4, so 2 of 6 in request 10, all in request 20.
    assert mean["mtf_gauc", "reward"] == pytest.approx((2 / 6 + 1) / 2)
    assert mean["observed", "click"] == pytest.approx((1 + 2) / 2)
    assert mean["observed", "like"] == pytest.approx((0 + 1) / 2)
    assert mean["expected", "click"] == pytest.approx((1.4 + 0.6) / 2)
    # Likes 0.3 in 1.5 minutes, and 0.5 in 3: the sums' ratio, not the ratios' mean.
    assert mean["per_minute", "like"] == pytest.approx((0.3 + 0.5) / 4.5)
    assert mean["kendall", "click"] == pytest.approx((1 - 1) / 2)
    assert mean["kendall", "like"] == pytest.approx((-1 + 1) / 2)


def test_what_is_given_others_counts_times_their_chance(small):
    scores, config = np.array([3.0, 2.0, 1.0, 3.0, 2.0, 1.0]), JudgeConfig(k=2)
    joint = {"like": small.columns["click"] * small.columns["like"]}
    found, plain = (measure(data, scores, config) for data in (replace(small, joint=joint), small))
    assert found["expected", "like"].mean() == pytest.approx((0.09 + 0.10 + 0.06 + 0.08) / 2)
    assert found["expected", "click"].mean() == pytest.approx((1.4 + 0.6) / 2)
    assert found["kendall", "like"].mean() == plain["kendall", "like"].mean()  # an order is that of the prediction


def test_calibrated_heads_expect_what_happens():
    _, data = sampled(4_000)
    p = np.random.default_rng(3).beta(2, 3, data.rows)
    labels = (np.random.default_rng(4).random(data.rows) < p).astype(float)
    data = replace(data, columns={"click": p}, labels={"click": labels})
    found = measure(data, p, JudgeConfig(k=2))
    expected, observed = found["expected", "click"].mean(), found["observed", "click"].mean()
    assert expected == pytest.approx(observed, abs=0.02)
    assert expected > 2 * p.mean() + 0.1  # and more than two candidates at random would bring


def test_valid_view_is_chosen_or_the_first_binary_behaviour(small):
    assert valid_view(small, JudgeConfig()) == "click"
    assert valid_view(small, JudgeConfig(valid="like")) == "like"
    with pytest.raises(ValueError, match="valid must name a binary behaviour"):
        valid_view(small, JudgeConfig(valid="watch"))


def test_corners_are_always_there_and_the_reference_has_no_difference(small):
    table = judge(small, {"fused": np.arange(6.0)}, "click alone", JudgeConfig(replicates=10))
    assert [(r["name"], r["corner"]) for r in table["rankings"]] == [
        ("click alone", True),
        ("like alone", True),
        ("watch alone", True),
        ("fused", False),
    ]
    assert table["rankings"][0]["against"] == {}
    assert table["rankings"][0]["metrics"]["kendall"]["click"]["value"] == 1.0
    assert (table["rows"], table["requests"], table["users"]) == (6, 2, 2)
    json.dumps(table, allow_nan=False)


def test_composite_is_the_weighted_mean_of_gauc(small):
    config = JudgeConfig(replicates=10, weights={"click": 3.0, "like": 1.0})
    table = judge(small, {"fused": np.array([3.0, 2.0, 1.0, 3.0, 2.0, 1.0])}, "click alone", config)
    metric, of = COMPOSITE
    assert table["rankings"][-1]["metrics"][metric][of]["value"] == pytest.approx((3 * 0.75 + 0.5) / 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: judge(data, {}, "fused", JudgeConfig()), "reference must be a ranking"),
        (lambda data: judge(data, {}, "click alone", JudgeConfig(weights={"share": 1.0})), "weights must name"),
        (lambda data: judge(data, {}, "click alone", JudgeConfig(weights={"like": 0.0})), "above 0"),
        (lambda data: judge(data, {}, "click alone", JudgeConfig(minutes="share")), "minutes must name a head"),
        (lambda data: judge(data, {"f": np.full(6, np.nan)}, "click alone", JudgeConfig()), "finite"),
        (lambda data: judge(data.select(np.zeros(6, bool)), {}, "click alone", JudgeConfig()), "without a row"),
    ],
)
def test_wrong_input_is_refused(small, call, message):
    with pytest.raises(ValueError, match=message):
        call(small)


class _Counted(Silent):
    total = 0

    def advance(self, rows, note=""):
        self.total += rows


def sampled(users, seed=0):
    rng = np.random.default_rng(seed)
    rows = users * 6
    truth = rng.normal(size=rows)
    labels = (truth + rng.normal(size=rows) > 0.5).astype(float)
    return truth, Requests(
        columns={"click": 1 / (1 + np.exp(-truth - rng.normal(size=rows)))},
        heads=("click",),
        labels={"click": labels},
        numeric=frozenset(),
        requests=np.arange(rows) // 3,
        users=np.arange(rows) // 6,
        reward=labels,
    )


def test_a_better_order_gains_and_an_equal_one_ties():
    truth, data = sampled(400)
    bar = _Counted()
    config = JudgeConfig(replicates=200)
    table = judge(data, {"truth": truth, "same": 2 * data.columns["click"]}, "click alone", config, bar=bar)
    _, better, same = table["rankings"]
    gauc = better["against"]["gauc"]["click"]
    assert gauc["verdict"] == "gain"
    assert gauc["low"] < gauc["mean"] < gauc["high"]
    assert same["against"]["gauc"]["click"] == {"mean": 0.0, "low": None, "high": None, "verdict": "tie"}
    value = better["metrics"]["gauc"]["click"]
    assert value["low"] < value["value"] < value["high"]
    assert bar.total == 3 + 200
    assert judge(data, {"truth": truth, "same": truth}, "click alone", config)["rankings"][1] == better


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # The truth is GAUC on a sample so large that its own error does not matter.
    truth, population = sampled(60_000, seed=1)
    config = JudgeConfig(replicates=100, level=0.9)
    expected = measure(population, truth, config)["gauc", "click"].mean()
    covered = 0
    for seed in range(60):
        truth, data = sampled(150, seed=seed + 2)
        value = judge(data, {"truth": truth}, "click alone", config)["rankings"][-1]["metrics"]["gauc"]["click"]
        covered += value["low"] <= expected <= value["high"]
    assert 48 <= covered <= 60


def test_users_are_drawn_whole():
    # Every user's requests are copies of one another: more requests a user must not narrow the interval.
    rng = np.random.default_rng(0)
    labels = rng.permuted(np.tile([1.0, 0.0, 0.0, 0.0], (40, 1)), axis=1)

    def width(copies):
        rows = np.repeat(labels, copies, axis=0)
        data = Requests(
            columns={"click": np.tile([0.4, 0.3, 0.2, 0.1], len(rows))},
            heads=("click",),
            labels={"click": rows.ravel()},
            numeric=frozenset(),
            requests=np.arange(rows.size) // 4,
            users=np.arange(rows.size) // (4 * copies),
            reward=rows.ravel(),
        )
        value = judge(data, {}, "click alone", JudgeConfig())["rankings"][0]["metrics"]["gauc"]["click"]
        return value["high"] - value["low"]

    assert width(5) == pytest.approx(width(1), rel=1e-9)
