"""Intervals by the bootstrap, over rows or over whole groups (users)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval; both ends are ``nan`` where no replicate gave a value."""

    low: float
    high: float


def group_weights(groups: Rows | None, n: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Row weights ``[n]`` of each bootstrap replicate: how often a row's group was drawn.

    Each replicate draws as many groups as there are, with replacement. Rows of one user are not independent, so users
    are resampled whole; a row without a group is drawn by itself.

    Args:
        groups: ``[n]`` group ids, ``NO_GROUP`` where a row has none; None resamples single rows.
        n: Number of rows.
        replicates: Number of replicates.
        seed: The same seed gives the same weights.

    Raises:
        ValueError: ``groups`` does not have ``n`` rows.

    Source: Efron & Tibshirani 1993; Field & Welsh 2007 for the cluster bootstrap.
    """
    generator = np.random.default_rng(seed)
    drawn, member = n, None
    if groups is not None:
        if np.shape(groups) != (n,):
            raise ValueError(f"groups must have the shape ({n},), got {np.shape(groups)}")
        distinct, member = np.unique(groups, return_inverse=True)
        others = np.flatnonzero(np.asarray(groups) == NO_GROUP)[1:]  # the first such row is already by itself
        member[others] = len(distinct) + np.arange(len(others))
        drawn = len(distinct) + len(others)
    for _ in range(replicates):
        times = np.bincount(generator.integers(0, max(drawn, 1), size=drawn), minlength=drawn).astype(np.float64)
        yield times if member is None else times[member]


def bootstrap_values(
    statistic: Callable[[Floats], Any], groups: Rows | None, n: int, *, replicates: int, seed: int
) -> Floats:
    """``statistic(row_weights)`` on every replicate of ``group_weights``, stacked into ``[replicates, ...]``.

    A statistic that returns an array gives several statistics on the same replicates, whose differences are paired.

    Raises:
        ValueError: ``replicates`` is below 1, or as in ``group_weights``.
    """
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    weights = group_weights(groups, n, replicates, seed)
    return np.stack([np.asarray(statistic(row_weights), dtype=np.float64) for row_weights in weights])


def bootstrap_interval(
    statistic: Callable[[Floats], float],
    groups: Rows | None,
    n: int,
    *,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a weighted statistic: the ``(1 ± level)/2`` quantiles of its replicates.

    Replicates on which the statistic is ``nan`` (a class was not drawn) are ignored. Arguments as in ``group_weights``.

    Raises:
        ValueError: ``level`` is not within (0, 1), or as in ``bootstrap_values``.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be within (0, 1), got {level}")
    values = bootstrap_values(statistic, groups, n, replicates=replicates, seed=seed)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
