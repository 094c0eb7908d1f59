"""Control experiments on a learned policy: where it acts, for whom, and whether its Q believed what nobody earned.

N steps, S sessions, K fusion weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyrank.config import nearest
from polyrank.errors import ConfigError
from polyrank.evaluation.cohorts import buckets
from polyrank.fusion.policy import Box
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows

_END = 0.01  # of the width: so near an end of the box a weight counts as being at it
_BINS = 40


def whereabouts(actions: Rows, log: SessionLog, box: Box, heads: Sequence[str] = ()) -> dict[str, Any]:
    """Where a policy acts, and where the log did.

    Args:
        actions: `[N, K]` the policy's in the states of the log.
        log: the log.
        box: what was explored.
        heads: the names of the weights.

    Returns:
        JSON-ready: `outside`, the box-exit rate: the share of states in which a weight leaves the box; `ends`, the
        share of weights that stand at an end of it; and for each weight its `name`, `low`, `high` and `mean`, and
        the densities of `policy` and `log` between the `edges`.
    """
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    slack = _END * (high - low)
    ends = (np.abs(actions - low) <= slack) | (np.abs(actions - high) <= slack)
    weights = []
    for k in range(actions.shape[1]):
        mine, its = actions[:, k].astype(np.float64), log.actions[:, k].astype(np.float64)
        edges = _edges(min(low[k], mine.min(), its.min()), max(high[k], mine.max(), its.max()))
        densities = {
            who: (np.histogram(of, edges)[0] / len(of) / np.diff(edges)).tolist()
            for who, of in (("policy", mine), ("log", its))
        }
        name = heads[k] if k < len(heads) else f"weight {k}"
        entry = {
            "name": name,
            "low": float(low[k]),
            "high": float(high[k]),
            "mean": float(mine.mean()),
            "edges": edges.tolist(),
        }
        weights.append(entry | densities)
    return {"outside": float(box.outside(actions).mean()), "ends": float(ends.mean()), "weights": weights}


def cohort(log: SessionLog, name: str, count: int = 4) -> Rows:
    """`[S]` the cohort of each session, as text: equal parts by what was known when it began.

    Args:
        log: the log.
        name: `state:3`, a number of the state (counted from 0) at the first step; or `signal:NAME`, a signal of the
            first step, which should be a fact about the user: one that answers the first action is an outcome, and
            cohorts of outcomes say nothing about a policy.
        count: how many parts; a number with no more than so many values is one part a value.

    Raises:
        ConfigError: there is no such state number or signal.
    """
    kind, _, which = name.partition(":")
    first = log.starts[:-1]
    if kind == "state" and which.isdecimal() and int(which) < log.states.shape[1]:
        values = log.states[first, int(which)]
    elif kind == "signal" and which in log.signals:
        values = log.signals[which][first]
    else:
        known = [f"signal:{signal}" for signal in log.signals]
        raise ConfigError(
            f"a cohort must be state:0 to state:{log.states.shape[1] - 1}, or a signal of the log",
            received=name,
            mend=nearest(name, [*known, *(f"state:{i}" for i in range(log.states.shape[1]))]),
        )
    distinct = np.unique(values)
    if len(distinct) <= count:
        return np.array([f"{value:.6g}" for value in values])
    return buckets(values, count)


def believed(curve: Sequence[Sequence[float]], log: SessionLog, gamma: float) -> dict[str, float | None]:
    """What a learner's Q promised at last, beside what sessions of the log earned: the sign of divergence.

    Args:
        curve: (training step, mean Q(s₀, π(s₀))).
        log: the log it learned from.
        gamma: its γ.

    Returns:
        `last`; `mean` and `highest` (its 99 % quantile) of the discounted returns of the log's sessions.
    """
    earned = returns(log, gamma)
    last = float(curve[-1][1]) if len(curve) else None
    return {"last": last, "mean": float(earned.mean()), "highest": float(np.quantile(earned, 0.99))}


def returns(log: SessionLog, gamma: float) -> Floats:
    """`[S]` Σ_t γᵗ r_t of each session."""
    discounts = gamma ** (np.arange(len(log.rewards)) - log.starts[:-1][log.owners])
    found: Floats = np.bincount(log.owners, log.rewards * discounts, len(log.sessions)).astype(np.float64)
    return found


def _edges(low: float, high: float) -> Floats:
    spare = max(high - low, 1e-6) * 0.02
    return np.linspace(low - spare, high + spare, _BINS + 1)
