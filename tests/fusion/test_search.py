from collections.abc import Callable

import numpy as np
import pytest

from polyrank.errors import ConfigError
from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import preset
from polyrank.fusion.sampling import SEVERAL, Method, SearchConfig
from polyrank.fusion.scope import HeadKind, Scope
from polyrank.fusion.search import Found, Problem, search
from polyrank.fusion.seeds import prepared

Run = Callable[..., Found]
HEADS: dict[str, HeadKind] = {"click": "probability", "like": "probability", "hate": "probability"}
JUDGE = JudgeConfig(weights={"click": 1.0, "like": 2.0})


@pytest.mark.parametrize("method", ["cmaes", "tpe"])
def test_planted_weights_are_found(method: Method, planted: Callable[..., tuple[Requests, np.ndarray]]) -> None:
    data, w = planted()
    objective = Objective(data, "composite", JudgeConfig())
    template = prepared("log_sum", dict.fromkeys(data.heads, "probability"), (), "", data, objective)
    found = search(template, data, objective, SearchConfig(method=method, trials=150, jobs=1))
    v = np.array([found.parameters.get(f"w_{head}", 1.0) for head in data.heads])
    angle = np.degrees(np.arccos(v @ w / np.linalg.norm(v) / np.linalg.norm(w)))
    assert angle < (3 if method == "cmaes" else 15)


def test_it_starts_from_what_is_known(requests: Callable[..., Requests], run: Run) -> None:
    data = requests(300)
    current = preset("log_sum", HEADS).bind({"w_like": 0.7, "w_hate": 0.1})
    template = preset("log_sum", HEADS)
    found = run(data, template, current=current)
    origins = {trial.origin: trial.parameters for trial in found.trials if trial.origin}
    assert set(origins) == {"start", "equal contribution", "click alone", "like alone", "hate alone", "current"}
    assert origins["current"] == {"w_like": 0.7, "w_hate": 0.1}
    now = Problem(template, data, Objective(data, "composite", JUDGE)).formula(current, data)
    assert next(t.value for t in found.trials if t.origin == "current") == pytest.approx(now.value, abs=1e-12)


def test_no_behaviour_falls_below_what_is_allowed(requests: Callable[..., Requests], run: Run) -> None:
    data = requests(1200)
    current = Formula.parse("click", Scope(HEADS))
    free, bound = (run(data, current=current, epsilon=epsilon, trials=60) for epsilon in (-1.0, 0.0))
    objective = Objective(data, "composite", JUDGE)
    floor = objective.measure(current.order(data.columns)[objective.order]).behaviours
    assert any(trial.violation > 0 for trial in bound.trials)
    assert bound.trials[bound.best].violation == 0
    assert all(bound.trials[bound.best].behaviours[name] >= value for name, value in floor.items())
    assert any(free.trials[free.best].behaviours[name] < value for name, value in floor.items())


@pytest.mark.parametrize("method", SEVERAL)
def test_several_goals_give_a_front(method: Method, requests: Callable[..., Requests], run: Run) -> None:
    found = run(requests(600), method=method, trials=60, current=Formula.parse("click", Scope(HEADS)), epsilon=0.3)
    front = [found.trials[index].behaviours for index in found.front]
    assert len(front) > 1
    for one in front:
        assert not any(all(o[b] >= one[b] for b in one) and o != one and any(o[b] > one[b] for b in one) for o in front)


@pytest.mark.parametrize("goal", ["ndcg", "mtf_gauc"])
def test_other_goals(goal: str, requests: Callable[..., Requests], run: Run) -> None:
    found = run(requests(300), goal=goal)
    assert found.trials[found.best].value >= max(trial.value for trial in found.trials if trial.origin)


def test_what_cannot_be_searched(requests: Callable[..., Requests], run: Run) -> None:
    data = requests(120)
    with pytest.raises(ConfigError, match="parameters"):
        run(data, Template.parse("click", Scope(HEADS)))
    with pytest.raises(ConfigError, match="current"):
        run(data, epsilon=0.1)
