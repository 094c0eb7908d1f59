"""The Pareto picture: models or trials as points whose coordinates are what each task got; larger is better.

Two tasks are a plane with the staircase of the front; more are parallel coordinates, an axis a task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from polyrank.plots import INK, MUTED, REFERENCE, Stroke, axis_title, blank, finite, label, names_axis

Role = Literal["front", "dominated", "reference"]
_SYMBOLS = {"front": "circle", "dominated": "circle-open", "reference": "diamond-open"}


@dataclass(frozen=True)
class Point:
    """A model or a trial.

    Attributes:
        name: for the hover.
        values: `[M]` an entry an objective, None where it was not measured: such a point is left out.
        role: on the front, dominated, or only there to compare with.
        stroke: how it looks.
        mark: what stands inside it (beside a reference): a short name, a number, or nothing.
        runs: `[S][M]` what its mean is of, drawn small.
    """

    name: str
    values: Sequence[float | None]
    role: Role
    stroke: Stroke
    mark: str = ""
    runs: Sequence[Sequence[float | None]] = ()


def front_figure(points: Sequence[Point], axes: Sequence[str], reference: Sequence[float] = ()) -> go.Figure:
    """The picture for as many objectives as there are.

    Args:
        points: in the order in which they are drawn.
        axes: `[M]` the objectives' names.
        reference: `[M]` the corner that the hypervolume is measured from, where it is known.

    Returns:
        `plane_figure` for two objectives, `parallel_figure` for more; no traces for one.
    """
    if len(axes) == 2:
        return plane_figure(points, axes, reference)
    return parallel_figure(points if len(axes) > 2 else [], axes)


def plane_figure(points: Sequence[Point], axes: Sequence[str], reference: Sequence[float] = ()) -> go.Figure:
    """Two objectives: the staircase of what the front dominates, then the points, each over its runs.

    Returns:
        One line trace (the staircase), one marker trace for the runs of each point that has
        some, and one for each point.
    """
    figure = blank(height=420)
    shown = [point for point in points if None not in map(finite, point.values)]
    places = np.array([point.values for point in shown], np.float64).reshape(-1, 2)
    front = [place for place, point in zip(places.tolist(), shown, strict=True) if point.role == "front"]
    if front:
        # From the corner, if it is known, else from the worst of what is shown.
        left, bottom = reference if len(reference) == 2 else places.min(axis=0)
        steps = sorted(front)
        corners = [(left, steps[0][1]), *steps, (steps[-1][0], bottom)]
        figure.add_scatter(
            x=[x for x, _ in corners],
            y=[y for _, y in corners],
            mode="lines",
            line={"shape": "vh", "color": REFERENCE, "dash": "dot", "width": 1.5},
            hoverinfo="skip",
        )
    for point in shown:
        runs = [run for run in point.runs if None not in map(finite, run)]
        if len(runs) > 1:
            figure.add_scatter(
                x=[run[0] for run in runs],
                y=[run[1] for run in runs],
                mode="markers",
                marker={"size": 5, "color": point.stroke.color, "opacity": 0.35},
                hoverinfo="skip",
            )
    for point in shown:
        open_ = point.role != "front"
        beside = point.role == "reference"  # its name stands beside it, a model's mark inside
        figure.add_scatter(
            x=[point.values[0]],
            y=[point.values[1]],
            mode="markers+text" if point.mark else "markers",
            marker={
                "size": 20 if point.mark and not beside else 9,
                "symbol": _SYMBOLS[point.role],
                "color": point.stroke.color,
                "line": {"color": point.stroke.color if open_ else "white", "width": 2 if open_ else 1},
            },
            text=[label(point.mark)],
            textposition="top center" if beside else "middle center",
            textfont={"size": 11, "color": MUTED if beside else INK if open_ else "white"},
            cliponaxis=False,
            name=label(point.name),
            hovertemplate=f"{label(axes[0])} %{{x:.5f}}<br>{label(axes[1])} %{{y:.5f}}"
            "<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title=axis_title(f"{label(axes[0])}, better →"), nticks=6)
    figure.update_yaxes(title=axis_title(f"{label(axes[1])}, better →"), nticks=6)
    return figure


def parallel_figure(points: Sequence[Point], axes: Sequence[str]) -> go.Figure:
    """Three objectives or more: an axis each, from the worst value (bottom) to the best (top), and a line a point.

    Returns:
        One line trace for each point, the front's over the others; the ends of every axis are written at it.
    """
    figure = blank(height=400)
    shown = [point for point in points if None not in map(finite, point.values)]
    if not shown:
        return figure
    columns = list(zip(*(point.values for point in shown), strict=True))
    ends = [(min(column), max(column)) for column in columns]
    keys = [label(name) for name in axes]
    for point in sorted(shown, key=lambda point: point.role == "front"):
        figure.add_scatter(
            x=keys,
            y=[_share(value, *end) for value, end in zip(point.values, ends, strict=True)],
            mode="lines+markers+text" if point.mark else "lines+markers",
            line={
                "color": point.stroke.color,
                "dash": "dot" if point.role == "reference" else point.stroke.dash or "solid",
                "width": 3 if point.role == "front" else 1.5,
            },
            opacity=1.0 if point.role == "front" else 0.45,
            marker={"size": 7, "symbol": _SYMBOLS[point.role]},
            text=[*[""] * (len(axes) - 1), label(point.mark)],
            textposition="middle right",
            cliponaxis=False,
            customdata=list(point.values),
            name=label(point.name),
            hovertemplate="%{x} %{customdata:.5f}<extra>%{fullData.name}</extra>",
        )
    for key, (low, high) in zip(keys, ends, strict=True):
        for y, value, anchor in ((0, low, "top"), (1, high, "bottom")):
            figure.add_annotation(
                x=key,
                y=y,
                text=f"{value:.4f}",
                showarrow=False,
                yanchor=anchor,
                yshift=8 if y else -8,
                font_color=MUTED,
            )
    figure.update_xaxes(names_axis(list(axes)) | {"showgrid": True, "range": [-0.2, len(axes) - 0.7]})
    figure.update_yaxes(visible=False, range=[-0.12, 1.12])
    return figure


def _share(value: Any, low: Any, high: Any) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def roles(front: Mapping[str, Any]) -> dict[str, Role]:
    """`front` or `dominated` by a model's name, from the `pareto.models` of a study."""
    return {name: "front" if (entry or {}).get("front") else "dominated" for name, entry in front.items()}
