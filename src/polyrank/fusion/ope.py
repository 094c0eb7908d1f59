"""Off-policy evaluation of one-step policies: what would another choice of fusion weights have earned? N rows.

Notation: r the reward, w = π(a | s) / μ(a | s) the importance weight (`polyrank.fusion.ratios`), q̂(s, a) a model of the
reward, logged = q̂(s, a) at the logged action, target = E_{a ~ π} q̂(s, a). q̂ must not be fitted on the row that it is
used on (cross-fit it), or the doubly robust estimators lose what they promise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

import numpy as np
from annotated_types import Gt

from polyrank.fusion.estimate import Terms
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class Limits:
    """How the estimators that trade bias for variance keep weights small.

    Attributes:
        clip: the largest weight of `clipped`.
        switch: the weight above which `switch` trusts the model alone.
        shrinkage: λ of `dr_os`: w becomes λw / (w² + λ); large: DR, small: DM.
    """

    clip: Annotated[float, Gt(0)] = 10.0
    switch: Annotated[float, Gt(0)] = 10.0
    shrinkage: Annotated[float, Gt(0)] = 100.0


@dataclass(frozen=True)
class Logged:
    """What the one-step estimators read; all `[N]`.

    Attributes:
        weights: w ≥ 0.
        rewards: r.
        logged: q̂(s, a) of the logged action.
        target: E_{a ~ π} q̂(s, a).
        limits: see there.
    """

    weights: Floats
    rewards: Floats
    logged: Floats
    target: Floats
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            ValueError: not all `[N]`, a value that is not finite, or a negative weight.
        """
        parts = {name: getattr(self, name) for name in ("weights", "rewards", "logged", "target")}
        for name, part in parts.items():
            if part.shape != self.rewards.shape or part.ndim != 1 or not np.isfinite(part).all():
                raise ValueError(f"{name} must be finite and [N] as rewards are, got the shape {part.shape}")
        if len(self.weights) and self.weights.min() < 0:
            raise ValueError("weights must not be negative")


def ips(data: Logged) -> Terms:
    """Inverse propensity scoring, V̂ = mean(w r): unbiased, as noisy as the largest weight (Horvitz & Thompson 1952)."""
    return _terms(data.weights, data.weights * data.rewards)


def clipped(data: Logged) -> Terms:
    """V̂ = mean(min(w, c) r): biased downwards for positive rewards, of bounded noise (Ionides 2008)."""
    weights = np.minimum(data.weights, data.limits.clip)
    return _terms(weights, weights * data.rewards, share=data.weights > data.limits.clip)


def snips(data: Logged) -> Terms:
    """V̂ = Σ w r / Σ w: a shift of all rewards shifts it as much (Swaminathan & Joachims 2015).

    With uniform logging over a grid of actions it is the mean reward of the rows where the target would have done the
    same: "Reward@HIT".
    """
    return _terms(data.weights, data.weights * data.rewards, normalised=True)


def dm(data: Logged) -> Terms:
    """The direct method, V̂ = mean(E_π q̂): as right as the model."""
    return Terms(data.target[:, None], np.ones((len(data.target), 1)))


def dr(data: Logged) -> Terms:
    """Doubly robust, V̂ = mean(E_π q̂ + w (r − q̂)): unbiased where w or q̂ is right (Dudík et al. 2014)."""
    return _robust(data, data.weights)


def sndr(data: Logged) -> Terms:
    """DR with its correction divided by Σ w instead of N."""
    return _robust(data, data.weights, normalised=True)


def switch(data: Logged) -> Terms:
    """DR where w ≤ τ; the model alone where it is larger (Wang, Agarwal, Dudík 2017)."""
    above = data.weights > data.limits.switch
    return _robust(data, np.where(above, 0.0, data.weights), share=above)


def dr_os(data: Logged) -> Terms:
    """DR with optimistic shrinkage, w ← λw / (w² + λ) (Su et al. 2020)."""
    limit = data.limits.shrinkage
    weights = limit * data.weights / (data.weights**2 + limit)
    return _robust(data, weights, share=data.weights > np.sqrt(limit))


def _terms(weights: Floats, above: Floats, *, normalised: bool = False, share: Rows | None = None) -> Terms:
    below = weights if normalised else np.ones(len(weights))
    lost = 0.0 if share is None or not len(share) else float(np.mean(share))
    return Terms(above[:, None], below[:, None], weights, lost)


def _robust(data: Logged, weights: Floats, *, normalised: bool = False, share: Rows | None = None) -> Terms:
    model, error = dm(data), _terms(weights, weights * (data.rewards - data.logged), normalised=normalised, share=share)
    above, below = np.hstack([model.above, error.above]), np.hstack([model.below, error.below])
    return Terms(above, below, weights, error.clipped)


ESTIMATORS: Mapping[str, Callable[[Logged], Terms]] = MappingProxyType(
    {
        "ips": ips,
        "clipped": clipped,
        "snips": snips,
        "dm": dm,
        "dr": dr,
        "sndr": sndr,
        "switch": switch,
        "dr_os": dr_os,
    }
)
