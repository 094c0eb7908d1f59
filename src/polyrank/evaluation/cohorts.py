"""Who gains by a fused order and who pays: its metrics on parts of the rows (new users, long videos)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from polyrank.evaluation.fused import JudgeConfig, measure
from polyrank.evaluation.requests import Requests
from polyrank.metrics.checks import Rows

SHOWN = ("gauc", "ndcg", "mtf_gauc")


def cohort_table(
    data: Requests, rankings: Mapping[str, Rows], cohorts: Mapping[str, Rows], config: JudgeConfig
) -> list[dict[str, Any]]:
    """Every ranking on the rows of every value of every cohort.

    A cohort of users keeps whole requests; one of items (a duration bucket) keeps the part of each request that is in
    it, so that what is measured is the order of like among like: GAUC within duration buckets does not reward a score
    for putting long videos first.

    Args:
        data: the rows.
        rankings: `[N]` scores by name.
        cohorts: by name, each row's value `[N]` (text or whole numbers).
        config: what is measured.

    Returns:
        JSON-ready: `cohort`, `value`, `rows`, `requests`, `users`, and `metrics` → metric → of → ranking → value (None:
        undefined), of the metrics in `SHOWN`.
    """
    table = []
    for cohort, values in cohorts.items():
        for value in np.unique(np.asarray(values)):
            mine = np.asarray(values) == value
            part = data.select(mine)
            metrics: dict[str, Any] = {}
            for name, scores in rankings.items():
                for (metric, of), found in measure(part, np.asarray(scores)[mine], config).items():
                    if metric in SHOWN:
                        mean = found.mean()
                        entry = metrics.setdefault(metric, {}).setdefault(of, {})
                        entry[name] = float(mean) if np.isfinite(mean) else None
            sizes = {"rows": part.rows, "requests": len(np.unique(part.requests)), "users": len(np.unique(part.users))}
            table.append({"cohort": cohort, "value": value.item(), **sizes, "metrics": metrics})
    return table


def buckets(values: Rows, count: int = 4, unit: str = "") -> Rows:
    """Each row's equal-mass bucket `[N]` as text that sorts in its order: `1: up to 12 s`, …, `4: above 250 s`.

    Args:
        values: `[N]` finite (lengths, prices, activity).
        count: how many; ties may leave fewer.
        unit: is written behind the edges.
    """
    values = np.asarray(values, np.float64)
    edges = np.unique(np.quantile(values, np.arange(1, count) / count, method="lower")) if len(values) else values
    edges = edges[edges < values.max(initial=-np.inf)]  # what is above the last edge must hold a row
    names = [f"{place + 1}: up to {edge:.3g} {unit}".rstrip() for place, edge in enumerate(edges)]
    names.append(f"{len(edges) + 1}: above {edges[-1]:.3g} {unit}".rstrip() if len(edges) else "1: all")
    return np.array(names)[np.searchsorted(edges, values)]
