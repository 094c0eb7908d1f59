"""What a log shows of a deterministic policy: the same actions on a grid, or like ones within a kernel.

N steps, K fusion weights.
"""

import math
from dataclasses import dataclass

import numpy as np

from polyrank.fusion.ratios import kernel_ratio
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows

_MOST = 1_000  # distinct actions of a log that counts as a grid
_EACH = 20  # and how often each must occur on average
_LIKE = 0.1  # how near log-volume and log-density must be for the box to be the one that was drawn from


@dataclass(frozen=True)
class Shown:
    """How the log chose its actions, as far as they tell.

    Attributes:
        grid: actions are from a set of few, so that `behavior_log_density` is a log-probability.
        box: `(low, high)`, each `[K]`, where actions were drawn uniformly from one box; None otherwise.
        spread: `[K]` standard deviation of the logged actions: the unit of bandwidths.
    """

    grid: bool
    box: tuple[Rows, Rows] | None
    spread: Floats


def shown(log: SessionLog) -> Shown:
    """Read off the log how its actions were chosen.

    A box is recognised by densities that are all alike and equal to 1 / volume of the range of the actions. Where the
    box moves with the state, densities are alike too but the range is larger: then no boundary is corrected.
    """
    low, high = log.actions.min(axis=0).astype(np.float64), log.actions.max(axis=0).astype(np.float64)
    spread = np.maximum(log.actions.std(axis=0, dtype=np.float64), 1e-9)
    distinct = len(np.unique(log.actions[: _MOST * _EACH * 2], axis=0))
    if distinct <= _MOST and distinct * _EACH <= len(log.actions):
        return Shown(True, None, spread)
    densities = log.log_densities
    volume = float(np.log(np.maximum(high - low, 1e-300)).sum())
    confined = np.ptp(densities) < 1e-6 and abs(float(densities[0]) + volume) < _LIKE
    return Shown(False, (low, high) if confined else None, spread)


def target_log_density(log: SessionLog, targets: Rows, how: Shown, scale: float) -> Floats:
    """`[N]` what stands for log π(a | s) of the logged actions, π(s) being one action.

    On a grid: 0 where the log did what the policy would do, else −∞. Otherwise log Π_k K((π_k − a_k) / h_k) / h_k with
    h = scale · spread: the policy is judged as if it added Gaussian noise of that size, the price of any answer.

    Args:
        log: the log.
        targets: `[N, K]` π(s).
        how: see `shown`.
        scale: the bandwidth in units of the logged actions' spread; not read on a grid.

    Raises:
        ValueError: a target lies so far outside the log's box that no logged action can be like it.
    """
    if how.grid:
        step = 1e-4 * how.spread.astype(np.float32)
        same = (np.abs(targets - log.actions) <= step).all(axis=1)
        return np.where(same, 0.0, -math.inf)
    weights = kernel_ratio(targets, log.actions, log.log_densities, scale * how.spread, box=how.box)
    with np.errstate(divide="ignore"):
        return np.log(weights) + log.log_densities
