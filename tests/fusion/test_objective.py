from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from polyrank.errors import DataError
from polyrank.evaluation.fused import JudgeConfig, judge
from polyrank.evaluation.requests import Requests
from polyrank.fusion import objective as module
from polyrank.fusion.objective import Goal, Objective

CONFIG = JudgeConfig(k=3, weights={"click": 1.0, "like": 2.0, "watch": 0.5}, replicates=10)


@pytest.mark.parametrize("goal", ["composite", "ndcg", "mtf_gauc"])
@pytest.mark.parametrize("size", [1, 2, 6, 60])
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_what_the_judge_measures(requests: Callable[..., Requests], goal: Goal, size: int, ties: bool) -> None:
    data = requests(size=size)
    scores = np.random.default_rng(1).random(data.rows)
    scores = np.round(scores, 1) if ties else scores
    if size == 1:
        with pytest.raises(DataError, match="differ"):
            Objective(data, "composite", CONFIG)
        return
    objective = Objective(data, goal, CONFIG)
    found = objective.measure(scores[objective.order])
    table = judge(data, {"fused": scores}, "click alone", CONFIG)["rankings"][-1]["metrics"]
    where = {"composite": ("composite", "gauc"), "ndcg": ("ndcg", "reward"), "mtf_gauc": ("mtf_gauc", "reward")}[goal]
    assert found.value == pytest.approx(table[where[0]][where[1]]["value"], abs=1e-12)
    for name, value in found.behaviours.items():
        assert value == pytest.approx(table["gauc"][name]["value"], abs=1e-12)


def test_by_hand() -> None:
    data = Requests(
        columns={"click": np.array([0.9, 0.1, 0.5, 0.4, 0.3])},
        heads=("click",),
        labels={"click": np.array([1.0, 0.0, 0.0, 1.0, 1.0])},
        numeric=frozenset(),
        requests=np.array([7, 7, 3, 3, 3]),
        users=np.array([1, 1, 2, 2, 2]),
        reward=np.array([1.0, 0.0, 0.0, 1.0, 1.0]),
    )
    measured = Objective(data, "composite", JudgeConfig())
    # Request 7 is in order (AUC 1, 2 rows); in request 3 the negative is above both positives (AUC 0, 3 rows).
    assert measured.measure(data.columns["click"][measured.order]).value == pytest.approx(2 / 5)
    measured = Objective(data, "ndcg", JudgeConfig(k=2))
    # DCG of request 3: 0 + 1/log2(3); its best 1 + 1/log2(3).
    expected = (1 + (1 / np.log2(3)) / (1 + 1 / np.log2(3))) / 2
    assert measured.measure(data.columns["click"][measured.order]).value == pytest.approx(expected)


def test_many_pairs_are_counted_another_way(requests: Callable[..., Requests], monkeypatch: pytest.MonkeyPatch) -> None:
    data = requests(size=40)
    objective, scores = Objective(data, "composite", CONFIG), np.round(np.random.default_rng(0).random(data.rows), 2)
    before = objective.measure(scores).behaviours["watch"]
    monkeypatch.setattr(module, "_MANY_PAIRS", 0)
    assert objective.measure(scores).behaviours["watch"] == pytest.approx(before, abs=1e-12)


def test_a_behaviour_that_does_not_count_may_be_undefined(requests: Callable[..., Requests]) -> None:
    data = requests()
    flat = replace(data, labels={**data.labels, "like": np.zeros(data.rows)})
    found = Objective(flat, "composite", JudgeConfig(weights={"click": 1.0})).measure(np.zeros(data.rows))
    assert np.isnan(found.behaviours["like"])
    assert found.value == pytest.approx(0.5)
    with pytest.raises(DataError, match="like"):
        Objective(flat, "composite", CONFIG)
