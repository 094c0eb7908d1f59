"""A data profile as figures: labels, how they feed each other, features."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from polyrank.plots import ACCENT, DIVERGING, bars_figure, finite, grid, heatmap


def share_figure(shares: Mapping[str, Any]) -> go.Figure:
    """Horizontal bars of shares of one, in the order given; null entries are left out."""
    kept = {name: number for name, value in shares.items() if (number := finite(value)) is not None}
    return bars_figure(list(kept), list(kept.values()), "%{x:.3~p}", ACCENT)


def positives_figure(tasks: Sequence[Mapping[str, Any]], rows: int) -> go.Figure:
    """The label funnel as bars: positive rows of each binary task, and their share of all `rows`."""
    kept = [(t["name"], n) for t in tasks if (n := finite(t.get("positives"))) is not None]
    figure = bars_figure([name for name, _ in kept], [n for _, n in kept], "%{x:,}  (%{customdata:.3~p})", ACCENT)
    widest = max([n for _, n in kept], default=1)
    return figure.update_traces(customdata=[n / max(rows, 1) for _, n in kept]).update_xaxes(range=[0, 1.8 * widest])


def conditional_figure(funnel: Mapping[str, Any]) -> go.Figure:
    """Heat map of P(column's label = 1 | row's label = 1); the cell says the share, the hover the rows with both."""
    tasks, z = list(funnel.get("tasks") or []), grid(funnel.get("conditional"))
    template = "of the rows with %{y}, %{z:.3~p} also have %{x}<br>%{customdata:,} rows have both<extra></extra>"
    figure = heatmap(tasks, tasks, z, "%{z:.3~p}")
    return figure.update_traces(zmin=0, zmax=1, customdata=grid(funnel.get("counts")), hovertemplate=template)


def correlation_figure(correlations: Mapping[str, Any]) -> go.Figure:
    """Heat map of Pearson correlations between labels, on the full range −1 to 1; a null cell is empty."""
    tasks = list(correlations.get("tasks") or [])
    figure = heatmap(tasks, tasks, grid(correlations.get("values")), "%{z:+.2f}")
    template = "%{y} and %{x}: %{z:+.4f}<extra></extra>"
    return figure.update_traces(zmin=-1, zmax=1, colorscale=DIVERGING, hovertemplate=template)


def cardinality_figure(features: Sequence[Mapping[str, Any]], most: int = 40) -> go.Figure:
    """Distinct values per feature, largest first, on a log axis; `≥` marks a lower bound. At most `most` bars."""
    kept = [(f, n) for f in features if (n := finite(f.get("distinct"))) is not None and n > 0]
    kept = sorted(kept, key=lambda pair: -pair[1])[:most]
    texts = [("≥ " if f.get("distinct_is_lower_bound") else "") + "%{x:,}" for f, _ in kept]
    figure = bars_figure([f["name"] for f, _ in kept], [n for _, n in kept], texts, ACCENT)
    if kept:
        # The range is in decades; it starts below 1 so that a constant feature still has a bar.
        figure.update_xaxes(type="log", range=[math.log10(0.7), 1.35 * math.log10(kept[0][1]) + 0.3])
    return figure
