"""Figures of a search hold its trials: only complete ones count, settings lie where they are on their own scale."""

from typing import Any

import pytest

from polyrank.charts.search import (
    evaluations_figure,
    importance_figure,
    parallel_trials_figure,
    progress_figure,
    slice_figure,
)

SPACE = {
    "a": {"low": 0.01, "high": 100.0, "log": True},
    "b": {"low": 0, "high": 10},
    "c": {"choices": ["x", "y", [1, 2]]},
}


def trial(number: int, values: list[float] | None, state: str = "complete", **parameters: Any) -> dict[str, Any]:
    return {"number": number, "state": state, "values": values, "parameters": parameters, "evaluations": []}


TRIALS = [
    trial(0, [0.5, 0.9], a=1.0, b=5, c="x"),
    trial(1, [0.7, 0.8], a=0.01, b=10, c=[1, 2]),
    trial(2, [0.6, 0.7], a=100.0, b=0, c="y"),
    trial(3, None, "fail", a=1.0, b=1, c="y"),
]


def test_the_best_so_far_never_falls() -> None:
    line, dots = progress_figure(TRIALS, 0).data
    assert line.y == (0.5, 0.7, 0.7)
    assert (dots.x, dots.y) == ((0, 1, 2), (0.5, 0.7, 0.6))
    assert progress_figure(TRIALS, 1).data[0].y == (0.9, 0.9, 0.9)


def test_no_complete_trial_is_no_figure() -> None:
    assert not progress_figure(TRIALS[3:], 0).data
    assert not slice_figure(TRIALS[3:], SPACE["a"], "a", 0).data
    assert not parallel_trials_figure(TRIALS[:1], SPACE, ["o"]).data
    assert not evaluations_figure(TRIALS).data
    assert not importance_figure({"a": None}).data


def test_settings_lie_on_their_own_scales() -> None:
    figure = parallel_trials_figure(TRIALS, SPACE, ["first", "second"])
    lines = {trace.name: trace.y for trace in figure.data}
    assert list(lines) == ["trial 0", "trial 2", "trial 1"]
    assert lines["trial 0"] == pytest.approx((0.5, 0.5, 0.0, 0.0, 1.0))
    assert lines["trial 1"] == pytest.approx((0.0, 1.0, 1.0, 1.0, 0.5))
    assert lines["trial 2"] == pytest.approx((1.0, 0.0, 0.5, 0.5, 0.0))
    assert [note.text for note in figure.layout.annotations] == [
        *("0.01", "100", "0", "10", "x", "[1, 2]", "0.5", "0.7", "0.7", "0.9")
    ]


def test_a_slice_shows_one_setting() -> None:
    (dots,) = slice_figure(TRIALS, SPACE["b"], "b", 1).data
    assert (dots.x, dots.y, dots.customdata) == ((5, 10, 0), (0.9, 0.8, 0.7), (0, 1, 2))
    (dots,) = slice_figure(TRIALS, SPACE["c"], "c", 0).data
    assert dots.x == ("x", "[1, 2]", "y")
    axis = slice_figure(TRIALS, SPACE["a"], "a", 0).layout.xaxis
    assert axis.type == "log"
    assert axis.tickvals == pytest.approx((0.01, 0.1, 1.0, 10.0, 100.0))


def test_importance_is_sorted() -> None:
    (bars,) = importance_figure({"a": 0.2, "b": 0.8}).data
    assert (bars.y, bars.x) == (("b", "a"), (0.8, 0.2))


def test_evaluations_of_pruned_trials_are_dotted() -> None:
    pruned = trial(4, None, "pruned") | {"evaluations": [0.1, 0.2]}
    whole = trial(5, [0.5]) | {"evaluations": [0.3, None, 0.5]}
    first, second = evaluations_figure([whole, pruned]).data
    assert (first.name, first.line.dash, first.y) == ("trial 4, pruned", "dot", (0.1, 0.2))
    assert (second.name, second.line.dash, second.y) == ("trial 5", "solid", (0.3, None, 0.5))
