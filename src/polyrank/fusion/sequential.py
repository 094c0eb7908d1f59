"""Off-policy evaluation of whole sessions, of unequal lengths. S sessions, T the longest one's steps.

V(π) = E Σ_t γᵗ r_t. ρ_t = Π_{u ≤ t} π(a_u | s_u) / μ(a_u | s_u). A session that has ended stays in a state in which
every policy does the same and earns nothing: its ρ stays what it was, so that it goes on counting in the normalisers.
Without that, the late steps of long sessions would be compared with each other alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

import numpy as np
from annotated_types import Interval

from polyrank.fusion.estimate import Terms
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class Paths:
    """What the sequential estimators read.

    Attributes:
        ratios: `[S, T]` ρ.
        rewards: `[S, T]` γᵗ r_t, 0 after a session's end.
        logged: `[S, T]` γᵗ Q̂(s_t, a_t), 0 after the end.
        target: `[S, T]` γᵗ E_π Q̂(s_t, ·), 0 after the end.
    """

    ratios: Floats
    rewards: Floats
    logged: Floats
    target: Floats


def paths(
    log: SessionLog,
    target_log_density: Rows,
    gamma: Annotated[float, Interval(ge=0, le=1)],
    logged: Rows | None = None,
    target: Rows | None = None,
) -> Paths:
    """Lay a log out by session and step.

    Args:
        log: the log; its last steps should be `done`: what a session that was cut off earned later is missing.
        target_log_density: `[N]` log π(a | s) of the logged actions; −inf where the target would never do so.
        gamma: γ, 0.95 in BatchRL-MTF.
        logged: `[N]` Q̂(s, a), or None for 0.
        target: `[N]` E_π Q̂(s, ·), or None for 0.
    """
    steps = log.padded(np.asarray(target_log_density, np.float64) - log.log_densities)
    discounts = gamma ** np.arange(steps.shape[1])
    nothing = np.zeros(len(log.rewards))
    return Paths(
        np.exp(np.cumsum(steps, axis=1)),
        log.padded(log.rewards) * discounts,
        log.padded(nothing if logged is None else logged) * discounts,
        log.padded(nothing if target is None else target) * discounts,
    )


def pdis(data: Paths) -> Terms:
    """Per-decision importance sampling, V̂ = mean Σ_t ρ_t γᵗ r_t: unbiased (Precup, Sutton, Singh 2000)."""
    return _terms(data, data.ratios * data.rewards, np.ones(data.ratios.shape))


def wis(data: Paths) -> Terms:
    """Weighted importance sampling of whole sessions, V̂ = Σ ρ_T G / Σ ρ_T, G = Σ_t γᵗ r_t."""
    last = data.ratios[:, -1:]
    return _terms(data, last * data.rewards.sum(axis=1, keepdims=True), last)


def wpdis(data: Paths) -> Terms:
    """Per-decision WIS, V̂ = Σ_t Σ_i ρ_t γᵗ r_t / Σ_i ρ_t: biased, consistent, far less noisy."""
    return _terms(data, data.ratios * data.rewards, data.ratios)


def wdr(data: Paths) -> Terms:
    """Weighted doubly robust, V̂ = Σ_t Σ_i [v_t γᵗ(r_t − Q̂_t) + v_{t−1} γᵗ V̂_t], v_t = ρ_t / Σ_i ρ_t.

    v₋₁ = 1 / S (Thomas & Brunskill 2016, equation 8).
    """
    before = np.concatenate([np.ones((len(data.ratios), 1)), data.ratios[:, :-1]], axis=1)
    above = np.concatenate([data.ratios * (data.rewards - data.logged), before * data.target], axis=1)
    return _terms(data, above, np.concatenate([data.ratios, before], axis=1))


def _terms(data: Paths, above: Floats, below: Floats) -> Terms:
    return Terms(above, below, data.ratios[:, -1])


SEQUENTIAL: Mapping[str, Callable[[Paths], Terms]] = MappingProxyType(
    {"pdis": pdis, "wis": wis, "wpdis": wpdis, "wdr": wdr}
)
