"""Figures of fusions hold the document's numbers."""

import pytest

from polyrank.charts.learned import agreement_figure, difference_panels, influence_figure, response_figure


def ranking(name, *, corner=False, tau=(None, None), delta=None):
    kendall = {head: {"value": value} for head, value in zip(("click", "like"), tau, strict=True)}
    against = {} if delta is None else {"gauc": {"click": delta}}
    return {"name": name, "corner": corner, "metrics": {"kendall": kendall}, "against": against}


@pytest.fixture
def document():
    better = {"mean": 0.01, "low": 0.002, "high": 0.018, "verdict": "gain"}
    return {
        "reference": "click alone",
        "heads": ["click", "like"],
        "rankings": [
            ranking("click alone", corner=True, tau=(1.0, 0.3)),
            ranking("sum", tau=(0.8, 0.5), delta=better),
            ranking("tree", tau=(0.7, None), delta={"mean": -0.01, "low": None, "high": None, "verdict": "tie"}),
        ],
    }


def test_differences_leave_out_the_reference(document):
    (panel,) = difference_panels(document, [("gauc", "click", "GAUC of click"), ("gauc", "like", "GAUC of like")])
    assert panel.title == "GAUC of click"
    shown = {
        y: x for trace in panel.figure.data if "markers" in trace.mode for x, y in zip(trace.x, trace.y, strict=True)
    }
    assert shown == {"sum": 0.01, "tree": -0.01}


def test_curves_are_shares_of_what_the_fusion_moves_by():
    curves = {
        "sum": [
            {"head": "click", "segment": "", "x": [0.1, 0.9], "y": [-2.0, 2.0]},
            {"head": "like", "segment": "", "x": [0.0, 0.5], "y": [0.0, 1.0]},
            {"head": "like", "segment": "new", "x": [0.0, 0.5], "y": [1.0, 3.0]},
        ],
        "flat": [{"head": "like", "segment": "", "x": [0.0, 0.5], "y": [5.0, 5.0]}],
    }
    figure = response_figure(curves, "like")
    assert {trace.name: tuple(trace.y) for trace in figure.data} == {
        "sum": (0.0, 0.25),
        "sum, new": (0.0, 0.5),
        "flat": (0.0, 0.0),
    }
    assert not response_figure(curves, "share").data


def test_influence_and_agreement_are_tables(document):
    influence = {"sum": {"click": {"share": 0.7, "ndcg_drop": -0.02}, "like": {"share": 0.3, "ndcg_drop": None}}}
    share = influence_figure(influence, ["click", "like"], "share").data[0]
    assert [list(row) for row in share.z] == [[0.7, 0.3]]
    drop = influence_figure(influence, ["click", "like"], "ndcg_drop").data[0]
    assert (drop.zmin, drop.zmax) == (-0.02, 0.02)
    agreement = agreement_figure(document).data[0]
    assert list(agreement.y) == ["sum", "tree"]
    assert [list(row) for row in agreement.z] == [[0.8, 0.5], [0.7, None]]


def test_names_are_text_never_markup():
    curves = {"<b>x</b>": [{"head": "click", "segment": "", "x": [0, 1], "y": [0, 1]}]}
    assert response_figure(curves, "click").data[0].name == "&lt;b&gt;x&lt;/b&gt;"
