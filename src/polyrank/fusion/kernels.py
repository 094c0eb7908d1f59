"""What a search measures a thousand times, compiled: metrics of an order within requests, on rows sorted by request.

Rows of a request are adjacent; `starts` `[G + 1]` says where each begins. The plain twins, and the reference of the
tests, are `metrics.grouped.group_auc`, `metrics.toplists.ndcg` and `metrics.concordance.group_xauc`.
"""

from typing import Any

import numpy as np
from numba import njit

_SHORT = 24  # up to so many rows insertion sort is the fastest


@njit(cache=True, nogil=True)
def sort_requests(scores: Any, starts: Any, order: Any) -> None:
    """order[starts[g] : starts[g + 1]] = the request's rows, the highest score first; written."""
    for g in range(len(starts) - 1):
        begin, end = starts[g], starts[g + 1]
        if end - begin > _SHORT:
            order[begin:end] = begin + np.argsort(-scores[begin:end])
            continue
        for row in range(begin, end):
            place = row
            while place > begin and scores[order[place - 1]] < scores[row]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = row


@njit(cache=True, nogil=True)
def mean_auc(scores: Any, order: Any, starts: Any, labels: Any, weights: Any) -> float:
    """GAUC = Σ_g n_g AUC_g / Σ_g n_g, over requests with both classes; nan where there is none.

    Args:
        scores: `[N]`.
        order: `[N]` of `sort_requests`.
        starts: `[G + 1]`.
        labels: `[N]` 0, 1, or nan: the row is left out.
        weights: `[N]` of the pairs: w_i w_j; n_g counts rows all the same.
    """
    total, mass = 0.0, 0.0
    for g in range(len(starts) - 1):
        positives, negatives, wins, rows = 0.0, 0.0, 0.0, 0
        at, end = starts[g], starts[g + 1]
        while at < end:
            score, tied_positives, tied_negatives = scores[order[at]], 0.0, 0.0
            while at < end and scores[order[at]] == score:
                row = order[at]
                if labels[row] == 1.0:
                    tied_positives += weights[row]
                    rows += 1
                elif labels[row] == 0.0:
                    tied_negatives += weights[row]
                    rows += 1
                at += 1
            wins += tied_negatives * (positives + 0.5 * tied_positives)
            positives += tied_positives
            negatives += tied_negatives
        if positives > 0.0 and negatives > 0.0:
            total += rows * (wins / (positives * negatives))
            mass += rows
    return total / mass if mass > 0.0 else np.nan


@njit(cache=True, nogil=True)
def mean_xauc(scores: Any, starts: Any, labels: Any) -> float:
    """XAUC within requests, weighted by rows: of the pairs with different labels, how many are ordered rightly.

    All pairs, one by one: n_g² / 2 steps a request.
    """
    total, mass = 0.0, 0.0
    for g in range(len(starts) - 1):
        right, pairs, rows = 0.0, 0.0, 0
        for i in range(starts[g], starts[g + 1]):
            if np.isnan(labels[i]):
                continue
            rows += 1
            for j in range(starts[g], i):
                difference = labels[i] - labels[j]  # nan where j is left out: no pair
                if difference > 0.0 or difference < 0.0:
                    pairs += 1.0
                    agreement = difference * (scores[i] - scores[j])
                    right += 1.0 if agreement > 0.0 else 0.5 if scores[i] == scores[j] else 0.0
        if pairs > 0.0:
            total += rows * (right / pairs)
            mass += rows
    return total / mass if mass > 0.0 else np.nan


@njit(cache=True, nogil=True)
def mean_ndcg(scores: Any, order: Any, starts: Any, gains: Any, discounts: Any, ideal: Any) -> float:
    """Mean NDCG@k over requests with a gain; tied rows share their places, so each place has their mean gain.

    Args:
        scores: `[N]`.
        order: `[N]` of `sort_requests`.
        starts: `[G + 1]`.
        gains: `[N]`, not negative.
        discounts: `[k]` `1 / log2(i + 2)`.
        ideal: `[G]` the DCG of the best order.
    """
    total, requests = 0.0, 0
    for g in range(len(starts) - 1):
        if not ideal[g] > 0.0:
            continue
        begin, end = starts[g], starts[g + 1]
        at, found = begin, 0.0
        while at < end and at - begin < len(discounts):
            score, first, gain, places = scores[order[at]], at, 0.0, 0.0
            while at < end and scores[order[at]] == score:
                gain += gains[order[at]]
                if at - begin < len(discounts):
                    places += discounts[at - begin]
                at += 1
            found += gain / (at - first) * places
        total += min(found / ideal[g], 1.0)
        requests += 1
    return total / requests if requests > 0 else np.nan
