import numpy as np
import pytest

from polyrank.evaluation.influence import influence
from polyrank.evaluation.requests import Requests
from polyrank.metrics.concordance import kendall
from polyrank.metrics.toplists import ndcg


def rows_of(click, like, reward, requests):
    return Requests(
        columns={"click": np.array(click), "like": np.array(like)},
        heads=("click", "like"),
        labels={"click": np.zeros(len(click))},
        numeric=frozenset(),
        requests=np.array(requests),
        users=np.array(requests),
        reward=np.array(reward),
    )


def test_by_hand():
    # One request of two rows; reward on the first, which only `click` puts first.
    data = rows_of([0.8, 0.2], [0.1, 0.4], [1.0, 0.0], [0, 0])
    found = influence(data, lambda columns, _: 2 * columns["click"] + columns["like"], 1)
    # Score .17…: 1.7 > 0.8. Without click .1 < .4, so NDCG@1 falls from 1 to 0; without like nothing changes.
    assert found["click"]["ndcg_drop"] == 1.0
    assert found["like"]["ndcg_drop"] == 0.0
    assert (found["click"]["kendall"], found["like"]["kendall"]) == (-1.0, 1.0)
    # Deviations within the request: 2 · .3 against .15.
    assert found["click"]["share"] == pytest.approx(0.6 / 0.75)
    assert found["like"]["share"] == pytest.approx(0.15 / 0.75)


def test_a_head_that_is_constant_within_requests_decides_nothing():
    data = rows_of([0.8, 0.8, 0.2, 0.2], [0.1, 0.4, 0.3, 0.2], [1.0, 0.0, 0.0, 1.0], [0, 0, 1, 1])
    found = influence(data, lambda columns, _: columns["click"] + columns["like"], 1)
    assert found["click"]["share"] == pytest.approx(0.0, abs=1e-12)
    assert found["click"]["ndcg_drop"] == 0.0
    assert found["like"]["share"] == pytest.approx(1.0)


def test_in_a_product_removing_a_head_leaves_the_other_factor():
    rng = np.random.default_rng(0)
    click, like = rng.uniform(0.1, 0.9, (2, 60))
    data = rows_of(click, like, rng.random(60), np.arange(60) // 6)
    found = influence(data, lambda columns, _: columns["click"] ** 0.7 * columns["like"] ** 2, 3)
    groups = data.requests
    whole, rest = (ndcg(scores, data.reward, groups, 3).mean() for scores in (click**0.7 * like**2, like))
    assert found["click"]["ndcg_drop"] == pytest.approx(whole - rest, abs=1e-12)
    assert found["click"]["kendall"] == kendall(click**0.7 * like**2, like, groups).mean()
