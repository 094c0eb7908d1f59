"""A training as figures: losses, metrics, weights, gradient norms and conflict over time.

Each reads columns of a history (`polyrank.training.history.read_history`).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import plotly.graph_objects as go

from polyrank.plots import DIVERGING, REFERENCE, Panel, axis_title, blank, finite, heatmap, label, line_of, strokes

_AXES = {"rows": "training rows seen", "steps": "training steps"}
_MARKED = 30  # points a line at most that are marked each


def lines_figure(
    places: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
    *,
    across: str = "rows",
    logarithmic: bool = False,
    best: float | None = None,
) -> go.Figure:
    """A line for each column over training; a column without a number has none.

    Args:
        places: training rows seen, or steps made.
        columns: values by name, as long as `places`.
        across: "rows" or "steps".
        logarithmic: for values whose ratios matter (norms, weights); what is not positive is then left out.
        best: the place at which the kept checkpoint was written: a vertical line.
    """
    figure = blank(height=260)
    styles = strokes(columns)
    for name, values in columns.items():
        y = [number if number is None or number > 0 or not logarithmic else None for number in map(finite, values)]
        if any(value is not None for value in y):
            figure.add_scatter(
                x=list(places),
                y=y,
                mode="lines+markers" if len(y) <= _MARKED else "lines",
                line=line_of(styles[name]),
                marker={"size": 5},
                name=label(name),
                hovertemplate=f"%{{y:.4g}} after %{{x:,}} {across}<extra>%{{fullData.name}}</extra>",
            )
    # The legend is below the axis and grows downward: long names of tasks take lines of their own.
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.28, "yanchor": "top", "x": 0})
    figure.update_xaxes(tickformat="~s", rangemode="tozero", nticks=6, title=axis_title(_AXES[across]))
    if logarithmic:
        figure.update_yaxes(type="log", nticks=6, tickformat="~g")
    if best is not None and figure.data:
        figure.add_vline(x=best, line={"color": REFERENCE, "dash": "dot", "width": 1.5})
    return figure


def balance_panels(balance: Mapping[str, Any], tasks: Sequence[str]) -> list[Panel]:
    """What a balancer did (`balance` of a history): weights that moved, losses, norms, conflict; each that is there."""
    steps = balance.get("step") or []
    weights, losses, norms = (balance.get(key) or {} for key in ("weights", "losses", "norms"))
    pairs = pair_columns(balance, tasks)
    agreement = lines_figure(steps, pairs, across="steps")
    reach = 1.1 * max([0.1, *(abs(cosine) for pair in pairs.values() for cosine in pair if cosine is not None)])
    agreement.update_yaxes(range=[-reach, reach], zeroline=True, zerolinecolor=REFERENCE)
    panels = [
        Panel(
            "Loss weights",
            "what each task's loss counted for",
            lines_figure(steps, weights if varies(weights) else {}, across="steps"),
        ),
        Panel("Losses", "unweighted, logarithmic", lines_figure(steps, losses, across="steps", logarithmic=True)),
        Panel(
            "Gradient norms",
            "of each task's loss over what is shared, logarithmic",
            lines_figure(steps, norms, across="steps", logarithmic=True),
        ),
        Panel("Agreement over time", "cosine of two tasks' gradients, below 0: conflict", agreement),
    ]
    if len(tasks) > 2:
        note = "mean cosine; below 0 two tasks pull what they share apart"
        panels.append(Panel("Conflict", note, conflict_figure(balance, tasks)))
    return [panel for panel in panels if panel.figure.data]


def pair_columns(balance: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, list[float | None]]:
    """The cosine of every pair of tasks' gradients over time, by `a and b`."""
    matrices = balance.get("cosines") or []
    return {
        f"{tasks[i]} and {tasks[j]}": [None if matrix is None else finite(matrix[i][j]) for matrix in matrices]
        for i, j in combinations(range(len(tasks)), 2)
    }


def conflict_figure(balance: Mapping[str, Any], tasks: Sequence[str]) -> go.Figure:
    """Heat map of the mean cosine between tasks' gradients, over all training, from −1 to 1.

    Below 0 two tasks pull the shared parameters apart, above 0 they agree.
    """
    matrices = [matrix for matrix in balance.get("cosines") or [] if matrix]
    z = [[_mean([finite(matrix[i][j]) for matrix in matrices]) for j in range(len(tasks))] for i in range(len(tasks))]
    figure = heatmap(list(tasks) if matrices else [], list(tasks), z, "%{z:+.2f}")
    template = "%{y} and %{x}: mean cosine %{z:+.4f}<extra></extra>"
    return figure.update_traces(zmin=-1, zmax=1, colorscale=DIVERGING, hovertemplate=template)


def varies(columns: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a number of a column differs from another of it: weights that never move need no picture."""
    known = [{number for number in map(finite, values) if number is not None} for values in columns.values()]
    return any(len(numbers) > 1 for numbers in known)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
