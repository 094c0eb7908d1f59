"""g_k: what is made of one task score before it is weighed. Functions of arrays, finite for every finite input.

Where the textbook function is undefined (the logarithm of 0, a power of a negative number) the argument is floored or
clipped first; the floor lies below every positive float32, so that it changes no probability but an exact 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.special import logit as scipy_logit

from polyrank.metrics.checks import Floats, Rows

FLOOR = 1e-50
LIMIT = 1e150  # no value leaves ±LIMIT, so that no later sum or product of two overflows
EDGE = 1e-7  # logit sees [EDGE, 1 − EDGE]


def log(x: Any) -> Any:
    """`ln max(x, FLOOR)`."""
    return np.log(np.maximum(x, FLOOR))


def log1p(x: Any) -> Any:
    """`ln(1 + max(x, 0))`: for lengths, prices and counts."""
    return np.log1p(np.maximum(x, 0.0))


def exp(x: Any) -> Any:
    """`e^x`, at most LIMIT."""
    return np.exp(np.minimum(x, 345.0))


def power(x: Any, exponent: Any) -> Any:
    """`max(x, FLOOR)^exponent`, at most LIMIT."""
    return np.minimum(np.power(np.maximum(x, FLOOR), exponent), LIMIT)


def times(x: Any, y: Any) -> Any:
    """`x · y` within ±LIMIT."""
    return bounded(x * y)


def divide(x: Any, y: Any) -> Any:
    """`x / max(y, FLOOR)` within ±LIMIT."""
    return bounded(x / np.maximum(y, FLOOR))


def bounded(x: Any) -> Any:
    """`x` within ±LIMIT."""
    return np.minimum(np.maximum(x, -LIMIT), LIMIT)


def sigmoid(x: Any) -> Any:
    """`1 / (1 + e^−x)`."""
    return expit(x)


def logit(p: Any) -> Any:
    """`ln(p / (1 − p))`, p clipped to [EDGE, 1 − EDGE]."""
    return scipy_logit(np.minimum(np.maximum(p, EDGE), 1 - EDGE))


def band(s: Any, negative: Any, total: Any, offset: Any) -> Any:
    """A weighted sum with negative weights, mapped so that negative sums stay in `[0, offset)`, below all others.

    `s < 0 → (s + negative) / total · offset`, else `s + offset`. `negative` is the sum of the negative weights' sizes
    (so that s ≥ −negative), `total` that of all weights' sizes.

    Source: `offset_score` of X's home-mixer `weighted_scorer.rs` (xai-org/x-algorithm, 2026).
    """
    low = (s + negative) / np.maximum(total, FLOOR) * offset
    return bounded(np.where(np.asarray(s) < 0, low, s + offset))


def rank_within(x: Rows, requests: Rows | None) -> Floats:
    """Rank `[N]` of each candidate in its request, 1 for the highest; ties share the mean of their ranks.

    The sources of ensemble sort do not say what ties get. The mean keeps a head that is constant in a request (an
    isotonic step) neutral, where "all tied are first" would lift every candidate it knows nothing about.
    """
    rows = len(x)
    if rows == 0:
        return np.zeros(0)
    order = np.argsort(-x) if requests is None else np.lexsort((-x, requests))
    ordered = x[order]
    changed = ordered[1:] != ordered[:-1]
    first = np.zeros(rows)  # position where each row's request begins
    if requests is not None:
        grouped = np.asarray(requests)[order]
        begins = grouped[1:] != grouped[:-1]
        changed |= begins
        first[1:] = np.where(begins, np.arange(1, rows), 0)
        first = np.maximum.accumulate(first)
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))
    lengths = np.diff(starts, append=rows)
    ranks = np.empty(rows)
    ranks[order] = np.repeat(starts + (lengths + 1) / 2, lengths) - first
    return ranks


@dataclass(frozen=True)
class Curve:
    """A non-decreasing piecewise-linear function: `quantile` and `learned` as they were fitted.

    Attributes:
        x: `[M]` strictly ascending arguments; left of the first and right of the last the curve is flat.
        y: `[M]` non-decreasing values in [0, 1].
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, x: Any) -> Any:
        """The curve at `x`."""
        return np.interp(x, self.x, self.y)


@dataclass(frozen=True)
class BucketCurves:
    """One curve per bucket of another column, for `quantile(watch, video_seconds)`.

    Attributes:
        edges: `[B − 1]` ascending; bucket b holds `edges[b−1] < value ≤ edges[b]`.
        curves: `[B]`.
    """

    edges: tuple[float, ...]
    curves: tuple[Curve, ...]

    def __call__(self, x: Any, by: Any) -> Any:
        """Each row on its own bucket's curve."""
        x, by = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(by, np.float64))
        bucket, out = np.searchsorted(self.edges, by), np.empty(x.shape)
        for index, curve in enumerate(self.curves):
            mine = bucket == index
            out[mine] = curve(x[mine])
        return out


def quantile_curve(x: Rows, knots: int = 257) -> Curve:
    """The empirical distribution function of `x` `[N ≥ 1]`, mid-distribution at ties, on at most `knots` points.

    Quantiles are evenly spaced in mass and thinned to distinct values; between the points it is linear.
    """
    values, counts = np.unique(np.asarray(x, np.float64), return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    if len(values) > knots:
        kept = np.unique(np.searchsorted(middle, np.linspace(middle[0], middle[-1], knots)).clip(0, len(values) - 1))
        values, middle = values[kept], middle[kept]
    return Curve(tuple(values.tolist()), tuple(middle.tolist()))


def bucket_quantiles(x: Rows, by: Rows, buckets: int = 10) -> BucketCurves:
    """`quantile_curve` of `x` within equal-mass buckets of `by`: what duration-bucketed watch-time labels do.

    Source: Zhan et al., Deconfounding Duration Bias in Watch-time Prediction (D2Q), KDD 2022, section 4.
    """
    by = np.asarray(by, np.float64)
    edges = np.unique(np.quantile(by, np.arange(1, buckets) / buckets, method="lower"))
    edges = edges[edges < by.max()]  # the last bucket must hold a row
    bucket = np.searchsorted(edges, by)
    curves = tuple(quantile_curve(np.asarray(x)[bucket == index]) for index in range(len(edges) + 1))
    return BucketCurves(tuple(edges.tolist()), curves)


def learned_curve(x: Rows, reward: Rows) -> Curve:
    """The isotonic regression of a reward on `x` `[N ≥ 1]`, scaled to [0, 1], as a curve through its steps' ends.

    Scaling changes no order. A reward that does not rise with `x` gives the constant 0.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(np.asarray(x, np.float64), np.asarray(reward, np.float64))
    knots, values = fitted.X_thresholds_, fitted.y_thresholds_
    low, high = values[0], values[-1]
    scaled = (values - low) / (high - low) if high > low else np.zeros(len(values))
    return Curve(tuple(knots.tolist()), tuple(np.clip(scaled, 0.0, 1.0).tolist()))
