"""Exploration: fusion weights drawn at random around a policy, each with the exact density that it was drawn with.

N states of S numbers, K fusion weights. What a log can teach is what was explored in it, and what off-policy evaluation
divides by is the density written beside each action. So densities are those of the weights as they are kept: float32.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from polyrank.fusion.policy import Box, Policy, StaticPolicy
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn for N requests.

    Attributes:
        weights: `[N, K]` float32.
        log_densities: `[N]` float64: ln μ(weights | state).
        box: where all weights lie that may be drawn; None where there is no such box, or it moves with the state.
    """

    weights: Rows
    log_densities: Floats
    box: Box | None


class Explorer(ABC):
    """A stochastic policy of known density."""

    @property
    def box(self) -> Box | None:
        """See `Drawn`."""
        return None

    @abstractmethod
    def sample(self, states: Rows, rng: np.random.Generator) -> Rows:
        """`[N, S]` states → `[N, K]` float32 weights."""

    @abstractmethod
    def log_density(self, states: Rows, weights: Rows) -> Floats:
        """`[N]` ln μ(weights | state), −inf where they are never drawn."""

    def draw(self, states: Rows, rng: np.random.Generator) -> Drawn:
        """Weights for each state, and how dense they were."""
        weights = self.sample(states, rng)
        return Drawn(weights, self.log_density(states, weights), self.box)


@dataclass(frozen=True, eq=False)
class BoundedUniform(Explorer):
    """w ~ U(π(s) − u, π(s) + u), so that ln μ = −Σ_k ln 2u_k: all that is explored lies in a box that is known.

    Source: UnifiedRL (Tencent, arXiv 2404.17589), which takes u = 0.15 of actions normalised to [−1, 1].

    Attributes:
        centre: π, the policy around which is explored.
        half: `[K]` or one for all, u > 0: half of the box's width.

    Raises:
        ValueError: a half is not above 0.
    """

    centre: Policy
    half: Rows | float

    def __post_init__(self) -> None:
        _check_positive("half of the box's width", self.half)

    @property
    def box(self) -> Box | None:
        """π ± u; None where π moves with the state."""
        if not isinstance(self.centre, StaticPolicy):
            return None
        low, high = self._sides(np.zeros((1, 1), np.float32))
        return Box(low[0], high[0])

    def _sides(self, states: Rows) -> tuple[Rows, Rows]:
        centre, half = self.centre.act(states), np.asarray(self.half, np.float32)
        return centre - half, centre + half

    def sample(self, states: Rows, rng: np.random.Generator) -> Rows:
        """See `Explorer`."""
        low, high = self._sides(states)
        drawn = low + rng.random(low.shape, np.float32) * (high - low)
        return np.asarray(np.clip(drawn, low, high))  # rounding may step over the edge

    def log_density(self, states: Rows, weights: Rows) -> Floats:
        """See `Explorer`."""
        low, high = self._sides(states)
        inside = ((weights >= low) & (weights <= high)).all(axis=1)
        widths = np.broadcast_to(2 * np.asarray(self.half, np.float64), low.shape[1:])
        return np.where(inside, -np.log(widths).sum(), -np.inf)


@dataclass(frozen=True, eq=False)
class Gaussian(Explorer):
    """w ~ N(π(s), diag σ²): any weights may come, far ones seldom.

    Attributes:
        centre: π.
        sigma: `[K]` or one for all, σ > 0.

    Raises:
        ValueError: a σ is not above 0.
    """

    centre: Policy
    sigma: Rows | float

    def __post_init__(self) -> None:
        _check_positive("sigma", self.sigma)

    def sample(self, states: Rows, rng: np.random.Generator) -> Rows:
        """See `Explorer`."""
        centre = self.centre.act(states)
        noise = rng.standard_normal(centre.shape, np.float32)
        return np.asarray(centre + noise * np.asarray(self.sigma, np.float32), np.float32)

    def log_density(self, states: Rows, weights: Rows) -> Floats:
        """See `Explorer`."""
        centre = self.centre.act(states).astype(np.float64)
        sigma = np.broadcast_to(np.asarray(self.sigma, np.float64), centre.shape[1:])
        far = np.square((weights.astype(np.float64) - centre) / sigma).sum(axis=1)
        return np.asarray(-0.5 * far - np.log(sigma).sum() - 0.5 * len(sigma) * math.log(2 * math.pi))


@dataclass(frozen=True, eq=False)
class Mixed(Explorer):
    """μ = Σ_i c_i μ_i: each request is explored by one of several explorers, and its density is that of the mixture.

    Attributes:
        parts: the explorers μ_i.
        shares: c_i > 0, in sum 1.

    Raises:
        ValueError: shares and parts do not fit.
    """

    parts: tuple[Explorer, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_positive("a share", self.shares)
        if len(self.shares) != len(self.parts) or not math.isclose(sum(self.shares), 1):
            raise ValueError(f"shares must be one for each of the {len(self.parts)} parts, in sum 1, got {self.shares}")

    @property
    def box(self) -> Box | None:
        """What holds the boxes of all parts."""
        boxes = [box for part in self.parts if (box := part.box) is not None]
        if len(boxes) < len(self.parts):
            return None
        return Box(np.min([box.low for box in boxes], axis=0), np.max([box.high for box in boxes], axis=0))

    def sample(self, states: Rows, rng: np.random.Generator) -> Rows:
        """See `Explorer`."""
        of = rng.choice(len(self.parts), size=len(states), p=self.shares)
        drawn = np.stack([part.sample(states, rng) for part in self.parts])
        return np.asarray(drawn[of, np.arange(len(states))])

    def log_density(self, states: Rows, weights: Rows) -> Floats:
        """See `Explorer`."""
        parts = np.stack([part.log_density(states, weights) for part in self.parts])
        return np.asarray(logsumexp(parts, axis=0, b=np.array(self.shares)[:, None]))


def half_and_half(policy: Policy, start: Policy, wide: Rows | float, near: Rows | float = 0.1) -> Mixed:
    """BatchRL-MTF's exploration: half of the requests N(start, wide²), half N(policy, near²).

    The paper (Zhang et al., KDD 2022) writes N(0, 0.1) for the second half and does not say whether 0.1 is the variance
    or the standard deviation, nor how wide the first half is: 0.1 is taken as the standard deviation.

    Args:
        policy: what is served now.
        start: the middle of the random half.
        wide: its σ.
        near: σ around the policy.
    """
    return Mixed((Gaussian(start, wide), Gaussian(policy, near)), (0.5, 0.5))


def _check_positive(what: str, values: Rows | float | tuple[float, ...]) -> None:
    if not (np.isfinite(values).all() and (np.asarray(values) > 0).all()):
        raise ValueError(f"{what} must be above 0 and finite, got {values}")
