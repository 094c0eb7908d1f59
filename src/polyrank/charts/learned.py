"""Learned fusions as figures: how they differ, what they make of each head, which heads decide, whom they agree with.

Each reads parts of the document that `polyrank.fusion.judged.judged` makes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from polyrank.plots import (
    DIVERGING,
    Panel,
    axis_title,
    blank,
    finite,
    heatmap,
    label,
    line_of,
    seesaw_figure,
    strokes,
)


def difference_panels(document: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> list[Panel]:
    """A panel for each metric: every ranking's difference to the reference, with its interval.

    Args:
        document: the judged document.
        columns: metric, what it is of, and the panel's title.
    """
    reference, panels = document["reference"], []
    others = [ranking for ranking in document["rankings"] if ranking["name"] != reference]
    for metric, of, title in columns:
        deltas = {r["name"]: (r["against"].get(metric) or {}).get(of) or {} for r in others}
        models = [{"name": n, "tasks": {title: {"delta": {reference: delta}}}} for n, delta in deltas.items()]
        panels.append(Panel(title, f"against {reference}", seesaw_figure(models, title, reference)))
    return [panel for panel in panels if panel.figure.data]


def response_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]], head: str) -> go.Figure:
    """What each fusion makes of one head: a line a fusion, and a thin one for each segment it was drawn for.

    Fusions score in units of their own: each is divided by the largest range that one of its heads moves it by, so that
    a flat line is a head that decides little.

    Args:
        curves: by fusion, see `polyrank.evaluation.curves.response_curves`.
        head: which.
    """
    figure = blank(height=280)
    styles = strokes(curves)
    for name, of_fusion in curves.items():
        whole = [curve for curve in of_fusion if not curve["segment"]]
        unit = max((max(c["y"]) - min(c["y"]) for c in whole if c["y"]), default=0.0) or 1.0
        for curve in of_fusion:
            if curve["head"] != head or not curve["x"]:
                continue
            base = min(curve["y"]) / unit
            figure.add_scatter(
                x=curve["x"],
                y=[value / unit - base for value in curve["y"]],
                mode="lines",
                line=line_of(styles[name]) | ({"width": 1} if curve["segment"] else {}),
                opacity=0.5 if curve["segment"] else 1.0,
                name=label(f"{name}, {curve['segment']}" if curve["segment"] else name),
                hovertemplate="%{x:.4g}: %{y:.2f}<extra>%{fullData.name}</extra>",
            )
    figure.update_xaxes(title=axis_title(label(head)), nticks=6)
    figure.update_yaxes(title=axis_title("share of the score's range"), nticks=5)
    return figure


def influence_figure(influence: Mapping[str, Mapping[str, Any]], heads: Sequence[str], measure: str) -> go.Figure:
    """Heat map: rows are fusions, columns heads; `measure` is `share`, `ndcg_drop` or `kendall`."""
    z = [[finite((of_head.get(head) or {}).get(measure)) for head in heads] for of_head in influence.values()]
    cell = {"share": "%{z:.0%}", "ndcg_drop": "%{z:+.4f}", "kendall": "%{z:.2f}"}[measure]
    figure = heatmap(list(influence), list(heads), z, cell)
    if measure == "ndcg_drop":
        reach = max((abs(value) for row in z for value in row if value is not None), default=0.0) or 1.0
        figure.update_traces(zmin=-reach, zmax=reach, colorscale=DIVERGING)
    return figure


def agreement_figure(document: Mapping[str, Any]) -> go.Figure:
    """Heat map of Kendall's τ_b within requests: rows are rankings, columns heads; 1: the order of the head alone."""
    heads = document["heads"]
    rankings = [ranking for ranking in document["rankings"] if not ranking["corner"]]
    z = [
        [finite(((r["metrics"].get("kendall") or {}).get(head) or {}).get("value")) for head in heads] for r in rankings
    ]
    figure = heatmap([r["name"] for r in rankings], heads, z, "%{z:.2f}")
    return figure.update_traces(zmin=-1, zmax=1, colorscale=DIVERGING)
