"""Fusions on the rows that judge them: the table, each one's influences and curves, and who gains, in one document."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from polyrank.evaluation.cohorts import cohort_table
from polyrank.evaluation.curves import response_curves
from polyrank.evaluation.fused import CORNER, JudgeConfig, judge
from polyrank.evaluation.influence import influence
from polyrank.evaluation.pareto import front
from polyrank.evaluation.requests import Requests
from polyrank.fusion.fusion import Fusion
from polyrank.metrics.checks import Rows
from polyrank.progress import Progress, Silent


def judged(
    data: Requests,
    fusions: Mapping[str, Fusion],
    reference: str,
    config: JudgeConfig,
    *,
    negative: Collection[str] = (),
    cohorts: Mapping[str, Rows] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `judge` says of the fusions and of every head alone, and more.

    Args:
        data: rows that chose no fusion.
        fusions: by name.
        reference: the name that all are compared with; "<head> alone" is one too.
        config: how they are judged.
        negative: heads that speak against a candidate: to sort by a hate is nobody's corner, and is left out.
        cohorts: `[N]` values by name, for tables by cohort; curves are drawn for each value of the first.
        seed: of the bootstrap and of the curves' candidates.
        progress: where to report.

    Returns:
        JSON-ready: what `judge` returns, and `pareto` (`front`: the rankings that none dominates in the behaviours'
        GAUC; `hypervolume` from ½, a coin's GAUC, in all of them), `influence` → fusion → head → measure, `curves` →
        fusion (see `response_curves`), and `cohorts` (see `cohort_table`).

    Raises:
        ValueError: as in `judge` and `Fusion.score`.
    """
    cohorts = cohorts or {}
    with (progress or Silent()).bar("judging", 3 * len(fusions) + len(data.heads) + config.replicates, "steps") as bar:
        scores: dict[str, Rows] = {}
        for name, fusion in fusions.items():
            scores[name] = fusion.score(data.columns, data.requests)
        document = judge(data, scores, reference, config, seed=seed, bar=bar)
        left_out = {CORNER.format(head) for head in negative}
        document["rankings"] = [ranking for ranking in document["rankings"] if ranking["name"] not in left_out]
        segments = next(iter(cohorts.values()), None)
        influences, curves = {}, {}
        for name, fusion in fusions.items():
            found = influence(data, fusion.score, config.k)
            influences[name] = {head: {k: _json(v) for k, v in values.items()} for head, values in found.items()}
            bar.advance(1)
            curves[name] = response_curves(data, fusion.score, segments=segments, seed=seed)
            bar.advance(1)
    corners = {CORNER.format(head): data.columns[head] for head in data.heads if head not in negative}
    return document | {
        "pareto": pareto(document),
        "influence": influences,
        "curves": curves,
        "cohorts": cohort_table(data, {**corners, **scores}, cohorts, config),
    }


def pareto(document: Mapping[str, Any]) -> dict[str, Any]:
    """The front of a judged document's rankings in the behaviours' GAUC, and its hypervolume above chance."""
    names = [ranking["name"] for ranking in document["rankings"]]
    behaviours = [
        name
        for name in document["behaviours"]
        if all(ranking["metrics"]["gauc"][name]["value"] is not None for ranking in document["rankings"])
    ]
    if not behaviours:
        return {"behaviours": [], "front": [], "hypervolume": None}
    values = [[ranking["metrics"]["gauc"][name]["value"] for name in behaviours] for ranking in document["rankings"]]
    found = front(np.array(values), np.full(len(behaviours), 0.5))
    members = [name for name, member in zip(names, found.members, strict=True) if member]
    return {"behaviours": behaviours, "front": members, "hypervolume": found.volume}


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
