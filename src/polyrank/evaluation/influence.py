"""Which head decides the order: what is lost without it, and how much of the score it makes."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from polyrank.evaluation.requests import Requests
from polyrank.metrics.checks import Rows
from polyrank.metrics.concordance import kendall
from polyrank.metrics.toplists import ndcg

Score: TypeAlias = Callable[[Mapping[str, Rows], Rows], Rows]  # columns, requests → scores [N]


def influence(data: Requests, score: Score, k: int) -> dict[str, dict[str, float]]:
    """The influence of each head on a fused order.

    A head is removed by putting its mean over all rows in the place of its values, which every kind of fusion can
    take; in a weighted sum, and in a product, that is the formula without the head.

    - `ndcg_drop`: reward-NDCG@k of the whole score less that without the head. Negative: the order is better without.
    - `kendall`: τ_b within requests of the orders with and without it; 1: it decides nothing.
    - `share`: Σ_i |s_i − s_i without the head|, each less its mean within the request, as a share of the sum over
      heads. Of a weighted sum that is |w_k| times the mean deviation of the head, so the contribution |w_k p_k| of
      PRL-PUTS but for what is constant within a request, which ranks nothing.

    Args:
        data: the rows.
        score: the fusion's score of columns and requests.
        k: the places that count.

    Returns:
        head → measure → value, `nan` where it is undefined.

    Source: gauravchak/value_model_tuning (NDCG gap); PRL-PUTS, arXiv 2605.16344 (contribution share).
    """
    whole = np.asarray(score(data.columns, data.requests))
    best = ndcg(whole, data.reward, data.requests, k).mean()
    found, moved = {}, {}
    for head in data.heads:
        column = np.asarray(data.columns[head], np.float64)
        without = np.asarray(score({**data.columns, head: np.full(len(column), column.mean())}, data.requests))
        found[head] = {
            "ndcg_drop": best - ndcg(without, data.reward, data.requests, k).mean(),
            "kendall": kendall(whole, without, data.requests).mean(),
        }
        moved[head] = float(np.abs(_within(whole - without, data.requests)).sum())
    total = sum(moved.values())
    return {head: {**values, "share": moved[head] / total if total else np.nan} for head, values in found.items()}


def _within(values: Rows, requests: Rows) -> Rows:
    """Values less their mean within the request."""
    _, member, counts = np.unique(requests, return_inverse=True, return_counts=True)
    return values - (np.bincount(member, values) / counts)[member]
