"""A fusion as figures: the front of orders with its corners, the weights that were tried, who decides, who agrees."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from polyrank.charts.fronts import Point, Role, front_figure
from polyrank.plots import (
    ACCENT,
    DIVERGING,
    REFERENCE,
    Panel,
    Stroke,
    axis_title,
    bars_figure,
    blank,
    finite,
    grid,
    heatmap,
    label,
    line_of,
    names_axis,
    strokes,
)

_GOLD, _LIGHT, _PALE = "#e69f00", "#7db5d8", "#c9d3dd"


def orders_figure(judged: Mapping[str, Any]) -> go.Figure:
    """Every order by what it gives each behaviour (GAUC on test rows): single heads as corners, fused ones as points.

    Args:
        judged: `rankings` with `metrics.gauc`, and `pareto` with `behaviours` and `front` (see `fusion.judged`).
    """
    pareto = judged.get("pareto") or {}
    behaviours, members = list(pareto.get("behaviours") or []), set(pareto.get("front") or [])
    rankings = judged.get("rankings") or []
    styles = strokes(ranking["name"] for ranking in rankings)
    points = []
    for ranking in rankings:
        name, gauc = ranking["name"], ranking["metrics"]["gauc"]
        values = [finite((gauc.get(behaviour) or {}).get("value")) for behaviour in behaviours]
        role: Role = "front" if name in members else "dominated"
        points.append(
            Point(
                name,
                values,
                "reference" if ranking["corner"] else role,
                styles[name],
                name if len(behaviours) == 2 and ranking["corner"] else "",
            )
        )
    return front_figure([*sorted(points, key=lambda point: point.role != "reference")], behaviours)


def tried_figure(document: Mapping[str, Any], most: int = 40) -> go.Figure:
    """The formulas tried, by what they give each behaviour that counts, on the rows that choose.

    The chosen one, and of the front and of the rest about `most` each.
    """
    trials, front, best = document["trials"], set(document["front"]), document["best"]
    behaviours = list(document["goals"])
    rest = [index for index in range(len(trials)) if index not in front and index != best]
    rest = rest[:: max(1, len(rest) // most)]
    points = []
    shown = sorted(front - {best})
    shown = shown[:: max(1, len(shown) // most)]
    for index in [*rest, *shown, best]:
        values = [finite(trials[index]["behaviours"].get(name)) for name in behaviours]
        stroke = Stroke(_GOLD if index == best else _LIGHT if index in front else _PALE, "")
        name = f"trial {index + 1} {trials[index]['origin']}".strip()
        points.append(Point(name, values, "front" if index in front else "dominated", stroke))
    return front_figure(points, behaviours)


def progress_figure(trials: Sequence[Mapping[str, Any]], best: int) -> go.Figure:
    """The goal of every trial in order, on the rows that choose; the line is the best so far that violates nothing."""
    figure, reached = blank(height=280), -math.inf
    lines: list[float | None] = []
    for trial in trials:
        value = finite(trial.get("value"))
        if value is not None and not trial.get("violation"):
            reached = max(reached, value)
        lines.append(reached if math.isfinite(reached) else None)
    parts = {
        "chosen by the method": (_PALE, [i for i, t in enumerate(trials) if not t["origin"]]),
        "a start": (ACCENT, [i for i, t in enumerate(trials) if t["origin"]]),
        "the best": (_GOLD, [best]),
    }
    for name, (color, places) in parts.items():
        figure.add_scatter(
            x=[i + 1 for i in places],
            y=[finite(trials[i].get("value")) for i in places],
            mode="markers",
            marker={"color": color, "size": 13 if name == "the best" else 6, "line": {"color": "white", "width": 1}},
            name=name,
            text=[label(trials[i]["origin"]) for i in places],
            hovertemplate="trial %{x}: %{y:.5f} %{text}<extra></extra>",
        )
    figure.add_scatter(
        x=list(range(1, len(lines) + 1)),
        y=lines,
        mode="lines",
        line={"color": REFERENCE, "width": 1.5, "shape": "hv"},
        name="best so far",
        hoverinfo="skip",
    )
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.18, "x": 0})
    figure.update_xaxes(title=axis_title("trial"), nticks=8)
    return figure.update_yaxes(title=axis_title("goal on validation rows"), nticks=6)


def weights_figure(document: Mapping[str, Any]) -> go.Figure:
    """Every formula tried as a line over its parameters, an axis each, from the lowest to the highest value allowed.

    The tenth of the trials with the best goal stands out, and the chosen one. Where their lines run together, the goal
    knows the weight; where they spread over an axis, it does not care.
    """
    parameters = document.get("parameters") or {}
    trials = [trial for trial in document.get("trials") or [] if finite(trial.get("value")) is not None]
    figure = blank(height=340)
    if not parameters or not trials:
        return figure
    axes = list(parameters)
    order = sorted(trials, key=lambda trial: -trial["value"])
    top = max(1, len(order) // 10)
    groups = {"other trials": (order[top:], _PALE, 0.8, 0.5), "best tenth": (order[:top], ACCENT, 1.2, 0.6)}
    chosen = {"parameters": {name: entry["chosen"] for name, entry in parameters.items()}}
    groups["chosen"] = ([chosen], _GOLD, 4, 1.0)
    for name, (members, color, width, opacity) in groups.items():
        x: list[str | None] = []
        y: list[float | None] = []
        for trial in members:
            x += [*map(label, axes), None]
            y += [*(_place(trial["parameters"][axis], parameters[axis]) for axis in axes), None]
        mode = "lines" if len(axes) > 1 and name != "chosen" else "lines+markers" if len(axes) > 1 else "markers"
        figure.add_scatter(
            x=x, y=y, mode=mode, line={"color": color, "width": width}, marker={"color": color, "size": 9},
            opacity=opacity, name=name, hoverinfo="skip",
        )  # fmt: skip
    for axis in axes:
        entry = parameters[axis]
        for place, value in ((0.0, entry["low"]), (1.0, entry["high"])):
            figure.add_annotation(
                x=label(axis), y=place, text=f"{value:.3g}", showarrow=False, font={"size": 11},
                yshift=-12 if place == 0 else 12,
            )  # fmt: skip
        figure.add_annotation(
            x=label(axis), y=_place(entry["chosen"], entry), text=f"<b>{entry['chosen']:.3g}</b>", showarrow=False,
            xshift=8, xanchor="left", bgcolor="rgba(255,255,255,.8)", font={"size": 12},
        )  # fmt: skip
    figure.update_xaxes(names_axis(axes), showgrid=True)
    figure.update_yaxes(visible=False, range=[-0.12, 1.12])
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.14, "x": 0}, margin_r=60)


def influence_panels(influence: Mapping[str, Mapping[str, Any]]) -> list[Panel]:
    """Bars: what the list loses without a head, and the head's share of what moves the score."""
    panels = []
    for measure, title, note, text in (
        ("ndcg_drop", "Lost without it", "drop of the reward's NDCG; below 0 the list is better without", "%{x:+.4f}"),
        ("share", "Share of the score's movement", "within requests", "%{x:.1%}"),
    ):
        kept = {head: v for head, found in influence.items() if (v := finite(found.get(measure))) is not None}
        figure = bars_figure(list(kept), list(kept.values()), text, ACCENT)
        if kept and min(kept.values()) < 0:
            reach = max(map(abs, kept.values()))
            figure.update_xaxes(range=[-1.9 * reach, 1.9 * reach])
        panels.append(Panel(title, note, figure))
    return panels


def agreement_figure(agreement: Mapping[str, Any]) -> go.Figure:
    """Heat map of Kendall's τ within requests between every two orders."""
    names = list(agreement.get("names") or [])
    figure = heatmap(names, names, grid(agreement.get("values")), "%{z:.2f}")
    return figure.update_traces(
        zmin=-1, zmax=1, colorscale=DIVERGING, hovertemplate="%{y} and %{x}: τ = %{z:.3f}<extra></extra>"
    )


def response_panels(curves: Mapping[str, Sequence[Mapping[str, Any]]], shown: Sequence[str]) -> list[Panel]:
    """For every head, what each of the fusions makes of it: the mean score as the head moves, on one scale each."""
    styles = strokes(shown)
    heads = dict.fromkeys(curve["head"] for name in shown for curve in curves.get(name) or [])
    panels = []
    for head in heads:
        figure = blank(height=220)
        for name in shown:
            for curve in curves.get(name) or []:
                if curve["head"] != head or curve["segment"]:
                    continue
                y = [finite(value) or 0.0 for value in curve["y"]]
                reach = (max(y) - min(y)) or 1.0
                figure.add_scatter(
                    x=list(curve["x"]),
                    y=[(value - min(y)) / reach for value in y],
                    mode="lines",
                    line=line_of(styles[name]),
                    name=label(name),
                    hovertemplate="%{x:.4g}: %{y:.2f}<extra>%{fullData.name}</extra>",
                )
        figure.update_xaxes(title=axis_title("prediction"), nticks=5)
        figure.update_yaxes(tickvals=[0, 1], ticktext=["low", "high"])
        panels.append(Panel(head, "", figure))
    return panels


def _place(value: float, entry: Mapping[str, Any]) -> float:
    """Where a value stands between its bounds, 0 to 1."""
    low, high = float(entry["low"]), float(entry["high"])
    if entry["log"]:
        return math.log(max(value, 1e-300) / low) / math.log(high / low)
    return (value - low) / (high - low)
