"""Pages of a fusion that was searched, and of a calibration."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from polyrank.charts.fusion import (
    agreement_figure,
    influence_panels,
    orders_figure,
    progress_figure,
    response_panels,
    tried_figure,
    weights_figure,
)
from polyrank.page import check_document, drawn, number_text, render
from polyrank.plots import Panel, calibration_figure, finite, strokes

METRICS: Final = {
    ("composite", "gauc"): "composite",
    ("ndcg", "reward"): "reward NDCG",
    ("mtf_gauc", "reward"): "MTF-GAUC",
}
_SHOWN: Final = ("searched", "searched, by segment", "current formula", "equal contributions")


def fusion_html(document: Mapping[str, Any]) -> str:
    """The page of a searched fusion.

    Args:
        document: what `search.json` holds, format 1 (see `polyrank.fuse`).

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: the document has another format.
    """
    check_document(document, "search.json", ())
    judged = document["judged"]
    names = [ranking["name"] for ranking in judged["rankings"]]
    shown = [name for name in _SHOWN if name in names]
    several = len((judged.get("pareto") or {}).get("behaviours") or []) > 1
    trials, best, agreement = document["trials"], document["best"], document["agreement"]
    return render(
        "fusion.html",
        document=document,
        judged=judged,
        columns=[
            *((metric, of, title) for (metric, of), title in METRICS.items()),
            *(("gauc", name, name) for name in judged["behaviours"]),
        ],
        headline=_headline(document),
        orders=drawn([Panel("GAUC of each behaviour", "on test rows", orders_figure(judged))] if several else []),
        tried=drawn([Panel("Formulas tried", "on validation rows; gold: the chosen one", tried_figure(document))]),
        cohorts=cohort_rows(judged.get("cohorts") or [], judged["behaviours"], shown[0], document["reference"]),
        search=drawn([
            Panel("The search", "the goal of every formula tried", progress_figure(trials, best)),
            Panel("The weights tried", "an axis each, on its own scale", weights_figure(document)),
        ]),
        influence=drawn(influence_panels((judged.get("influence") or {}).get("searched") or {})),
        agreement=drawn([
            Panel("Kendall's τ within requests", "1: one order, 0: nothing in common", agreement_figure(agreement))
        ]),
        curves=drawn(response_panels(judged.get("curves") or {}, shown)),
        strokes=strokes(shown),
        order_strokes=strokes(names),
        calibration=reliability_panels(document.get("calibration") or {}),
        reliability=strokes(["before", "after"]),
    )  # fmt: skip


def calibration_html(document: Mapping[str, Any], run: str) -> str:
    """The page of a calibration: reliability before and after, on the rows it was fitted on and on others.

    Args:
        document: what `calibration.json` holds, format 1 (see `polyrank.calibrating`).
        run: the run's name.

    Raises:
        DataError: the document has another format.
    """
    check_document(document, "calibration.json", ())
    panels = {part: reliability_panels(found["tasks"]) for part, found in document["shown"].items()}
    return render(
        "calibration.html", document=document, run=run, panels_of=panels, reliability=strokes(["before", "after"])
    )


def cohort_rows(
    cohorts: Sequence[Mapping[str, Any]], behaviours: Sequence[str], name: str, reference: str
) -> list[dict[str, Any]]:
    """Each cohort as a row: its size, and for each behaviour the GAUC of `name` and its difference to the reference."""
    rows = []
    for entry in cohorts:
        cells = []
        for behaviour in behaviours:
            found = (entry["metrics"].get("gauc") or {}).get(behaviour) or {}
            own, other = finite(found.get(name)), finite(found.get(reference))
            cells.append({"value": own, "delta": None if own is None or other is None else own - other})
        rows.append({**{key: entry[key] for key in ("cohort", "value", "rows", "users")}, "cells": cells})
    return rows


def reliability_panels(tasks: Mapping[str, Any]) -> list[Panel]:
    """One panel a task: predicted against observed, before and after."""
    panels = []
    for task, found in tasks.items():
        models = [{"name": when, "calibration": {task: found[when]}} for when in ("before", "after")]
        note = " → ".join(f"{number_text(found[when]['ece'])}" for when in ("before", "after"))
        panels.append(Panel(task, f"calibration error {note}", calibration_figure(models, task)))
    return drawn(panels)


def _headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """The one comparison a reader wants: the chosen fusion against the reference, on the goal, on test rows."""
    rankings = {ranking["name"]: ranking for ranking in document["judged"]["rankings"]}
    metric, of = {"composite": ("composite", "gauc"), "ndcg": ("ndcg", "reward"), "mtf_gauc": ("mtf_gauc", "reward")}[
        document["goal"]
    ]
    best = "searched, by segment" if "searched, by segment" in rankings else "searched"
    delta = ((rankings[best].get("against") or {}).get(metric) or {}).get(of) or {}
    sobol = ((document["against"].get("Sobol, equal budget") or {}).get(best) or {}).get(metric, {}).get(of) or {}
    return {
        "name": METRICS[metric, of],
        "best": best,
        "delta": delta,
        "sobol": sobol,
        "reference": document["reference"],
    }
