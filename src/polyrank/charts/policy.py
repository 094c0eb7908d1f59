"""A learned policy as figures: where it acts, what its Q promised, what it is worth beside its control, for whom.

All read parts of `rl.json` or `ope.json` (see `polyrank.rl`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from polyrank.fusion.compared import unit_of
from polyrank.plots import ACCENT, MUTED, REFERENCE, Panel, axis_title, blank, finite, heatmap, label, line_of, strokes

TITLES = {
    "kernel_is": "kernel IS",
    "kernel_snis": "kernel SNIS",
    "kernel_dr": "kernel DR",
    "dm": "direct method",
    "pdis": "PDIS",
    "wis": "WIS",
    "wpdis": "weighted PDIS",
    "wdr": "weighted DR",
    "linear_fqe": "linear FQE",
    "fqe": "FQE",
    "conservative_fqe": "conservative FQE",
}
_GOLD = "#e69f00"
_TALLEST = 4.0  # times the log's largest density: what a policy piles up at one weight is cut off there


def density_panels(document: Mapping[str, Any]) -> list[Panel]:
    """Each weight: how often log and policy choose it, the ends of the box, and the matched static formula's."""
    panels = []
    for weight, static in zip(document["where"]["weights"], document["static"], strict=True):
        figure = blank(height=220)
        edges = weight["edges"]
        for who, color, fill in (("log", REFERENCE, "rgba(138,148,163,.35)"), ("policy", ACCENT, "rgba(0,114,178,.3)")):
            figure.add_scatter(
                x=edges,
                y=[*weight[who], weight[who][-1]],
                mode="lines",
                line={"shape": "hv", "color": color, "width": 1.5},
                fill="tozeroy",
                fillcolor=fill,
                name=who,
                hovertemplate="%{x:.4g}: %{y:.3g}<extra>%{fullData.name}</extra>",
            )
        for end in (weight["low"], weight["high"]):
            figure.add_vline(x=end, line={"color": MUTED, "dash": "dot", "width": 1.5})
        figure.add_vline(x=static, line={"color": _GOLD, "width": 2})
        figure.update_xaxes(nticks=6, title=axis_title("weight"))
        figure.update_yaxes(
            visible=False, range=[0, min(max(*weight["policy"], *weight["log"]), _TALLEST * max(weight["log"])) * 1.05]
        )
        note = f"box {weight['low']:.4g} to {weight['high']:.4g}, static {static:.4g}"
        panels.append(Panel(weight["name"], note, figure))
    return panels


def q_figure(document: Mapping[str, Any]) -> go.Figure:
    """The learner's mean Q(s₀, π(s₀)) while learning, beside what sessions earned: above it, Q has run away."""
    figure = blank(height=280)
    curve = (document.get("curves") or {}).get("q") or []
    promised = document.get("believed") or {}
    if curve:
        figure.add_scatter(
            x=[point[0] for point in curve],
            y=[finite(point[1]) for point in curve],
            mode="lines",
            line={"color": ACCENT, "width": 2},
            name="Q",
            hovertemplate="%{y:.4g} after %{x:,} steps<extra></extra>",
        )
        for key, text, side in (
            ("mean", "mean return of the log", "bottom left"),
            ("highest", "99 % of its sessions earn less", "bottom left"),
        ):
            if finite(promised.get(key)) is not None:
                line = {"color": REFERENCE, "dash": "dot" if key == "highest" else "dash", "width": 1.5}
                words = {"text": text, "font": {"size": 12, "color": MUTED}, "bgcolor": "rgba(255,255,255,.7)"}
                figure.add_hline(y=promised[key], line=line, annotation=words, annotation_position=side)
        figure.update_xaxes(tickformat="~s", rangemode="tozero", nticks=6, title=axis_title("training steps"))
    return figure


def curves_figure(curves: Mapping[str, Sequence[Sequence[float]]]) -> go.Figure:
    """Lines over training steps by name: of fitted Q evaluations, or of what a learner recorded besides Q."""
    figure = blank(height=280)
    styles = strokes(curves)
    for name, curve in curves.items():
        if len(curve):
            figure.add_scatter(
                x=[point[0] for point in curve],
                y=[finite(point[1]) for point in curve],
                mode="lines",
                line=line_of(styles[name]),
                name=label(name),
                hovertemplate="%{y:.4g} after %{x:,} steps<extra>%{fullData.name}</extra>",
            )
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.28, "yanchor": "top", "x": 0})
    figure.update_xaxes(tickformat="~s", rangemode="tozero", nticks=6, title=axis_title("training steps"))
    return figure


def estimates_figure(document: Mapping[str, Any], unit: str) -> go.Figure:
    """Every estimate of one unit with its interval: the policy's, its matched static formula's, and the log's value."""
    estimates = document["estimates"]
    names = [name for name in next(iter(estimates["policies"].values())) if unit_of(name) == unit]
    shown = {
        who: [(name, found[name]) for name in names if finite((found.get(name) or {}).get("value")) is not None]
        for who, found in estimates["policies"].items()
    }
    names = [name for name in names if any(name in dict(rows) for rows in shown.values())]
    figure = blank(height=80 + 46 * len(names))
    for index, (who, rows) in enumerate(shown.items()):
        if not rows:
            continue
        places = [names.index(name) + (0.14 if index else -0.14) for name, _ in rows]
        color = _GOLD if index else ACCENT
        figure.add_scatter(
            x=[end for _, row in rows for end in (row["low"], row["high"], None)],
            y=[place for at in places for place in (at, at, None)],
            mode="lines",
            line={"color": color, "width": 3},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=[row["value"] for _, row in rows],
            y=places,
            mode="markers",
            marker={"color": color, "size": 10, "symbol": "diamond" if index else "circle"},
            name=label(who),
            customdata=[(row["low"], row["high"]) for _, row in rows],
            hovertemplate="%{x:.4g}, %{customdata[0]:.4g} to %{customdata[1]:.4g}<extra>%{fullData.name}</extra>",
        )
    own = estimates["log"][unit]
    if figure.data and finite(own["value"]) is not None:
        figure.add_vrect(x0=own["low"], x1=own["high"], fillcolor=REFERENCE, opacity=0.25, line_width=0)
        figure.add_vline(x=own["value"], line={"color": REFERENCE, "dash": "dash", "width": 1.5})
        figure.update_yaxes(
            tickmode="array",
            tickvals=list(range(len(names))),
            ticktext=[TITLES[name] for name in names],
            range=[len(names) - 0.5, -0.5],
            showgrid=False,
        )
        figure.update_xaxes(title=axis_title(f"value of a {unit}"), nticks=6)
        figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
        figure.update_layout(margin_t=32)
    return figure


def cohort_weights_figure(document: Mapping[str, Any], cohort: str) -> go.Figure:
    """Heat map: rows are the parts of a cohort, columns weights; the policy's mean as a place in the box, 0 to 1."""
    rows = [entry for entry in document["cohorts"] if entry["cohort"] == cohort]
    weights = document["where"]["weights"]
    z = [
        [
            (value - weight["low"]) / ((weight["high"] - weight["low"]) or 1.0)
            for value, weight in zip(row["weights"], weights, strict=True)
        ]
        for row in rows
    ]
    figure = heatmap([row["value"] for row in rows], [weight["name"] for weight in weights], z, "%{z:.2f}")
    return figure.update_traces(zmin=0, zmax=1)
