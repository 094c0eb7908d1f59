"""A search as figures: what trials reached one after another, what each setting did, and which settings mattered.

All read the `trials` and the `space` of `tune.json`: a trial has `number`, `state` (complete, pruned or fail), `values`
(one an objective, None unless complete), `evaluations` (the objective while it trained, where there is one) and
`parameters` by key.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from polyrank.plots import (
    ACCENT,
    MUTED,
    REFERENCE,
    SEQUENTIAL,
    axis_title,
    bars_figure,
    blank,
    finite,
    label,
    names_axis,
)

Trials = Sequence[Mapping[str, Any]]


def progress_figure(trials: Trials, index: int) -> go.Figure:
    """What every trial reached on one objective, in order, and the best so far; open where a trial was pruned.

    Returns:
        A step line of the best so far, a marker trace of complete trials, and one of pruned ones at the last value they
        reported; nothing where no trial is complete.
    """
    figure = blank(height=280)
    complete = _complete(trials, index)
    if not complete:
        return figure
    bests, best = [], -math.inf
    for _, value in complete:
        best = max(best, value)
        bests.append(best)
    numbers = [trial["number"] for trial, _ in complete]
    figure.add_scatter(
        x=numbers, y=bests, mode="lines", line={"shape": "hv", "color": ACCENT, "width": 2}, hoverinfo="skip"
    )
    dots = {"size": 8, "color": ACCENT, "line": {"color": "white", "width": 1}}
    figure.add_scatter(
        x=numbers,
        y=[value for _, value in complete],
        mode="markers",
        marker=dots,
        name="",
        hovertemplate="trial %{x}: %{y:.5f}",
    )
    pruned = [(t["number"], t["evaluations"][-1]) for t in trials if t["state"] == "pruned" and t.get("evaluations")]
    if pruned:
        figure.add_scatter(
            x=[number for number, _ in pruned],
            y=[value for _, value in pruned],
            mode="markers",
            marker={"size": 7, "symbol": "circle-open", "color": REFERENCE},
            name="",
            hovertemplate="trial %{x}, pruned at %{y:.5f}",
        )
    figure.update_xaxes(title=axis_title("trial"), nticks=6)
    return figure


def slice_figure(trials: Trials, span: Mapping[str, Any], key: str, index: int) -> go.Figure:
    """One objective over one setting: a point a complete trial, darker the later it came.

    Args:
        trials: the trials.
        span: the key's entry in `space`.
        key: the setting.
        index: the objective's place.
    """
    figure = blank(height=240)
    complete = [(trial, value) for trial, value in _complete(trials, index) if key in trial["parameters"]]
    if not complete:
        return figure
    values = [trial["parameters"][key] for trial, _ in complete]
    choices = [label(_text(choice)) for choice in span.get("choices") or []]
    figure.add_scatter(
        x=[label(_text(value)) for value in values] if choices else values,
        y=[value for _, value in complete],
        customdata=[trial["number"] for trial, _ in complete],
        mode="markers",
        marker={"size": 8, "color": list(range(len(complete))), "colorscale": SEQUENTIAL, "cmin": -len(complete)},
        name="",
        hovertemplate="%{x}: %{y:.5f} (trial %{customdata})",
    )
    if choices:
        figure.update_xaxes(names_axis(choices))
    elif span.get("log"):
        # Plotly's own ticks of a short logarithmic axis run into each other.
        low, high = math.log10(span["low"]), math.log10(span["high"])
        ticks = [10 ** (low + part * (high - low) / 4) for part in range(5)]
        figure.update_xaxes(
            type="log", range=[low - 0.05, high + 0.05], tickvals=ticks, ticktext=list(map(_text, ticks))
        )
    else:
        figure.update_xaxes(nticks=6)
    return figure


def parallel_trials_figure(
    trials: Trials, space: Mapping[str, Mapping[str, Any]], objectives: Sequence[str], index: int = 0
) -> go.Figure:
    """Every complete trial as a line through its settings to what it reached: the better, the darker and the higher.

    Args:
        trials: the trials.
        space: what was tried, by key.
        objectives: their names; each is an axis at the right.
        index: the place of the objective that colours.
    """
    complete = sorted(_complete(trials, index), key=lambda pair: pair[1])
    figure = blank(height=420)
    if len(complete) < 2 or not space:
        return figure
    columns = [[trial["values"][i] for trial, _ in complete] for i in range(len(objectives))]
    ends = [(min(column), max(column)) for column in columns]
    # Only the best half tells differences of colour: the worst trials of a search are often far below.
    ranks = [rank / (len(complete) - 1) for rank in range(len(complete))]
    colors = sample_colorscale(SEQUENTIAL, [0.15 + 0.85 * rank**2 for rank in ranks])
    keys = [label(name) for name in (*space, *objectives)]
    for (trial, _), color, rank in zip(complete, colors, ranks, strict=True):
        heights = [_height(span, trial["parameters"].get(key)) for key, span in space.items()]
        heights += [
            (value - low) / (high - low) if high > low else 0.5
            for value, (low, high) in zip(trial["values"], ends, strict=True)
        ]
        figure.add_scatter(
            x=keys,
            y=heights,
            mode="lines",
            line={"color": color, "width": 1 + 2 * rank**2},
            customdata=[_text(v) for v in (*(trial["parameters"].get(key) for key in space), *trial["values"])],
            name=f"trial {trial['number']}",
            hovertemplate="%{x} %{customdata}<extra>%{fullData.name}</extra>",
        )
    tips = [
        *((_text(_end(span, 0)), _text(_end(span, -1))) for span in space.values()),
        *((_text(a), _text(b)) for a, b in ends),
    ]
    for key, (low, high) in zip(keys, tips, strict=True):
        figure.add_annotation(x=key, y=0, text=label(low), yanchor="top", yshift=-6)
        figure.add_annotation(x=key, y=1, text=label(high), yanchor="bottom", yshift=6)
    figure.update_annotations(showarrow=False, font_color=MUTED)
    names = [*(key.rpartition(".")[2] for key in space), *objectives]
    figure.update_xaxes(names_axis([*space, *objectives]) | {"ticktext": [label(_short(name)) for name in names]})
    figure.update_xaxes(showgrid=True, range=[-0.4, len(keys) - 0.6], tickangle=0 if len(keys) < 6 else -35)
    figure.update_yaxes(visible=False, range=[-0.12, 1.12])
    return figure


def importance_figure(shares: Mapping[str, Any]) -> go.Figure:
    """Bars of the share of an objective's variation that each setting explains, the largest first."""
    kept = {key: number for key, value in shares.items() if (number := finite(value)) is not None}
    names = sorted(kept, key=lambda key: -kept[key])
    return bars_figure(names, [kept[name] for name in names], "%{x:.0%}", ACCENT)


def evaluations_figure(trials: Trials) -> go.Figure:
    """The objective of every trial while it trained: grey where it was pruned."""
    figure = blank(height=280)
    for trial in sorted(trials, key=lambda trial: trial["state"] == "complete"):
        values = [finite(value) for value in trial.get("evaluations") or []]
        if len(values) and any(value is not None for value in values):
            complete = trial["state"] == "complete"
            figure.add_scatter(
                x=list(range(1, len(values) + 1)),
                y=values,
                mode="lines+markers",
                line={"color": ACCENT if complete else REFERENCE, "width": 1.5, "dash": "solid" if complete else "dot"},
                marker={"size": 5},
                opacity=0.6,
                name=f"trial {trial['number']}" + ("" if complete else f", {trial['state']}"),
                hovertemplate="evaluation %{x}: %{y:.5f}<extra>%{fullData.name}</extra>",
            )
    figure.update_xaxes(title=axis_title("evaluation"), nticks=6)
    return figure


def _complete(trials: Trials, index: int) -> list[tuple[Mapping[str, Any], float]]:
    """Complete trials, and what they reached on an objective."""
    found = [(trial, finite((trial.get("values") or [None] * (index + 1))[index])) for trial in trials]
    return [(trial, value) for trial, value in found if value is not None and trial["state"] == "complete"]


def _height(span: Mapping[str, Any], value: Any) -> float | None:
    """Where a setting lies on its axis, from 0 to 1."""
    choices = span.get("choices") or []
    if choices:
        return choices.index(value) / max(1, len(choices) - 1) if value in choices else None
    low, high, number = finite(span.get("low")), finite(span.get("high")), finite(value)
    if low is None or high is None or number is None or not low < high:
        return None
    if span.get("log"):
        low, high, number = math.log(low), math.log(high), math.log(number)
    return (number - low) / (high - low)


def _end(span: Mapping[str, Any], side: int) -> Any:
    choices = span.get("choices") or []
    return choices[side] if choices else span.get("low" if side == 0 else "high")


def _text(value: Any) -> str:
    """A setting in few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:8]}…{name[-5:]}"
