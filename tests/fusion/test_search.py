import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from polyrank.errors import ConfigError, RunError
from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.fusion import search as module
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import preset
from polyrank.fusion.search import SEVERAL, Found, Method, Problem, SearchConfig, search
from polyrank.fusion.seeds import prepared
from polyrank.fusion.shapes import HeadKind, Parameter, Scope
from polyrank.progress import Silent

METHODS = get_args(Method)
HEADS: dict[str, HeadKind] = {"click": "probability", "like": "probability", "hate": "probability"}
JUDGE = JudgeConfig(weights={"click": 1.0, "like": 2.0})


def run(data: Requests, template: Template | None = None, **knobs: Any) -> Found:
    more = {name: knobs.pop(name) for name in ("current", "journal", "bar") if name in knobs}
    objective = Objective(data, knobs.get("goal", "composite"), JUDGE)
    template = template or prepared("log_sum", HEADS, ["hate"], "", data, objective)
    return search(template, data, objective, SearchConfig(**{"trials": 30, "jobs": 1, **knobs}), **more)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_reproducible_whatever_the_threads(method: Method, requests: Callable[..., Requests]) -> None:
    data = requests(300)
    one, two = (run(data, method=method, jobs=jobs) for jobs in (1, 3))
    assert one == two
    assert len(one.trials) == 30  # of a grid: 5 × 5 after five starts
    assert one.trials[one.best].value == max(trial.value for trial in one.trials)
    assert any(trial.origin == "" for trial in one.trials)
    other = run(data, method=method, seed=1)
    assert (other.trials == one.trials) == (method == "grid")


def _counted(patched: pytest.MonkeyPatch) -> list[Any]:
    calls, original = [], Problem.__call__

    def call(self: Problem, parameters: dict[str, float]) -> Any:
        calls.append(parameters)
        return original(self, parameters)

    patched.setattr(Problem, "__call__", call)
    return calls


@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_equals_uninterrupted(
    method: Method, requests: Callable[..., Requests], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, whole = requests(300), tmp_path / "whole.jsonl"
    expected = run(data, method=method, journal=whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    for kept in (0, 3, 17, len(lines)):
        cut = tmp_path / f"{kept}.jsonl"
        cut.write_bytes(b"".join(lines[:kept]) + b'{"origin": "", "para')  # killed while it wrote
        with monkeypatch.context() as patched:
            calls = _counted(patched)
            assert run(data, method=method, journal=cut) == expected
        assert len(calls) == len(lines) - kept
        assert cut.read_bytes() == whole.read_bytes()


def test_a_journal_of_another_search_is_refused(requests: Callable[..., Requests], tmp_path: Path) -> None:
    data, journal = requests(300), tmp_path / "trials.jsonl"
    run(data, journal=journal)
    with pytest.raises(RunError, match="the search that was begun"):
        run(data, journal=journal, seed=1)


@pytest.mark.parametrize("method", ["cmaes", "tpe"])
def test_planted_weights_are_found(method: Method, planted: Callable[..., tuple[Requests, np.ndarray]]) -> None:
    data, w = planted()
    objective = Objective(data, "composite", JudgeConfig())
    template = prepared("log_sum", dict.fromkeys(data.heads, "probability"), (), "", data, objective)
    found = search(template, data, objective, SearchConfig(method=method, trials=150, jobs=1))
    v = np.array([found.parameters.get(f"w_{head}", 1.0) for head in data.heads])
    angle = np.degrees(np.arccos(v @ w / np.linalg.norm(v) / np.linalg.norm(w)))
    assert angle < (3 if method == "cmaes" else 15)


def test_it_starts_from_what_is_known(requests: Callable[..., Requests]) -> None:
    data = requests(300)
    current = preset("log_sum", HEADS).bind({"w_like": 0.7, "w_hate": 0.1})
    template = preset("log_sum", HEADS)
    found = run(data, template, current=current)
    origins = {trial.origin: trial.parameters for trial in found.trials if trial.origin}
    assert set(origins) == {"start", "equal contribution", "click alone", "like alone", "hate alone", "current"}
    assert origins["current"] == {"w_like": 0.7, "w_hate": 0.1}
    now = Problem(template, data, Objective(data, "composite", JUDGE)).formula(current, data)
    assert next(t.value for t in found.trials if t.origin == "current") == pytest.approx(now.value, abs=1e-12)


def test_no_behaviour_falls_below_what_is_allowed(requests: Callable[..., Requests]) -> None:
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
def test_several_goals_give_a_front(method: Method, requests: Callable[..., Requests]) -> None:
    found = run(requests(600), method=method, trials=60, current=Formula.parse("click", Scope(HEADS)), epsilon=0.3)
    front = [found.trials[index].behaviours for index in found.front]
    assert len(front) > 1
    for one in front:
        assert not any(all(o[b] >= one[b] for b in one) and o != one and any(o[b] > one[b] for b in one) for o in front)


@pytest.mark.parametrize("goal", ["ndcg", "mtf_gauc"])
def test_other_goals(goal: str, requests: Callable[..., Requests]) -> None:
    found = run(requests(300), goal=goal)
    assert found.trials[found.best].value >= max(trial.value for trial in found.trials if trial.origin)


def test_a_grid_is_even_and_says_what_it_needs(requests: Callable[..., Requests]) -> None:
    data = requests(120)
    template = Template.parse("click^w * like^v", Scope(HEADS, (), dict.fromkeys("wv", Parameter(1.0, 0.1, 10.0))))
    found = run(data, template, method="grid", trials=31)
    tried = np.array([list(trial.parameters.values()) for trial in found.trials if not trial.origin])
    steps = np.geomspace(0.1, 10, 5)
    np.testing.assert_allclose(np.unique(tried[:, 0]), steps)
    assert len(np.unique(tried, axis=0)) == 25 == len(tried)
    with pytest.raises(ConfigError, match="allow"):
        run(data, method="grid", trials=5)


def test_progress_names_the_best(requests: Callable[..., Requests]) -> None:
    class Counted(Silent):
        total, notes = 0, []

        def advance(self, rows: int, note: str = "") -> None:
            self.total += rows
            self.notes.append(note)

    bar = Counted()
    run(requests(300), bar=bar)
    assert bar.total == 30
    assert bar.notes[-1].startswith("best 0.")


def test_what_cannot_be_searched(requests: Callable[..., Requests]) -> None:
    data = requests(120)
    with pytest.raises(ConfigError, match="parameters"):
        run(data, Template.parse("click", Scope(HEADS)))
    with pytest.raises(ConfigError, match="current"):
        run(data, epsilon=0.1)


def test_the_journal_is_plain_json(requests: Callable[..., Requests], tmp_path: Path) -> None:
    run(requests(120), journal=tmp_path / "trials.jsonl", trials=8)
    records = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert set(records[0]) == {"origin", "parameters", "value", "behaviours", "violation"}
    assert module._read_journal(tmp_path / "trials.jsonl") == records
