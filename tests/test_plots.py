"""Figures hold exactly the numbers they were given, and nothing where nothing was measured."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from polyrank import plots
from polyrank.charts.profile import share_figure

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def study() -> dict[str, Any]:
    return json.loads((FIXTURES / "seesaw.json").read_text(encoding="utf-8"))


def model(name: str, mean: object, low: object, high: object, verdict: object) -> dict[str, Any]:
    delta = {"single_task": {"mean": mean, "low": low, "high": high, "verdict": verdict}}
    return {"name": name, "tasks": {"click": {"delta": delta}}}


def traces(figure: Any, mode: str) -> dict[str, Any]:
    return {trace.line.color or trace.marker.color: trace for trace in figure.data if trace.mode == mode}


def test_the_interval_of_the_seesaw_is_low_to_high_exactly() -> None:
    models = [model("mmoe", 0.001, 0.0004, 0.0019, "gain"), model("ple", -0.002, -0.0031, -0.0007, "loss")]
    figure = plots.seesaw_figure(models, "click", "single_task")
    lines, points = traces(figure, "lines"), traces(figure, "markers+text")
    green, orange = plots.VERDICTS["gain"].color, plots.VERDICTS["loss"].color
    assert lines[green].x == (0.0004, 0.0019, None)
    assert lines[orange].x == (-0.0031, -0.0007, None)
    assert (points[green].x, points[green].y) == ((0.001,), ("MMoE",))
    assert (points[orange].x, points[orange].y) == ((-0.002,), ("PLE",))


def test_a_verdict_differs_in_sign_word_and_shape_not_only_in_colour() -> None:
    verdicts = plots.VERDICTS.values()
    for part in ("word", "sign", "symbol", "color"):
        assert len({getattr(verdict, part) for verdict in verdicts}) == 3


def test_every_delta_of_the_study_is_in_its_panel(study: dict[str, Any]) -> None:
    for task in ("income", "never_married"):
        for reference in ("single_task", "lightgbm"):
            figure = plots.seesaw_figure(study["models"], task, reference)
            shown = {(y, x) for t in figure.data if t.mode == "markers+text" for x, y in zip(t.x, t.y, strict=True)}
            assert shown == {
                (plots.display_name(m["name"]), m["tasks"][task]["delta"][reference]["mean"]) for m in study["models"]
            }


def test_the_panel_covers_the_reach_it_is_given_and_is_symmetric() -> None:
    figure = plots.seesaw_figure([model("mmoe", 0.001, 0.0, 0.002, "tie")], "click", "single_task", reach=0.01)
    low, high = figure.layout.xaxis.range
    assert low == -high
    assert high == pytest.approx(0.0115)


def test_the_reach_is_the_largest_end_over_the_tasks_asked_for() -> None:
    models = [model("a", 0.1, -0.4, 0.2, "tie"), model("b", None, None, None, None)]
    models[0]["tasks"]["like"] = {"delta": {"single_task": {"mean": 9.0}}}
    assert plots.seesaw_reach(models, ["click"], "single_task") == 0.4
    assert plots.seesaw_reach(models, ["click", "like"], "single_task") == 9.0
    assert plots.seesaw_reach(models, ["click"], "lightgbm") == 0.0


def test_a_missing_difference_is_said_and_a_missing_interval_keeps_its_point() -> None:
    models = [
        model("a", 0.001, None, math.nan, "tie"),
        model("b", None, None, None, None),
        {"name": "c"},
        {"name": "d", "tasks": {"click": {"delta": {"single_task": None}}}},
    ]
    figure = plots.seesaw_figure(models, "click", "single_task")
    (point,) = traces(figure, "markers+text").values()
    assert point.x == (0.001,)
    assert [note.y for note in figure.layout.annotations] == ["b", "c", "d"]
    assert not plots.seesaw_figure(models[1:], "click", "single_task").data


def test_differences_that_are_all_zero_still_have_an_axis() -> None:
    figure = plots.seesaw_figure([model("a", 0.0, 0.0, 0.0, "tie")], "click", "single_task")
    assert figure.layout.xaxis.range == (-0.001, 0.001)


def test_curves_are_the_recorded_numbers_one_line_per_seed(study: dict[str, Any]) -> None:
    figure = plots.curve_figure(study["models"], "income", "valid")
    curves = [curve for m in study["models"] for curve in m["curves"]]
    assert [trace.y for trace in figure.data] == [tuple(curve["valid"]["income"]) for curve in curves]
    assert all(trace.x == tuple(curve["rows"]) for trace, curve in zip(figure.data, curves, strict=True))
    assert figure.data[0].name == "Shared bottom, seed 0"


def test_a_gap_in_a_curve_stays_a_gap_and_no_curve_is_no_line() -> None:
    curve = {"seed": 0, "rows": [1, 2, 3], "valid": {"click": [0.5, None, math.nan]}, "train_loss": {}}
    figure = plots.curve_figure([{"name": "mmoe", "curves": [curve]}, {"name": "ple"}], "click", "valid")
    assert [trace.y for trace in figure.data] == [(0.5, None, None)]
    assert not plots.curve_figure([{"name": "mmoe", "curves": [curve]}], "click", "train_loss").data


def test_a_gate_has_an_empty_cell_for_an_expert_that_it_cannot_read() -> None:
    gates = [
        {"gate": "click", "experts": ["click 1", "shared 1"], "weights": [0.3, 0.7]},
        {"gate": "like", "experts": ["shared 1", "like 1"], "weights": [0.9, 0.1]},
    ]
    (cells,) = plots.gate_figure(gates, 0.9).data
    assert cells.x == ("click 1", "shared 1", "like 1")
    assert cells.y == ("click", "like")
    assert [list(row) for row in cells.z] == [[0.3, 0.7, None], [None, 0.9, 0.1]]
    assert (cells.zmin, cells.zmax) == (0, 0.9)


def test_calibration_shows_the_bins_and_the_diagonal_on_one_range(study: dict[str, Any]) -> None:
    figure = plots.calibration_figure(study["models"], "income")
    *lines, diagonal = figure.data
    for line, m in zip(lines, study["models"], strict=True):
        assert line.x == tuple(m["calibration"]["income"]["predicted"])
        assert line.y == tuple(m["calibration"]["income"]["observed"])
        assert line.customdata == tuple(m["calibration"]["income"]["count"])
    assert diagonal.x == diagonal.y == figure.layout.xaxis.range == figure.layout.yaxis.range


def test_calibration_leaves_out_bins_without_numbers() -> None:
    bins = {"predicted": [0.1, None, 0.3], "observed": [0.2, 0.2, None]}
    figure = plots.calibration_figure([{"name": "a", "calibration": {"click": bins}}], "click")
    assert figure.data[0].x == (0.1,)
    assert not plots.calibration_figure([{"name": "a", "calibration": {}}], "click").data


def test_costs_stand_beside_the_sum_of_what_they_replace(study: dict[str, Any]) -> None:
    (bars,) = plots.cost_figure(study, "parameters").data
    assert bars.y == ("Shared bottom", "MMoE", "CGC", "PLE", "Single-task, all tasks")
    assert bars.x == (*(m["cost"]["parameters"] for m in study["models"]), 338500)
    assert set(bars.marker.color) == {plots.ACCENT, plots.REFERENCE}
    (bars,) = plots.cost_figure(study, "train_seconds").data
    assert bars.y[-1] == "LightGBM, all tasks"
    assert not plots.cost_figure({"models": [{"name": "a", "cost": None}], "costs": None}, "parameters").data


def test_a_long_name_keeps_both_its_ends_on_the_axis() -> None:
    names = [f"shared_bottom with a long balancer name, seed {seed}" for seed in (1, 2)]
    axis = share_figure(dict.fromkeys(names, 0.5)).layout.yaxis
    assert axis.tickvals == tuple(names)
    assert len(set(axis.ticktext)) == 2
    assert {len(text) for text in axis.ticktext} == {22}


def test_twenty_architectures_have_twenty_line_styles() -> None:
    assert len(set(plots.strokes(str(i) for i in range(20)).values())) == 20


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "1", True, [1.0]])
def test_what_is_not_a_finite_number_is_none(value: object) -> None:
    assert plots.finite(value) is None


def test_figures_are_small_and_calm(study: dict[str, Any]) -> None:
    figure = plots.cost_figure(study, "parameters")
    assert figure.layout.template.layout.showlegend is False
    assert len(figure.to_json()) < 6000
