"""UnifiedRL: a free actor inside the box that the log is known to have explored, and a price outside it.

Liu et al., "An Off-Policy Reinforcement Learning Algorithm Customized for Multi-Task Fusion in Large-Scale Recommender
Systems" (IntegratedRL-MTF, UnifiedRL), Tencent, arXiv 2404.17589.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from polyrank.fusion.actors import ActorPolicy
from polyrank.fusion.learners.learning import ActorCriticConfig, Batch, Experience, learn, targets
from polyrank.fusion.learners.networks import Descent, Stack
from polyrank.fusion.policy import Box, Fitted, Policy
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress

_STEEP = 10.0  # the exponent from which the penalty goes on straight: float32 ends at exp(88)


@dataclass(frozen=True)
class UnifiedRLConfig(ActorCriticConfig):
    """The paper's.

    Has the fields of `ActorCriticConfig` too.

    Attributes:
        critics: m.
        eta: η, the weight of the penalty outside the box (the paper's α).
        beta: β: the penalty grows e-fold with each 2β half-widths outside.
        deviation: λ, the price of a standard deviation among the critics.
        every: steps between two moves of the slow copies.
        reach: how far weights may go, in half-widths of the box: the paper's ±1 about exploration of ±0.15.
    """

    gamma: Annotated[float, Ge(0)] = 0.9
    averaging: Annotated[float, Gt(0)] = 0.08
    critics: Annotated[int, Gt(1)] = 24
    eta: Annotated[float, Ge(0)] = 1.2
    beta: Annotated[float, Gt(0)] = 0.3
    deviation: Annotated[float, Ge(0)] = 0.2
    every: Annotated[int, Gt(0)] = 15
    reach: Annotated[float, Ge(1)] = 1 / 0.15


def penalty(actions: Tensor, centre: Tensor | float, half: Tensor | float, beta: float) -> Tensor:
    """D `[…, K]` → `[…, 1]`: Σ_k of 0 inside the box, exp(x_k) outside, x_k = (distance to the box)_k / (2 β half_k).

    It begins at 1: a weight just outside is not free. Beyond exp(10) it goes on as its tangent.
    """
    width = 2 * torch.as_tensor(half)
    beyond = ((actions - centre).abs() - half) / (beta * width.clamp_min(1e-6))
    grown = beyond.clamp(max=_STEEP).exp() * (1 + (beyond - _STEEP).clamp_min(0))
    return torch.where(beyond > 1e-6, grown, 0.0).sum(dim=-1, keepdim=True)


def fit(log: SessionLog, box: Box, config: UnifiedRLConfig, progress: Progress, around: Policy | None = None) -> Fitted:
    """Learn it from a log.

    The m critics learn, each with its own slow copy, Q_j(s, a) = r + γ (Q'_j(s', μ'(s')) − η d(μ'(s'))); the actor
    learns min −mean_j Q_j(s, μ(s)) + η d(μ(s)) + λ std_j Q_j(s, μ(s)), with rewards of deviation 1.

    Progressive rounds: explore around this policy (`BoundedUniform`), log, fit again on the new log with
    `around=this policy`; the box is then around its weights in each state, as wide as the log strayed from them.

    Departures: the paper has two groups of critics, for watch time and for other rewards; a session log has one reward.
    Its later version multiplies Q' by a factor φ(μ') ≤ 1 in place of subtracting, which rewards leaving the box where Q
    is negative. Whether a target is of its own critic or of all is not known. A later round starts from new networks.
    What is served is the slow μ', whose value it is that the critics learn.

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    data, generator = Experience(log, box), torch.Generator().manual_seed(config.seed)
    actor = Stack((data.width,), config.hidden, data.weights, generator)
    critics = Stack((data.width, data.weights), config.hidden, 1, generator, count=config.critics)
    slow_actor, slow_critics = actor.copy(), critics.copy()
    descend = Descent(config.learning_rate, config.steps, actor, critics)
    centres, half = _boxes(log, box, around)
    reach = config.reach

    def price(actions: Tensor, at: Tensor) -> Tensor:
        return config.eta * penalty(actions, centres[at] if len(centres) else 0.0, half, config.beta)

    def step(batch: Batch, number: int) -> None:
        with torch.no_grad():
            after = reach * torch.tanh(slow_actor(batch.following)[0])
            following = slow_critics(batch.following, after) - price(after, batch.after)
            target = targets(batch, config.gamma, following)
        error = (critics(batch.states, batch.actions) - target).square().mean(dim=1).sum()
        chosen = reach * torch.tanh(actor(batch.states)[0])
        spread, mean = torch.std_mean(critics.fixed(batch.states, chosen), dim=0)
        loss = config.deviation * spread.mean() - mean.mean() + price(chosen, batch.at).mean()
        descend(error + loss)
        if number % config.every == 0:
            slow_actor.follow(actor, config.averaging)
            slow_critics.follow(critics, config.averaging)

    def value(states: Tensor) -> Tensor:
        return critics(states, reach * torch.tanh(actor(states)[0])).mean(dim=0)

    curve = learn("unified_rl", data, config, generator, step, value, progress)
    return Fitted(ActorPolicy(data.standard, box, slow_actor.network(), reach), {"q": curve})


def _boxes(log: SessionLog, box: Box, around: Policy | None) -> tuple[Tensor, Tensor]:
    """Centres `[N, K]` (none where there is one box for all) and half-widths `[K]`, in half-widths of the box."""
    if around is None:
        return torch.empty(0), torch.ones(len(box.low))
    centres = box.normalised(around.act(log.states))
    half = np.abs(box.normalised(log.actions) - centres).max(axis=0)
    return torch.from_numpy(centres), torch.from_numpy(half)
