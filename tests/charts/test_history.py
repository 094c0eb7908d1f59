"""Figures of a training hold its numbers; conflict is the mean over what was recorded."""

import math

import pytest

from polyrank.charts.history import balance_panels, conflict_figure, lines_figure, pair_columns, varies


def matrix(ab: float, ac: float, bc: float) -> list[list[float]]:
    return [[1.0, ab, ac], [ab, 1.0, bc], [ac, bc, 1.0]]


HISTORY = {"step": [1, 2, 3], "cosines": [matrix(0.5, -1.0, 0.0), None, matrix(0.25, -0.5, math.nan)]}


def test_every_pair_over_time() -> None:
    assert pair_columns(HISTORY, ["a", "b", "c"]) == {
        "a and b": [0.5, None, 0.25],
        "a and c": [-1.0, None, -0.5],
        "b and c": [0.0, None, None],
    }


def test_conflict_is_the_mean_of_what_was_recorded() -> None:
    (cells,) = conflict_figure(HISTORY, ["a", "b", "c"]).data
    assert [list(row) for row in cells.z] == matrix(0.375, -0.75, 0.0)
    assert (cells.zmin, cells.zmax) == (-1, 1)
    assert not conflict_figure({}, ["a", "b"]).data
    assert not conflict_figure({"cosines": [None]}, ["a", "b"]).data


def test_two_tasks_need_no_matrix() -> None:
    pair = {"step": [1], "cosines": [[[1.0, 0.5], [0.5, 1.0]]]}
    assert [panel.title for panel in balance_panels(pair, ["a", "b"])] == ["Agreement over time"]
    assert [panel.title for panel in balance_panels(HISTORY, ["a", "b", "c"])] == ["Agreement over time", "Conflict"]
    assert balance_panels({}, ["a", "b"]) == []


def test_a_line_leaves_out_what_is_no_number() -> None:
    figure = lines_figure([1, 2, 3], {"a": [0.5, None, math.nan], "b": [None, None, None]}, best=2)
    assert [(trace.name, trace.y) for trace in figure.data] == [("a", (0.5, None, None))]
    assert figure.layout.shapes[0].x0 == 2
    assert not lines_figure([1], {"a": [None]}, best=1).layout.shapes


def test_many_points_are_a_line_without_marks() -> None:
    assert lines_figure(range(30), {"a": [0.5] * 30}).data[0].mode == "lines+markers"
    line = lines_figure(range(31), {"a": [0.5] * 31}, across="steps").data[0]
    assert line.mode == "lines"
    assert "after %{x:,} steps" in line.hovertemplate


def test_a_logarithmic_axis_has_no_zero() -> None:
    figure = lines_figure([1, 2], {"a": [0.0, 2.0]}, logarithmic=True)
    assert figure.data[0].y == (None, 2.0)
    assert figure.layout.yaxis.type == "log"


@pytest.mark.parametrize(
    ("columns", "expected"), [({"a": [1, 1], "b": [2, None]}, False), ({"a": [1, 1], "b": [1, 2]}, True), ({}, False)]
)
def test_whether_weights_move(columns: dict[str, list[float]], expected: bool) -> None:
    assert varies(columns) is expected
