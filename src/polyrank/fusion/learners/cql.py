"""CQL: soft actor-critic whose Q is pressed down where the log shows nothing.

Kumar, Zhou, Tucker, Levine, "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2020; on SAC:
Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from polyrank.fusion.actors import ActorPolicy
from polyrank.fusion.learners.learning import ActorCriticConfig, Batch, Experience, learn, targets
from polyrank.fusion.learners.networks import Descent, Stack
from polyrank.fusion.policy import Box, Fitted
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress


@dataclass(frozen=True)
class CQLConfig(ActorCriticConfig):
    """The authors' code: α fixed, no entropy in the targets.

    Has the fields of `ActorCriticConfig` too.

    Attributes:
        conservative: α, with rewards of deviation 1. 0 is SAC.
        samples: n actions each from the uniform distribution, from π(s) and from π(s'), for the log-sum-exp.
    """

    conservative: Annotated[float, Ge(0)] = 5.0
    samples: Annotated[int, Gt(0)] = 10


class _Learner:
    """Actor, critics, temperature, and their step."""

    def __init__(self, data: Experience, config: CQLConfig) -> None:
        self.config, self.generator = config, torch.Generator().manual_seed(config.seed)
        self.weights = data.weights
        self.actor = Stack((data.width,), config.hidden, 2 * data.weights, self.generator)
        self.critics = Stack((data.width, data.weights), config.hidden, 1, self.generator, count=2)
        self.slow = self.critics.copy()
        self.log_temperature = torch.zeros((), requires_grad=True)
        self.descend = Descent(config.learning_rate, config.steps, self.actor, self.critics, self.log_temperature)

    def step(self, batch: Batch, number: int) -> None:
        """Critics, actor and temperature learn from the same batch, each with its own loss."""
        states, temperature = batch.states, self.log_temperature.exp()
        with torch.no_grad():
            after = torch.tanh(self.actor(batch.following)[0].chunk(2, dim=-1)[0])
            target = targets(batch, self.config.gamma, self.slow(batch.following, after).amin(dim=0))
        logged = self.critics(states, batch.actions)
        error = (logged - target).square().mean(dim=1).sum()
        if self.config.conservative:
            error = error + self.config.conservative * (self.soft_maximum(batch) - logged.mean(dim=1).sum())
        chosen, log_density = self.draw(states)
        gain = self.critics.fixed(states, chosen).amin(dim=0).mean() - temperature.detach() * log_density.mean()
        # The temperature holds the actor's entropy at −K.
        spare = -temperature * (log_density.detach().mean() - self.weights)
        self.descend(error - gain + spare)
        self.slow.follow(self.critics, self.config.averaging)

    def draw(self, states: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Actions `[…, K]` a = tanh(μ + σ ε) and log π(a | s) `[…, 1]`; n of each state: `[B, n, …]`."""
        mean, log_deviation = self.actor(states)[0].chunk(2, dim=-1)
        log_deviation = log_deviation.clamp(-20, 2)
        if samples is not None:
            mean, log_deviation = mean[:, None], log_deviation[:, None]
        shape = mean.shape if samples is None else (len(states), samples, self.weights)
        noise = torch.randn(shape, generator=self.generator)
        raw = torch.addcmul(mean, log_deviation.exp(), noise)
        # log(1 − tanh² x) = 2 (log 2 − x − softplus(−2x)), which does not round to log 0
        squash = 2 * (math.log(2) - raw - torch.nn.functional.softplus(-2 * raw))
        each = -0.5 * noise.square() - log_deviation - 0.5 * math.log(2 * math.pi) - squash
        return torch.tanh(raw), each.sum(dim=-1, keepdim=True)

    def soft_maximum(self, batch: Batch) -> Tensor:
        """Σ_j mean_s log Σ_a exp(Q_j(s, a) − log-density of a)."""
        size, samples = len(batch.states), self.config.samples
        with torch.no_grad():
            anything = torch.rand((size, samples, self.weights), generator=self.generator).mul_(2).sub_(1)
            drawn = [self.draw(states, samples) for states in (batch.states, batch.following)]
            actions = torch.cat([anything, *(a for a, _ in drawn)], dim=1)
            uniform = torch.full((size, samples, 1), -self.weights * math.log(2))
            densities = torch.cat([uniform, *(d for _, d in drawn)], dim=1)
        values = self.critics(batch.states[:, None], actions) - densities
        return torch.logsumexp(values, dim=2).mean(dim=1).sum()

    def value(self, states: Tensor) -> Tensor:
        """min_j Q_j(s, tanh μ(s))."""
        return self.critics(states, torch.tanh(self.actor(states)[0].chunk(2, dim=-1)[0])).amin(dim=0)


def fit(log: SessionLog, box: Box, config: CQLConfig, progress: Progress) -> Fitted:
    """Learn it from a log.

    Q_j learns y = r + γ min_j Q'_j(s', tanh μ(s')) with the penalty α (log Σ_a exp Q_j(s, a) − Q_j(s, a_log)), the sum
    over n uniform actions, n of π(s) and n of π(s'), each divided by its density; the actor learns max min_j Q_j − T
    log π. What is served is tanh μ(s).

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    data = Experience(log, box)
    learner = _Learner(data, config)
    curve = learn("cql", data, config, learner.generator, learner.step, learner.value, progress)
    served = learner.actor.network()
    weights, bias = served.layers[-1]
    served.layers = [*served.layers[:-1], (weights[..., : data.weights].copy(), bias[..., : data.weights].copy())]
    return Fitted(ActorPolicy(data.standard, box, served, 1.0), {"q": curve})
