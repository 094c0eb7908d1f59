"""Studies as figures, and the one look of all figures: plain dictionaries and lists in, calm `plotly` figures out.

Every function is pure. A value that is missing (absent, null, NaN) is left out of its figure, and a figure with nothing
to show has no traces, so that a page can drop it. Names come from the user: they pass through `label`, because plotly
reads a small subset of HTML in every text it draws.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product, zip_longest
from typing import Any, Final

import plotly.graph_objects as go

INK, MUTED, GRID = "#1f2933", "#5f6b7a", "#e5e9ee"
ACCENT, REFERENCE = "#0072b2", "#8a94a3"

# Okabe & Ito (2008), distinguishable under every common colour blindness. Green, vermilion and grey are kept for the
# verdicts (darkened so that they are readable as text on white); architectures take the rest, then change their dash.
_MODEL_COLORS: Final = ("#0072b2", "#e69f00", "#cc79a7", "#56b4e9", "#000000")
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3")
_HALO: Final = {"color": "white", "width": 1}
SEQUENTIAL: Final = [[0.0, "#f5f9fc"], [0.5, "#7db5d8"], [1.0, "#08519c"]]
DIVERGING: Final = [[0.0, "#b35806"], [0.5, "#ffffff"], [1.0, "#08519c"]]

_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_AXIS: Final = {
    "gridcolor": GRID,
    "zeroline": False,
    "automargin": True,
    "fixedrange": True,
    "ticks": "",
    "ticklabelstandoff": 5,
}
TEMPLATE: Final = go.layout.Template(
    layout={
        "font": {"family": _FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "showlegend": False,
        "dragmode": False,  # a finger that scrolls the page must not drag a chart
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)

_LONGEST: Final = 22  # characters of a name on an axis
_INTERVAL: Final = "<br>interval %{customdata[0]:+.4f} to %{customdata[1]:+.4f}"
_DISPLAY: Final = {
    "single_task": "Single-task",
    "lightgbm": "LightGBM",
    "shared_bottom": "Shared bottom",
    "mmoe": "MMoE",
    "cgc": "CGC",
    "ple": "PLE",
}

# What can be paid for: its title, and its number as plotly (d3) text.
COSTS: Final = {
    "parameters": ("Parameters", "%{x:.3~s}"),
    "train_seconds": ("Training time", "%{x:,.4~r} s"),
    "peak_memory_bytes": ("Peak memory", "%{x:.3~s}B"),
    "model_bytes": ("Size on disk", "%{x:.3~s}B"),
    "rows_per_second": ("Rows per second (more is better)", "%{x:.3~s}"),
}


@dataclass(frozen=True)
class Panel:
    """One figure of a page, with the words above it."""

    title: str
    note: str
    figure: go.Figure


@dataclass(frozen=True)
class Verdict:
    """How one verdict looks: never told by colour alone."""

    word: str
    sign: str
    color: str
    symbol: str


@dataclass(frozen=True)
class Stroke:
    """How one architecture's line looks; `dash` is an SVG dash array, empty for a solid line."""

    color: str
    dash: str


VERDICTS: Final = {
    "gain": Verdict("gain", "▲", "#00704f", "triangle-up"),
    "loss": Verdict("loss", "▼", "#b54708", "triangle-down"),
    "tie": Verdict("tie", "=", MUTED, "circle"),
}


def finite(value: object) -> float | None:
    """The value as a float, or None where there is no finite number to show."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def display_name(name: str) -> str:
    """The field's spelling of an architecture (also before ` + balancer`) or a reference; other names as they are."""
    architecture, plus, balancer = name.partition(" + ")
    return _DISPLAY.get(architecture, architecture) + plus + balancer


def label(name: object) -> str:
    """A name as plotly text: its characters, never markup."""
    return escape(str(name), quote=False)


def strokes(names: Iterable[str]) -> dict[str, Stroke]:
    """One line style per architecture, the same in every panel of a page."""
    styles = [Stroke(color, dash) for dash, color in product(_DASHES, _MODEL_COLORS)]
    return {name: styles[i % len(styles)] for i, name in enumerate(names)}


def seesaw_reach(models: Sequence[Mapping[str, Any]], tasks: Iterable[str], reference: str) -> float:
    """The largest |Δ| or interval end against `reference`, over `tasks` and models: one scale for their panels."""
    ends = [
        abs(number)
        for task, model in product(tasks, models)
        for end in ("mean", "low", "high")
        if (number := finite(delta_of(model, task, reference).get(end))) is not None
    ]
    return max(ends, default=0.0)


def delta_of(model: Mapping[str, Any], task: str, reference: str) -> Mapping[str, Any]:
    """`model`'s difference on `task` against `reference`: mean, low, high, verdict; empty where it was not measured."""
    entry = (model.get("tasks") or {}).get(task) or {}
    return (entry.get("delta") or {}).get(reference) or {}


def seesaw_figure(
    models: Sequence[Mapping[str, Any]], task: str, reference: str, reach: float | None = None
) -> go.Figure:
    """One task's panel of the seesaw: Δ metric per architecture against a reference, with its interval.

    Args:
        models: The study's `models`; `tasks.<task>.delta.<reference>` holds `mean`, `low`, `high` and `verdict`.
        task: The panel's task.
        reference: `single_task` or `lightgbm`.
        reach: Half the width of the axis, in the metric's unit; by default what this panel needs.

    Returns:
        One line trace (the interval, low to high) and one marker trace (the mean) for each verdict that occurs.
    """
    figure = blank(height=54 + 46 * len(models))
    rows = [(label(display_name(model["name"])), delta_of(model, task, reference)) for model in models]
    for key, verdict in VERDICTS.items():
        shown = [(name, d) for name, d in rows if d.get("verdict") == key and finite(d.get("mean")) is not None]
        ends = [(finite(d.get("low")), finite(d.get("high"))) for _, d in shown]
        if not shown:
            continue
        figure.add_scatter(
            x=[value for low, high in ends for value in (low, high, None)],
            y=[value for name, _ in shown for value in (name, name, None)],
            mode="lines",
            line={"color": verdict.color, "width": 3},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=[finite(d["mean"]) for _, d in shown],
            y=[name for name, _ in shown],
            mode="markers+text",
            marker={"color": verdict.color, "size": 11, "symbol": verdict.symbol, "line": _HALO},
            texttemplate=f"{verdict.sign} %{{x:+.4f}}",
            textposition="top center",
            textfont={"color": verdict.color},
            cliponaxis=False,
            customdata=ends,
            hovertemplate=["%{x:+.4f}" + ("" if None in end else _INTERVAL) for end in ends],
            name=verdict.word,
        )
    if not figure.data:
        return figure
    half = 1.15 * (reach or seesaw_reach(models, [task], reference)) or 0.001
    figure.update_xaxes(range=[-half, half], tickformat="+.4~f", tickangle=0, nticks=4)
    figure.update_xaxes(title=axis_title("← worse   better →"), zeroline=True, zerolinecolor=REFERENCE)
    # A little air above the first row, where the number of its point stands.
    figure.update_yaxes(names_axis([display_name(m["name"]) for m in models]), range=[len(models) - 0.5, -0.75])
    for name, delta in rows:
        if delta.get("verdict") not in VERDICTS or finite(delta.get("mean")) is None:
            figure.add_annotation(x=0, y=name, text="not measured", showarrow=False, bgcolor="white", font_color=MUTED)
    return figure


def curve_figure(models: Sequence[Mapping[str, Any]], task: str, part: str) -> go.Figure:
    """Learning curves of one task over the training rows seen: a line per architecture and seed.

    Args:
        models: The study's `models`, each with `curves`: `seed`, `rows`, `train_loss.<task>` and `valid.<task>`.
        task: The panel's task.
        part: `valid` (the task's metric on validation data) or `train_loss`.

    Returns:
        One line trace per architecture and seed; none where no curve was recorded.
    """
    figure = blank(height=260)
    styles = strokes(model["name"] for model in models)
    for model in models:
        for curve in model.get("curves") or []:
            y = [finite(value) for value in (curve.get(part) or {}).get(task) or []]
            if any(value is not None for value in y):
                figure.add_scatter(
                    x=list(curve.get("rows") or []),
                    y=y,
                    mode="lines+markers",
                    line=line_of(styles[model["name"]]),
                    marker={"size": 5},
                    opacity=0.8,
                    name=label(f"{display_name(model['name'])}, seed {curve.get('seed', '?')}"),
                    hovertemplate="%{y:.4f} after %{x:,} rows<extra>%{fullData.name}</extra>",
                )
    figure.update_xaxes(tickformat="~s", rangemode="tozero", nticks=6, title=axis_title("training rows seen"))
    return figure


def gate_figure(gates: Sequence[Mapping[str, Any]], largest: float = 1.0) -> go.Figure:
    """Heat map of the mean gate weights of one level: rows are gates, columns are experts.

    Args:
        gates: Entries with `gate`, `experts` (names) and `weights` (mean weight per expert, summing to 1).
        largest: The weight of the darkest colour.

    Returns:
        One heat map; an expert that a gate does not read is an empty cell.
    """
    experts = list(dict.fromkeys(expert for gate in gates for expert in gate["experts"]))
    weights = [dict(zip(gate["experts"], map(finite, gate["weights"]), strict=False)) for gate in gates]
    z = [[weight.get(expert) for expert in experts] for weight in weights]
    figure = heatmap([str(gate["gate"]) for gate in gates], experts, z, "%{z:.0%}")
    return figure.update_traces(zmin=0, zmax=largest, hovertemplate="gate %{y}, expert %{x}: %{z:.1%}<extra></extra>")


def calibration_figure(models: Sequence[Mapping[str, Any]], task: str) -> go.Figure:
    """Reliability of one task: mean prediction of a bin against the mean label seen in it; exact is the diagonal.

    Args:
        models: The study's `models`; `calibration.<task>` holds `predicted`, `observed` and `count` per bin.
        task: The panel's task.

    Returns:
        The diagonal and one line per architecture, both axes on one range; no traces where nothing was measured.
    """
    figure = blank(height=300)
    styles = strokes(model["name"] for model in models)
    ends: list[float] = []
    for model in models:
        bins = (model.get("calibration") or {}).get(task) or {}
        columns = zip_longest(*(map(finite, bins.get(key) or []) for key in ("predicted", "observed", "count")))
        points = [(p, o, n) for p, o, n in columns if p is not None and o is not None]
        if not points:
            continue
        ends += [value for p, o, _ in points for value in (p, o)]
        figure.add_scatter(
            x=[p for p, _, _ in points],
            y=[o for _, o, _ in points],
            customdata=[n for _, _, n in points],
            mode="lines+markers",
            line=line_of(styles[model["name"]]),
            marker={"size": 6},
            name=label(display_name(model["name"])),
            hovertemplate="predicted %{x:.4g}, observed %{y:.4g}, %{customdata:,} rows<extra>%{fullData.name}</extra>",
        )
    if ends:
        low, high = min(0.0, *ends), 1.05 * max(ends)
        diagonal = {"color": REFERENCE, "dash": "dot", "width": 1.5}
        figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=diagonal, name="exact", hoverinfo="skip")
        figure.update_xaxes(range=[low, high], nticks=6, title=axis_title("predicted"))
        figure.update_yaxes(range=[low, high], nticks=6, title=axis_title("observed"))
    return figure


def cost_figure(study: Mapping[str, Any], quantity: str) -> go.Figure:
    """Bars of one cost: each multi-task model, and beside it the sum of the models it replaces.

    Args:
        study: Reads `models[].cost.<quantity>` and `costs.<reference>.<quantity>`.
        quantity: A key of `COSTS`.

    Returns:
        One bar trace in the quantity's unit, references in grey; none where nothing was measured.
    """
    costs = [(display_name(model["name"]), model.get("cost"), ACCENT) for model in study["models"]]
    costs += [(f"{display_name(n)}, all tasks", cost, REFERENCE) for n, cost in (study.get("costs") or {}).items()]
    bars = [(n, v, color) for n, cost, color in costs if (v := finite((cost or {}).get(quantity))) is not None]
    return bars_figure([b[0] for b in bars], [b[1] for b in bars], COSTS[quantity][1], [b[2] for b in bars])


def blank(height: int) -> go.Figure:
    """A figure without traces, in the pages' one look."""
    return go.Figure(layout={"template": TEMPLATE, "height": height})


def line_of(stroke: Stroke) -> dict[str, Any]:
    """A stroke as plotly's `line`."""
    return {"color": stroke.color, "dash": stroke.dash or "solid", "width": 2}


def axis_title(text: str) -> dict[str, Any]:
    """A quiet title of an axis."""
    return {"text": text, "font": {"size": 12, "color": MUTED}, "standoff": 6}


def names_axis(names: Sequence[str]) -> dict[str, Any]:
    """A category axis of these names, in this order."""
    # A long name keeps both its ends: "mmoe + gr…d, seed 3" still tells two apart, and the plot keeps its room.
    half = _LONGEST // 2
    short = [name if len(name) <= _LONGEST else f"{name[:half]}…{name[1 - half :]}" for name in names]
    keys, ticks = list(map(label, names)), list(map(label, short))
    order = {"type": "category", "categoryorder": "array", "categoryarray": keys}
    return {**order, "tickmode": "array", "tickvals": keys, "ticktext": ticks, "showgrid": False}


def grid(values: Sequence[Sequence[object]] | None) -> list[list[float | None]]:
    """Rows of numbers, None where there is none."""
    return [[finite(value) for value in row] for row in values or []]


def heatmap(rows: Sequence[str], columns: Sequence[str], z: Sequence[Sequence[float | None]], cell: str) -> go.Figure:
    """A heat map with the numbers in its cells; a None is an empty cell."""
    longest = min(max(map(len, columns), default=0), _LONGEST)
    tilt = 5 * longest if len(columns) * longest > 36 else 0  # pixels that tilted names need, upward and to the right
    figure = blank(height=40 + 40 * len(rows) + tilt)
    if rows and columns:
        figure.add_heatmap(
            x=[label(name) for name in columns],
            y=[label(name) for name in rows],
            z=z,
            texttemplate=cell,
            colorscale=SEQUENTIAL,
            showscale=False,
            xgap=2,
            ygap=2,
        )
        figure.update_xaxes(names_axis(columns), side="top", tickangle=-45 if tilt else 0)
        figure.update_yaxes(names_axis(rows), autorange="reversed")
        figure.update_layout(margin_r=16 + tilt)
    return figure


def bars_figure(
    names: Sequence[str], values: Sequence[float], texts: str | Sequence[str], colors: str | Sequence[str]
) -> go.Figure:
    """Horizontal bars with their numbers beside them, in the order given."""
    figure = blank(height=24 + 32 * len(names))
    if names:
        figure.add_bar(
            x=list(values),
            y=[label(name) for name in names],
            orientation="h",
            marker={"color": colors},
            texttemplate=texts,
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:,}<extra></extra>",
        )
        # The numbers stand beside the bars: the axis needs no ticks, but room to the right.
        figure.update_xaxes(visible=False, range=[0, 1.45 * (max(values) or 1)])
        figure.update_yaxes(names_axis(names), autorange="reversed")
    return figure
