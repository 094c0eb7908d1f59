import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from polyrank.errors import ConfigError, RunError
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Template
from polyrank.fusion.sampling import Method, _read_journal
from polyrank.fusion.scope import Parameter, Scope
from polyrank.fusion.search import Found, Problem
from polyrank.progress import Silent

METHODS = get_args(Method)
Run = Callable[..., Found]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_reproducible_whatever_the_threads(
    method: Method, requests: Callable[..., Requests], run: Run
) -> None:
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
    method: Method, requests: Callable[..., Requests], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
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


def test_a_journal_of_another_search_is_refused(requests: Callable[..., Requests], tmp_path: Path, run: Run) -> None:
    data, journal = requests(300), tmp_path / "trials.jsonl"
    run(data, journal=journal)
    with pytest.raises(RunError, match="the search that was begun"):
        run(data, journal=journal, seed=1)


def test_a_grid_is_even_and_says_what_it_needs(requests: Callable[..., Requests], run: Run) -> None:
    data = requests(120)
    template = Template.parse(
        "click^w * like^v",
        Scope({"click": "probability", "like": "probability"}, (), dict.fromkeys("wv", Parameter(1.0, 0.1, 10.0))),
    )
    found = run(data, template, method="grid", trials=31)
    tried = np.array([list(trial.parameters.values()) for trial in found.trials if not trial.origin])
    steps = np.geomspace(0.1, 10, 5)
    np.testing.assert_allclose(np.unique(tried[:, 0]), steps)
    assert len(np.unique(tried, axis=0)) == 25 == len(tried)
    with pytest.raises(ConfigError, match="allow"):
        run(data, method="grid", trials=5)


def test_progress_names_the_best(requests: Callable[..., Requests], run: Run) -> None:
    class Counted(Silent):
        total, notes = 0, []

        def advance(self, rows: int, note: str = "") -> None:
            self.total += rows
            self.notes.append(note)

    bar = Counted()
    run(requests(300), bar=bar)
    assert bar.total == 30
    assert bar.notes[-1].startswith("best 0.")


def test_the_journal_is_plain_json(requests: Callable[..., Requests], tmp_path: Path, run: Run) -> None:
    run(requests(120), journal=tmp_path / "trials.jsonl", trials=8)
    records = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert set(records[0]) == {"origin", "parameters", "value", "behaviours", "violation"}
    assert _read_journal(tmp_path / "trials.jsonl") == records
