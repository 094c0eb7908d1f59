"""From what an off-policy estimator sums to its value, interval and support. N rows or sessions, C ratios."""

import math
from dataclasses import dataclass

import numpy as np

from polyrank.metrics.bootstrap import Interval, bootstrap_values
from polyrank.metrics.checks import Floats, Rows

FEWEST = 200  # effective rows below which no importance-weighted estimate is given
LEAST_SHARE = 0.01  # and this share of all rows


@dataclass(frozen=True)
class Terms:
    """V̂ = Σ_c Σ_i above[i, c] / Σ_i below[i, c]: a sum of ratios, the form of every estimator here.

    Attributes:
        above: `[N, C]` what a model says of the target policy, importance-weighted rewards, or errors of the model.
        below: `[N, C]` 1 for a mean; the weights themselves where an estimator normalises by them.
        weights: `[N]` the importance weights used; None for an estimator that uses none.
        clipped: the share of rows whose weight was made smaller.
    """

    above: Floats
    below: Floats
    weights: Floats | None = None
    clipped: float = 0.0

    def value(self, times: Floats | None = None) -> float:
        """V̂, with each row counted `times[i]` times; nan where a normaliser sums to 0."""
        above, below = (part.sum(axis=0) if times is None else times @ part for part in (self.above, self.below))
        with np.errstate(invalid="ignore", divide="ignore"):
            return float((above / below).sum())

    def error(self, clusters: Rows | None = None) -> float:
        """Standard error of V̂ by the delta method, Σ over rows (or clusters) of their influence squared; quick."""
        totals = self.below.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            influence = ((self.above - self.below * (self.above.sum(axis=0) / totals)) / totals).sum(axis=1)
        if clusters is not None:
            influence = np.bincount(np.unique(clusters, return_inverse=True)[1], influence)
        return float(np.sqrt((influence**2).sum()))

    def select(self, rows: Rows) -> "Terms":
        """These rows alone: of a cohort."""
        weights = None if self.weights is None else self.weights[rows]
        return Terms(self.above[rows], self.below[rows], weights, self.clipped)

    def summed(self, clusters: Rows) -> "Terms":
        """The rows of each cluster (user) summed: what a bootstrap over clusters draws."""
        member = np.unique(clusters, return_inverse=True)[1]
        above, below = (np.zeros((int(member.max()) + 1, self.above.shape[1])) for _ in range(2))
        np.add.at(above, member, self.above)
        np.add.at(below, member, self.below)
        return Terms(above, below)


@dataclass(frozen=True)
class Support:
    """How much of a log an estimate rests on.

    Attributes:
        effective: (Σw)² / Σw², the effective sample size; nan for an estimator without weights.
        largest: max w / Σw, the share of the largest weight.
        refusal: why that is too little; empty where it is enough.
    """

    effective: float = math.nan
    largest: float = math.nan
    refusal: str = ""


@dataclass(frozen=True)
class Estimate:
    """An off-policy value, or why there is none.

    Attributes:
        value: V̂; nan where it is not supported.
        interval: bootstrap over clusters; nan where it is not supported.
        effective: (Σw)² / Σw², the effective sample size; nan for an estimator without weights.
        largest: max w / Σw, the share of the largest weight.
        clipped: the share of rows whose weight was made smaller.
        refusal: why there is no value; empty where there is one.
    """

    value: float
    interval: Interval
    effective: float = math.nan
    largest: float = math.nan
    clipped: float = 0.0
    refusal: str = ""

    @property
    def supported(self) -> bool:
        """Whether there is a value."""
        return not self.refusal


def effective_size(weights: Floats) -> float:
    """(Σw)² / Σw² (Kish 1965); 0 where all weights are 0."""
    largest = weights.max(initial=0.0)
    scaled = weights / largest if 0 < largest < math.inf else np.zeros(1)
    return float(scaled.sum() ** 2 / max((scaled**2).sum(), 1e-300))


def support(terms: Terms) -> Support:
    """How many rows an importance-weighted estimate rests on; refused below max(200, 1 % of N) effective ones."""
    if terms.weights is None:
        return Support()
    total = terms.weights.sum()
    effective, largest = effective_size(terms.weights), float(terms.weights.max() / total) if total > 0 else 1.0
    needed = max(FEWEST, LEAST_SHARE * len(terms.weights))
    if effective >= needed:
        return Support(effective, largest)
    refusal = (
        f"the effective sample size is {effective:,.1f} of {len(terms.weights):,}, and {needed:,.0f} are "
        f"needed: the target policy does what the log hardly shows (the largest weight is {largest:.1%} of all)"
    )
    return Support(effective, largest, refusal)


def estimate(
    terms: Terms, clusters: Rows | None = None, *, replicates: int = 1000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """The value with its interval, or a refusal.

    The interval is the percentile interval of a bootstrap that draws clusters (users) with replacement and forms the
    ratios anew in each replicate, so that the noise of a normaliser counts.

    An importance-weighted estimate is refused when its effective sample size is below max(200, 1 % of N): a few rows
    would then speak for all, and their interval would be as wrong as their mean.

    Args:
        terms: of an estimator.
        clusters: `[N]` the user of each row; None: rows are independent.
        replicates: of the bootstrap.
        level: coverage of the interval.
        seed: of the bootstrap.
    """
    rests = support(terms)
    if rests.refusal:
        nothing = Interval(math.nan, math.nan)
        return Estimate(math.nan, nothing, rests.effective, rests.largest, terms.clipped, rests.refusal)
    drawn = terms if clusters is None else terms.summed(clusters)
    values = bootstrap_values(drawn.value, None, len(drawn.above), replicates=replicates, seed=seed)
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(terms.value(), Interval(float(low), float(high)), rests.effective, rests.largest, terms.clipped)


def empirical_bernstein(values: Floats, low: float, high: float, level: float = 0.95) -> Interval:
    """An interval for a mean of independent values in [low, high] that holds at any sample size.

    |mean − μ| ≤ √(2 V ln(3/δ) / n) + 3 (high − low) ln(3/δ) / n with probability 1 − δ, V the variance with 1/n
    (Audibert, Munos, Szepesvári 2009, theorem 1). Wide, and honest where a bootstrap of few large weights is not.

    Args:
        values: `[n]`, for importance weighting: weight · reward of one user each.
        low: the least value possible.
        high: the largest.
        level: 1 − δ.

    Raises:
        ValueError: no value, or one outside the bounds.
    """  # fmt: skip
    if not len(values) or values.min() < low or values.max() > high:
        raise ValueError(f"values must lie in [{low}, {high}] and be there")
    log = math.log(3 / (1 - level))
    width = math.sqrt(2 * float(values.var()) * log / len(values)) + 3 * (high - low) * log / len(values)
    mean = float(values.mean())
    return Interval(max(low, mean - width), min(high, mean + width))
