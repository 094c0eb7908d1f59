import numpy as np
import pytest

from polyrank.evaluation.cohorts import buckets, cohort_table
from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests


def test_by_hand():
    data = Requests(
        columns={"click": np.array([0.9, 0.1, 0.2, 0.8])},
        heads=("click",),
        labels={"click": np.array([1.0, 0.0, 1.0, 0.0])},
        numeric=frozenset(),
        requests=np.array([0, 0, 1, 1]),
        users=np.array([5, 5, 6, 6]),
        reward=np.array([1.0, 0.0, 1.0, 0.0]),
    )
    scores = {"click": data.columns["click"], "reverse": -data.columns["click"]}
    cohorts = {"user": np.array(["old", "old", "new", "new"]), "length": np.array([1, 2, 2, 1])}
    table = cohort_table(data, scores, cohorts, JudgeConfig(k=1))
    assert [(e["cohort"], e["value"], e["rows"], e["requests"], e["users"]) for e in table] == [
        ("user", "new", 2, 1, 1),
        ("user", "old", 2, 1, 1),
        ("length", 1, 2, 2, 2),
        ("length", 2, 2, 2, 2),
    ]
    assert table[0]["metrics"]["gauc"]["click"] == {"click": 0.0, "reverse": 1.0}
    assert table[1]["metrics"]["mtf_gauc"]["reward"] == {"click": 1.0, "reverse": 0.0}
    assert table[2]["metrics"]["gauc"]["click"] == {"click": None, "reverse": None}  # one row a request


def test_buckets_are_of_equal_mass_and_say_what_they_hold():
    values = np.array([5.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    high, middle, low = "3: above 4 s", "2: up to 4 s", "1: up to 2 s"
    assert buckets(values, 3, "s").tolist() == [high, low, low, middle, middle, high]
    assert set(buckets(np.ones(4), 3)) == {"1: all"}
    assert len(buckets(np.zeros(0), 3)) == 0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_buckets_ascend(count):
    values = np.random.default_rng(0).exponential(size=500)
    named = buckets(values, count)
    order = np.argsort(values)
    assert (np.diff([int(name.split(":")[0]) for name in named[order]]) >= 0).all()
    sizes = np.unique(named, return_counts=True)[1]
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= count
