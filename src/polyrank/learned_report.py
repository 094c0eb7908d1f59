"""The page of learned fusions: beside every head alone and the formula, on rows that chose none of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyrank.charts.learned import agreement_figure, difference_panels, influence_figure, response_figure
from polyrank.page import check_document, drawn, render
from polyrank.plots import Panel, finite, strokes

_MEASURES = {
    "share": ("Contribution", "share of what moves the score within a request"),
    "ndcg_drop": ("NDCG lost without the head", "reward-NDCG; below 0 the order is better without it"),
    "kendall": ("Order with and without the head", "Kendall's τ; 1: the head decides nothing"),
}


def learned_html(document: Mapping[str, Any]) -> str:
    """The page of a judged document.

    Args:
        document: what `polyrank.fusion.judged.judged` makes, and as far as known `title`, `command`, `created`,
            `notes` and `learned` (each ranker's `name`, `source`, `seconds`).

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: another format, or rankings without names.
    """
    check_document(document, "learned.json", ("rankings",))
    shown = columns(document)
    heads, curves = document["heads"], document.get("curves") or {}
    influence = document.get("influence") or {}
    return render(
        "learned.html",
        document=document,
        columns=shown,
        differences=difference_panels(document, shown),
        strokes=strokes(curves),
        curves=drawn(Panel(head, "", response_figure(curves, head)) for head in heads),
        influence=drawn(
            Panel(title, note, influence_figure(influence, heads, measure))
            for measure, (title, note) in _MEASURES.items()
        ),
        agreement=drawn([Panel("Kendall's τ with every head alone", "", agreement_figure(document))]),
        cohorts=_cohorts(document),
    )


def columns(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the page's table shows: metric, what it is of, and its title; what no ranking has is left out."""
    k, behaviours = document.get("k"), document.get("behaviours") or []
    every = [
        ("composite", "gauc", "Composite"),
        ("mtf_gauc", "reward", "MTF-GAUC"),
        ("ndcg", "reward", f"Reward-NDCG@{k}"),
    ]
    every += [("gauc", name, f"GAUC {name}") for name in behaviours]
    return [
        (metric, of, title)
        for metric, of, title in every
        if any(
            finite(((ranking["metrics"].get(metric) or {}).get(of) or {}).get("value")) is not None
            for ranking in document["rankings"]
        )
    ]


def _cohorts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """MTF-GAUC of every ranking on every part of the rows."""
    rows = []
    for entry in document.get("cohorts") or []:
        values = ((entry.get("metrics") or {}).get("mtf_gauc") or {}).get("reward") or {}
        rows.append({**entry, "values": [values.get(name) for name in _names(document)]})
    return rows


def _names(document: Mapping[str, Any]) -> Sequence[str]:
    return [ranking["name"] for ranking in document["rankings"]]
