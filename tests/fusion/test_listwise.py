import numpy as np
import pytest

from polyrank.errors import ConfigError
from polyrank.evaluation.requests import Requests
from polyrank.fusion.learned import learn
from polyrank.fusion.listwise import _priors, features, place_within
from polyrank.fusion.listwise_nets import ListwiseConfig
from polyrank.fusion.scaling import Scaling
from polyrank.metrics.concordance import kendall


def data_of(requests=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = requests * 6
    click, watch = rng.uniform(0.05, 0.9, rows), rng.exponential(30, rows)
    return Requests(
        columns={"click": click, "watch": watch},
        heads=("click", "watch"),
        labels={"click": np.zeros(rows)},
        numeric=frozenset(),
        requests=np.arange(rows) // 6,
        users=np.arange(rows) // 6,
        reward=rng.integers(0, 2, rows).astype(float),
    )


def test_place_by_hand():
    values = np.array([5.0, 7.0, 5.0, 1.0])
    np.testing.assert_allclose(place_within(values, np.array([1, 1, 1, 2])), [0.25, 1.0, 0.25, 0.5])


def test_features_are_heads_places_and_context():
    columns = {"click": np.exp([-1.0, -3.0]), "length": np.array([10.0, 20.0])}
    scaling = Scaling.fit(columns, ("click",), ("length",), ())
    np.testing.assert_allclose(features(scaling, columns, np.zeros(2, np.int64)), [[1, 1, -0.5], [-1, 0, 0.5]])


def test_prior_per_time_divides_by_the_predicted_watch_time():
    data = data_of()
    scaling = Scaling.fit(data.columns, data.heads, (), ())
    plain = _priors(data, scaling, ListwiseConfig())
    per_time = _priors(data, scaling, ListwiseConfig(per_time="watch"))
    ratio = data.columns["click"] / data.columns["watch"]
    assert kendall(plain[0], data.columns["click"], data.requests).mean() == 1.0
    assert kendall(per_time[0], ratio, data.requests).mean() == 1.0
    assert kendall(per_time[1], data.columns["watch"], data.requests).mean() == 1.0


def test_the_prior_keeps_a_head_that_the_reward_forgets():
    train, valid, test = (
        Requests(**{**vars(data), "reward": data.columns["click"]})
        for data in (data_of(150), data_of(40, seed=1), data_of(60, seed=2))
    )
    knobs = {"epochs": 15, "width": 16, "attention_heads": 2, "dropout": 0.0, "pairs": 1_000}
    with_watch = {}
    for prior in (0.0, 10.0):
        scores = learn("listwise", train, valid, config=ListwiseConfig(prior=prior, **knobs)).score(
            test.columns, test.requests
        )
        with_watch[prior] = kendall(scores, test.columns["watch"], test.requests).mean()
    assert with_watch[0.0] < 0.2
    assert with_watch[10.0] > with_watch[0.0] + 0.2


@pytest.mark.parametrize("knobs", [{"per_time": "dwell"}, {"width": 10, "attention_heads": 4}])
def test_knobs_that_do_not_fit_are_named(knobs):
    with pytest.raises(ConfigError, match=r"per_time must name a head|attention_heads must divide"):
        learn("listwise", data_of(), data_of(), config=ListwiseConfig(**knobs))
