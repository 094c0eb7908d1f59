"""A Gaussian policy that maximises what it is worth at least: a pessimistic self-normalised estimate.

N steps, S state numbers, K weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from scipy.special import ndtri
from torch import Tensor
from torch.special import log_ndtr

from polyrank.errors import TrainingDiverged
from polyrank.fusion.estimate import FEWEST
from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.learners.returns import known, returns_to_go
from polyrank.fusion.policy import Box, Fitted, Policy, Standard
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress

_LOOKS = 50


@dataclass(frozen=True, eq=False)
class GaussianPolicy(Policy):
    """`π(· | s) = N(b + C s̃, diag σ²)` in units of half the box, cut off at the box; `act` gives its mode.

    Attributes:
        mode: the mean, which the cut moves to the box's side where it lies outside.
        sigma: `[K]`, in half-widths of the box.
    """

    kind = "gaussian"
    mode: LinearPolicy
    sigma: Rows

    def act(self, states: Rows) -> Rows:
        """See `Policy`."""
        return self.mode.act(states)

    def log_density(self, states: Rows, actions: Rows) -> Floats:
        """`[N]` log π(a | s) of the stochastic policy, per unit of the weights; −inf outside the box."""
        box = self.mode.box
        mean, sigma = torch.from_numpy(self.mode.normalised(states)), torch.from_numpy(self.sigma)
        free = torch.from_numpy(box.half > 0)
        normalised = torch.from_numpy(box.normalised(actions))
        found = log_density(mean[:, free], sigma[free], normalised[:, free]).double().numpy() - _volume(box)
        return np.where(box.outside(actions), -np.inf, found)

    def arrays(self) -> Mapping[str, Rows]:
        """See `Policy`."""
        return {**self.mode.arrays(), "sigma": self.sigma}

    def document(self) -> dict[str, Any]:
        """See `Policy`."""
        return self.mode.document()

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """See `Policy`."""
        return cls(LinearPolicy.restore(document, arrays), arrays["sigma"])


@dataclass(frozen=True)
class GaussianConfig:
    """How it is learned.

    Attributes:
        gamma: 0: the reward of a step is what counts. Above 0: what the rest of its session brings, discounted, if the
            log's policy goes on.
        confidence: of the lower bound, one-sided; 0.5: the estimate itself, without pessimism.
        sigma: σ to begin with, in half-widths of the box.
        narrowest: the least σ; a policy that may become a point has no value that a log can tell. Of uniform
            exploration of K weights about a share (√π σ)^K is effective.
        learning_rate: Adam's.
        batch_size: steps of the log a training step; the estimate is a ratio of sums, biased in small batches.
        steps: training steps.
        seed: of the batches.
    """

    gamma: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    confidence: Annotated[float, Interval(ge=0.5, lt=1)] = 0.95
    sigma: Annotated[float, Gt(0)] = 0.6
    narrowest: Annotated[float, Gt(0)] = 0.3
    learning_rate: Annotated[float, Gt(0)] = 0.02
    batch_size: Annotated[int, Gt(0)] = 65_536
    steps: Annotated[int, Gt(0)] = 400
    seed: Annotated[int, Ge(0)] = 0


def fit(log: SessionLog, box: Box, config: GaussianConfig, progress: Progress) -> Fitted:
    """Maximise `V̂ − t · se(V̂)` over b, C and σ by gradient ascent; V̂ = Σ w y / Σ w, w = π(a | s) / μ(a | s) exactly.

    `se² = max(Σ w² (y − V̂)² / (Σ w)², s² / n)`, for as many independent rows as the log has sessions (steps of one
    session are not independent): the variance of a ratio to first order, but not below that of a mean of n rows of the
    log's variance s², with n = (Σ w)² / Σ w² the effective sample size of the policy. t is Student's quantile at n − 1
    degrees of freedom.

    Jeunen et al. show that lower bounds from a normal approximation cover too rarely, the more so the further a policy
    is from the log's, and correct them by a term that depends on the policy. How they do so could not be read; n, which
    falls as the weights grow uneven, stands in for it here, in the floor and in t. Without the floor a policy that sits
    on its one best row has no error: V̂ is that row's y. Other departures: π is cut off at the box, so that it puts no
    mass where μ has none (a plain Gaussian's weights would not average 1); its mean is linear in the state.

    Curves: "value" V̂ and "bound", in units of the reward; "effective": n. All of the batch, n as of the whole log.

    Source: Jeunen et al., Multi-Objective Recommendation via Multivariate Policy Learning, RecSys 2024 (arXiv
    2405.02141), by its abstract.

    Raises:
        DataError: γ > 0, and every session was cut off.
        TrainingDiverged: the bound is not finite, or n is below 200: the policy has left what the log shows.
    """
    standard, rows = Standard.of(log), known(log, config.gamma)
    y = returns_to_go(log, log.rewards, config.gamma)
    mean, spread = y[rows].mean(), max(float(y[rows].std()), 1e-12)
    states, actions = torch.from_numpy(standard(log.states)), torch.from_numpy(box.normalised(log.actions))
    wanted = torch.from_numpy((y - mean) / spread).float()
    behavior = torch.from_numpy(log.log_densities + _volume(box)).float()
    free = torch.from_numpy(box.half > 0)  # a weight that never varied has no density
    weights, numbers = actions.shape[1], states.shape[1]
    bias = torch.zeros(weights, requires_grad=True)
    slopes = torch.zeros(weights, numbers, requires_grad=True)
    spare = torch.full((weights,), math.log(math.expm1(max(config.sigma - config.narrowest, 1e-3))), requires_grad=True)
    optimizer = torch.optim.Adam([bias, slopes, spare], lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    among, size = torch.from_numpy(rows), min(config.batch_size, len(rows))
    quantile = float(ndtri(config.confidence))
    independent = float(log.done[log.starts[1:] - 1].sum() if config.gamma else len(log.sessions))
    curves: dict[str, list[tuple[int, float]]] = {"value": [], "bound": [], "effective": []}
    every = max(1, config.steps // _LOOKS)
    with progress.bar("the Gaussian policy's lower bound", config.steps, unit="steps") as bar:
        for step in range(1, config.steps + 1):
            at = among[torch.randint(len(among), (size,), generator=generator)] if size < len(rows) else among
            sigma = config.narrowest + torch.nn.functional.softplus(spare)
            density = log_density((states[at] @ slopes.T + bias)[:, free], sigma[free], actions[at][:, free])
            value, bound, effective = lower_bound(density - behavior[at], wanted[at], quantile, independent)
            optimizer.zero_grad()
            (-bound).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % every == 0 or step == config.steps:
                n, low = effective.item() * len(rows) / independent, bound.item()
                for name, found in (("value", value.item()), ("bound", low)):
                    curves[name].append((step, found * spread + mean))
                curves["effective"].append((step, n))
                bar.advance(step - (curves["value"][-2][0] if len(curves["value"]) > 1 else 0))
                if not (math.isfinite(low) and (n >= FEWEST or len(rows) < 4 * FEWEST)):
                    raise TrainingDiverged(
                        f"a policy needs an effective sample size of {FEWEST} in the log that judges it",
                        received=f"{n:,.1f} of {len(rows):,} steps, bound {low:.3g}, after {step:,}",
                        mend="a larger narrowest or confidence, or a lower learning_rate",
                    )
    with torch.no_grad():
        final = (config.narrowest + torch.nn.functional.softplus(spare)).numpy()
    mode = LinearPolicy(standard, box, bias.detach().numpy(), slopes.detach().numpy())
    return Fitted(GaussianPolicy(mode, final), curves)


def lower_bound(log_weights: Tensor, y: Tensor, quantile: float, rows: float) -> tuple[Tensor, Tensor, Tensor]:
    """V̂, its lower bound, and the effective sample size, were there `rows` rows like these.

    Student's quantile is expanded, t ≈ z + (z³ + z) / 4ν, so that it has a gradient; ν = n − 1, at least 1.

    Args:
        log_weights: `[B]` log w.
        y: `[B]`.
        quantile: z of the normal.
        rows: how many independent rows the bound is for.
    """
    share = torch.softmax(log_weights, dim=0)  # w / Σ w
    value = (share * y).sum()
    spread = torch.maximum((share.square() * (y - value).square()).sum(), share.square().sum() * y.var(correction=0))
    error = spread * (len(y) / rows)
    effective = rows / (len(y) * share.square().sum())
    t = quantile + (quantile**3 + quantile) / (4 * (effective - 1).clamp_min(1.0))
    return value, value - t * (error + 1e-20).sqrt(), effective


def log_density(mean: Tensor, sigma: Tensor, actions: Tensor) -> Tensor:
    """`[N]` log-density of N(mean, σ²) cut off at [−1, 1]^K, at `[N, K]` inside of it."""
    standardised = (actions - mean) / sigma
    gaussian = -0.5 * standardised.square() - sigma.log() - 0.5 * math.log(2 * math.pi)
    # the mass between both sides, from the tail further from the mean: exact to float32 wherever the mean is
    far, near = log_ndtr((-1 - mean.abs()) / sigma), log_ndtr((1 - mean.abs()) / sigma)
    density: Tensor = gaussian - near - torch.log1p(-torch.exp(far - near))
    return density.sum(dim=1)


def _volume(box: Box) -> float:
    """Log of Π half: what a density gains by normalising actions."""
    return float(np.log(np.where(box.half > 0, box.half, 1)).sum())
