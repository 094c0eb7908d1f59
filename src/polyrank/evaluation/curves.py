"""What a fusion makes of each head: the curve g_k of any kind of fusion, for all rows and by segment."""

from typing import Any

import numpy as np

from polyrank.evaluation.influence import Score
from polyrank.evaluation.requests import Requests
from polyrank.metrics.checks import Rows

_REQUESTS = 300  # on so many requests a mean curve is smooth


def response_curves(
    data: Requests, score: Score, *, points: int = 21, segments: Rows | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """The mean score of a candidate as one of its heads moves and all else stays.

    `g_k(p) = mean_i s_i(p_k = p) − mean_i s_i`, over one candidate i of each of up to 300 random requests, p on
    quantiles of the head: the partial dependence (Friedman 2001). Of an additive fusion that is w_k · g_k(p) but for a
    constant; where a score depends on the whole request, the other candidates stay as they are.

    Args:
        data: the rows.
        score: the fusion's score of columns and requests.
        points: of each curve; equal quantiles give fewer.
        segments: `[N]` a value for each row (new and active users): a curve for each of its values too.
        seed: chooses requests and candidates.

    Returns:
        JSON-ready: `head`, `segment` ("" of all rows), `x` and `y` of each curve.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(data.rows)
    distinct, first = np.unique(data.requests[shuffled], return_index=True)
    chosen = rng.permutation(len(distinct))[:_REQUESTS]
    rows = np.flatnonzero(np.isin(data.requests, distinct[chosen]))
    part, moved = data.select(rows), np.searchsorted(rows, shuffled[first[chosen]])
    values = np.full(len(moved), "") if segments is None else np.asarray(segments)[rows][moved].astype(str)
    curves: list[dict[str, Any]] = []
    for head in data.heads:
        column = np.asarray(part.columns[head], np.float64)
        x = np.unique(np.quantile(column, np.linspace(0, 1, points))) if len(column) else column
        drawn = []
        for value in x:
            changed = column.copy()
            changed[moved] = value
            drawn.append(np.asarray(score({**part.columns, head: changed}, part.requests))[moved])
        grid = np.stack(drawn) if drawn else np.zeros((0, len(moved)))  # [points, candidates]
        plain = np.asarray(score(part.columns, part.requests))[moved] if len(moved) else np.zeros(0)
        parts = {"": np.ones(len(moved), bool)}
        if segments is not None:
            parts |= {str(value): values == value for value in np.unique(values)}
        for segment, mine in parts.items():
            if mine.any():
                y = (grid[:, mine] - plain[mine]).mean(axis=1)
                curves.append({"head": head, "segment": segment, "x": x.tolist(), "y": y.tolist()})
    return curves
