"""Figures of a policy: what they draw, and that they are empty where there is nothing."""

import pytest

from polyrank.charts.policy import (
    cohort_weights_figure,
    curves_figure,
    density_panels,
    estimates_figure,
    q_figure,
)

VALUE = {"value": 2.0, "low": 1.5, "high": 2.5}
NONE = {"value": None, "low": None, "high": None}
DOCUMENT = {
    "where": {
        "weights": [
            {"name": "like", "low": 0.0, "high": 2.0, "edges": [0.0, 1.0, 2.0], "policy": [0.0, 1.0], "log": [0.5, 0.5]}
        ]
    },
    "static": [1.5],
    "curves": {"q": [[1, 0.5], [2, 0.7]]},
    "believed": {"last": 0.7, "mean": 0.6, "highest": 1.0},
    "estimates": {
        "log": {"session": VALUE, "step": VALUE},
        "policies": {
            "policy": {"wdr": VALUE, "fqe": VALUE, "dm": VALUE},
            "static": {"wdr": NONE, "fqe": VALUE, "dm": NONE},
        },
    },
    "cohorts": [
        {"cohort": "state:0", "value": "new", "weights": [0.5]},
        {"cohort": "state:0", "value": "old", "weights": [2.0]},
        {"cohort": "state:1", "value": "x", "weights": [1.0]},
    ],
}


def test_densities_stand_beside_the_box_and_the_static_formula() -> None:
    (panel,) = density_panels(DOCUMENT)
    assert panel.title == "like"
    assert [trace.name for trace in panel.figure.data] == ["log", "policy"]
    assert list(panel.figure.data[1].y) == [0.0, 1.0, 1.0]
    assert sorted(shape.x0 for shape in panel.figure.layout.shapes) == [0.0, 1.5, 2.0]


def test_q_beside_what_was_earned() -> None:
    figure = q_figure(DOCUMENT)
    assert list(figure.data[0].y) == [0.5, 0.7]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.6, 1.0]
    assert not q_figure({}).data
    assert not q_figure({"curves": {"q": []}, "believed": None}).data


@pytest.mark.parametrize(("unit", "points"), [("session", [2, 1]), ("step", [1])])
def test_estimates_have_a_point_each_where_there_is_one(unit: str, points: list[int]) -> None:
    figure = estimates_figure(DOCUMENT, unit)
    assert [len(trace.x) for trace in figure.data if trace.mode == "markers"] == points


def test_estimates_without_an_answer_are_empty() -> None:
    none = {"log": DOCUMENT["estimates"]["log"], "policies": {"policy": {"wdr": NONE}, "static": {"wdr": NONE}}}
    assert not estimates_figure({"estimates": none}, "session").data


def test_curves_and_cohorts() -> None:
    assert [trace.name for trace in curves_figure({"a": [[1, 2.0]], "b": []}).data] == ["a"]
    figure = cohort_weights_figure(DOCUMENT, "state:0")
    assert [list(row) for row in figure.data[0].z] == [[0.25], [1.0]]
