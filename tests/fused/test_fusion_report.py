import json
from pathlib import Path

import pytest

from polyrank.charts import fusion as charts
from polyrank.errors import DataError
from polyrank.fusion_report import calibration_html, cohort_rows, fusion_html, reliability_panels
from polyrank.page import number_text, value_text


@pytest.fixture(scope="module")
def document(searched: Path) -> dict:
    return json.loads((searched / "search.json").read_text())


def test_the_page_has_every_part(document: dict) -> None:
    page = fusion_html(document)
    for part in ("formula", "numbers", "places", "front", "search", "influence", "lists", "method"):
        assert f'<section id="{part}">' in page
    assert document["formulas"]["searched"] in page.replace("&#39;", "'")


def test_the_page_says_what_is_expected_in_the_first_places_and_what_happened(document: dict) -> None:
    page, judged = fusion_html(document), document["judged"]
    (searched,) = (r for r in judged["rankings"] if r["name"] == "searched")
    for head in judged["heads"]:
        assert f"<td>{number_text(searched['metrics']['expected'][head]['value'])}" in page
    for name in judged["behaviours"]:  # with "no hate", of which no head predicts anything
        assert f"{number_text(searched['metrics']['observed'][name]['value'])} happened" in page
    assert f"½ for every behaviour: {value_text(judged['pareto']['hypervolume'])}" in page


def test_names_are_escaped(document: dict) -> None:
    page = fusion_html({**document, "title": "<script>x</script>", "notes": ["<b>"]})
    assert "<script>x" not in page
    assert "&lt;b&gt;" in page


def test_a_page_of_missing_numbers_is_a_page(document: dict) -> None:
    empty = json.loads(json.dumps(document))
    for ranking in empty["judged"]["rankings"]:
        for found in ranking["metrics"].values():
            for value in found.values():
                value.update(value=None, low=None, high=None)
        ranking["against"] = {}
    empty["against"] = {}
    assert "<td>–" in fusion_html(empty)
    with pytest.raises(DataError):
        fusion_html({**document, "format": 2})


def test_a_line_of_weights_for_every_trial(document: dict) -> None:
    figure = charts.weights_figure(document)
    lines = {trace.name: sum(x is None for x in trace.x) for trace in figure.data}
    assert lines == {"other trials": 36, "best tenth": 4, "chosen": 1}
    assert all(0 <= y <= 1 for trace in figure.data for y in trace.y if y is not None)
    assert not charts.weights_figure({"parameters": {}, "trials": []}).data


def test_progress_rises_and_ignores_what_violates() -> None:
    trials = [{"origin": "start", "value": 0.5, "violation": 0}, {"origin": "", "value": 0.9, "violation": 0.1},
              {"origin": "", "value": None, "violation": 0}, {"origin": "", "value": 0.6, "violation": 0}]  # fmt: skip
    figure = charts.progress_figure(trials, 3)
    assert list(figure.data[-1].y) == [0.5, 0.5, 0.5, 0.6]


def test_corners_and_front_are_told_apart(document: dict) -> None:
    figure = charts.orders_figure(document["judged"])
    assert {trace.name for trace in figure.data} == {ranking["name"] for ranking in document["judged"]["rankings"]}


def test_formulas_tried_are_points_and_the_chosen_one_is_last(document: dict) -> None:
    figure = charts.tried_figure(document)
    chosen = [trace for trace in figure.data if trace.marker.color == "#e69f00"]
    best = document["best"]
    assert [trace.name for trace in chosen] == [f"trial {best + 1} {document['trials'][best]['origin']}".strip()]
    assert len(figure.data) >= len(document["front"])


def test_cohorts_show_the_difference() -> None:
    entry = {"cohort": "age", "value": 1, "rows": 5, "users": 2, "metrics": {"gauc": {"click": {"a": 0.6, "b": 0.5}}}}
    (row,) = cohort_rows([entry], ["click", "like"], "a", "b")
    assert row["cells"][0]["value"] == 0.6
    assert row["cells"][0]["delta"] == pytest.approx(0.1)
    assert row["cells"][1] == {"value": None, "delta": None}


def test_influence_and_agreement(document: dict) -> None:
    drop, share = charts.influence_panels(document["judged"]["influence"]["searched"])
    assert set(drop.figure.data[0].y) == {"click", "like", "hate"}
    assert sum(share.figure.data[0].x) == pytest.approx(1)
    grid = charts.agreement_figure(document["agreement"]).data[0].z
    assert all(row[index] == 1 for index, row in enumerate(grid))


def test_reliability_before_and_after() -> None:
    curve = {"ece": 0.1, "predicted": [0.1, 0.5], "observed": [0.2, 0.4], "count": [5, 5]}
    document = {
        "format": 1, "method": "platt",
        "shown": {"fitted": {"data": "valid", "tasks": {"click": {"rows": 10, "before": curve, "after": curve}}}},
    }  # fmt: skip
    (panel,) = reliability_panels(document["shown"]["fitted"]["tasks"])
    assert panel.note == "calibration error 0.1000 → 0.1000"
    assert len(panel.figure.data) == 3
    assert "On the rows it was fitted on" in calibration_html(document, "run")
