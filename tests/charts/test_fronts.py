"""The Pareto picture: a staircase under the front, points where they were measured, an axis a task beyond two."""

import math

from polyrank.charts.fronts import Point, front_figure, roles
from polyrank.plots import Stroke

BLUE, GREY = Stroke("#0072b2", ""), Stroke("#8a94a3", "")


def test_two_objectives_are_a_plane_with_a_staircase() -> None:
    points = [
        Point("a", (1.0, 4.0), "front", BLUE, "1", [(0.5, 4.5), (1.5, 3.5)]),
        Point("b", (3.0, 2.0), "front", BLUE, "2"),
        Point("c", (0.5, 1.0), "dominated", BLUE, "3"),
        Point("d", (2.0, None), "dominated", BLUE),
        Point("e", (2.0, math.nan), "dominated", BLUE),
        Point("alone", (2.0, 3.0), "reference", GREY),
    ]
    stairs, runs, *drawn = front_figure(points, ["x", "y"], [0.0, 0.0]).data
    assert list(zip(stairs.x, stairs.y, strict=True)) == [(0.0, 4.0), (1.0, 4.0), (3.0, 2.0), (3.0, 0.0)]
    assert stairs.line.shape == "vh"  # down at the better first value, then right: what is below is dominated
    assert (runs.x, runs.y) == ((0.5, 1.5), (4.5, 3.5))
    assert [(trace.name, trace.x[0], trace.y[0]) for trace in drawn] == [
        ("a", 1.0, 4.0),
        ("b", 3.0, 2.0),
        ("c", 0.5, 1.0),
        ("alone", 2.0, 3.0),
    ]
    assert [trace.marker.symbol for trace in drawn] == ["circle", "circle", "circle-open", "diamond-open"]


def test_without_a_reference_the_staircase_begins_at_the_worst_of_what_is_shown() -> None:
    points = [Point("a", (1.0, 2.0), "front", BLUE), Point("b", (0.5, 1.0), "dominated", BLUE)]
    stairs, one, _ = front_figure(points, ["x", "y"]).data
    assert list(zip(stairs.x, stairs.y, strict=True)) == [(0.5, 2.0), (1.0, 2.0), (1.0, 1.0)]
    assert one.mode == "markers"


def test_three_objectives_are_an_axis_each_from_worst_to_best() -> None:
    points = [
        Point("a", (1.0, 5.0, 7.0), "front", BLUE),
        Point("b", (3.0, 4.0, 7.0), "dominated", BLUE),
        Point("c", (2.0, 3.0, None), "front", BLUE),
    ]
    figure = front_figure(points, ["x", "y", "z"])
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines) == ["b", "a"]  # the front is drawn over the others
    assert lines["a"].y == (0.0, 1.0, 0.5)  # equal values lie in the middle
    assert lines["b"].y == (1.0, 0.0, 0.5)
    assert lines["a"].customdata == (1.0, 5.0, 7.0)
    assert [a.text for a in figure.layout.annotations] == ["1.0000", "3.0000", "4.0000", "5.0000", "7.0000", "7.0000"]


def test_nothing_to_show_is_no_trace() -> None:
    assert not front_figure([], ["x", "y"]).data
    assert not front_figure([], ["x", "y", "z"]).data
    assert not front_figure([Point("a", (1.0,), "front", BLUE)], ["x"]).data


def test_names_are_text() -> None:
    (_, one) = front_figure([Point("<b>a</b>", (1.0, 2.0), "front", BLUE, "<i>")], ["<u>", "y"]).data
    assert (one.name, one.text) == ("&lt;b&gt;a&lt;/b&gt;", ("&lt;i&gt;",))
    assert "<u>" not in one.hovertemplate


def test_roles() -> None:
    assert roles({"a": {"front": True}, "b": {"front": False}, "c": None}) == {
        "a": "front",
        "b": "dominated",
        "c": "dominated",
    }
