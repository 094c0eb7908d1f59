"""BatchRL-MTF: weights that the log makes plausible, moved a little, the best by a pessimistic Q.

Zhang et al., "Multi-Task Fusion via Reinforcement Learning for Long-Term User Satisfaction in Recommender Systems", KDD
2022; it is BCQ: Fujimoto, Meger, Precup, "Off-Policy Deep Reinforcement Learning without Exploration", ICML 2019.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from scipy.special import ndtri
from scipy.stats.qmc import Halton
from torch import Tensor

from polyrank.fusion.actors import CandidatePolicy
from polyrank.fusion.learners.learning import ActorCriticConfig, Batch, Experience, learn, targets
from polyrank.fusion.learners.networks import Descent, Stack
from polyrank.fusion.policy import Box, Fitted
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress


@dataclass(frozen=True)
class BatchRLMTFConfig(ActorCriticConfig):
    """The paper's γ, ρ and batch size; what it does not give is BCQ's.

    Has the fields of `ActorCriticConfig` too.

    Attributes:
        rho: ρ: how far a candidate may be moved, in half-widths of the box. 0.10 was too narrow, 0.30 too noisy.
        candidates: n, while learning and when serving. The paper's is not known; BCQ learns with 10.
        kl: what a nat of the generator's divergence costs beside squared errors of actions in [−1, 1]. The paper writes
            1: of a box explored uniformly (variance ⅓) the generator then makes nothing but the mean, because a latent
            is used only where the variance it explains exceeds kl / 2. ¼ is what BCQ's code does (means over K actions
            and 2K latents, times ½).
        clip: latents of candidates are N(0, 1) within ± this (BCQ's code): the likely part of what the log shows.
    """

    rho: Annotated[float, Interval(ge=0, le=2)] = 0.15
    candidates: Annotated[int, Gt(0)] = 10
    kl: Annotated[float, Ge(0)] = 0.25
    clip: Annotated[float, Gt(0)] = 0.5


class _Learner:
    """The four networks and their step."""

    def __init__(self, data: Experience, config: BatchRLMTFConfig) -> None:
        self.config, self.generator = config, torch.Generator().manual_seed(config.seed)
        states, weights, latent = data.width, data.weights, 2 * data.weights
        self.encoder = Stack((states, weights), config.hidden, 2 * latent, self.generator)
        self.decoder = Stack((states, latent), config.hidden, weights, self.generator)
        self.perturbation = Stack((states, weights), config.hidden, weights, self.generator)
        self.critics = Stack((states, weights), config.hidden, 1, self.generator, count=2)
        self.learned = (self.decoder, self.perturbation, self.critics)
        self.slow = tuple(stack.copy() for stack in self.learned)
        self.descend = Descent(config.learning_rate, config.steps, self.encoder, *self.learned)
        # As evenly spread as n points can be, the first in the middle; nothing is drawn when serving.
        even = Halton(latent, rng=config.seed).random(config.candidates)
        self.latents = torch.from_numpy(np.clip(ndtri(even), -config.clip, config.clip).astype(np.float32))
        self.latents[0] = 0.0

    def step(self, batch: Batch, number: int) -> None:
        """Generator, critics and perturbation learn from the same batch, each with its own loss."""
        states, actions = batch.states, batch.actions
        with torch.no_grad():
            target = targets(batch, self.config.gamma, self.best(batch.following, *self.slow)[..., None])
            latents = torch.randn(len(states), self.latents.shape[1], generator=self.generator)
            made = torch.tanh(self.decoder(states, latents.clamp_(-self.config.clip, self.config.clip))[0])
        error = (self.critics(states, actions) - target).square().mean(dim=1).sum()
        gain = self.critics.fixed(states, self.moved(states, made, self.perturbation))[0].mean()
        self.descend(error - gain + self.generator_loss(states, actions))
        for slow, fast in zip(self.slow, self.learned, strict=True):
            slow.follow(fast, self.config.averaging)

    def generator_loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """Σ (a − D(s, z))² + kl · KL(N(μ, σ²) ‖ N(0, 1)), z ~ N(μ, σ²) = E(s, a)."""
        mean, log_deviation = self.encoder(states, actions)[0].chunk(2, dim=1)
        deviation = log_deviation.clamp(-4, 15).exp()
        noise = torch.randn(mean.shape, generator=self.generator)
        made = torch.tanh(self.decoder(states, torch.addcmul(mean, deviation, noise))[0])
        divergence = 0.5 * (mean.square() + deviation.square() - 1).sum() - deviation.log().sum()
        return ((actions - made).square().sum() + self.config.kl * divergence) / len(states)

    def moved(self, states: Tensor, made: Tensor, perturbation: Stack) -> Tensor:
        """A + ρ · tanh P(s, a), within the box."""
        return (made + self.config.rho * torch.tanh(perturbation(states, made)[0])).clamp(-1, 1)

    def best(self, states: Tensor, decoder: Stack, perturbation: Stack, critics: Stack) -> Tensor:
        """`[B, S]` → `[B]` max_i min_j Q_j(s, a_i) of the candidates that would be served."""
        seen = states[:, None]
        made = torch.tanh(decoder(seen, self.latents[None])[0])
        values: Tensor = critics(seen, self.moved(seen, made, perturbation)).amin(dim=0)[..., 0].amax(dim=1)
        return values


def fit(log: SessionLog, box: Box, config: BatchRLMTFConfig, progress: Progress) -> Fitted:
    """Learn it from a log.

    The generator, a conditional VAE (E, D), makes the log's actions: L = Σ (a − D(s, z))² + kl · KL. A candidate is
    a_i = D(s, z_i) + P(s, D(s, z_i)), P in ±ρ; the critics learn y = r + γ max_i min_j Q'_j(s', a_i), with slow copies
    of generator, perturbation and critics; P learns max Q_1(s, D(s, z) + P).

    Departures: the z_i are the same few for all states, in learning and in serving, so that the policy that is learned
    is the one that is served, without a draw (d3rlpy and BCQ draw anew each time); serving takes the argmax of
    min_j Q_j, as the targets do, and not of Q_1; what is served are the slow copies, whose value it is that the critics
    learn, and which move less from step to step; the three losses take one step of Adam together.

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    data = Experience(log, box)
    learner = _Learner(data, config)

    def value(states: Tensor) -> Tensor:
        return learner.best(states, *learner.slow)

    curve = learn("batchrl_mtf", data, config, learner.generator, learner.step, value, progress)
    decoder, perturbation, critics = (stack.network() for stack in learner.slow)
    latents = learner.latents.numpy()
    policy = CandidatePolicy(data.standard, box, decoder, perturbation, critics, latents, config.rho)
    return Fitted(policy, {"q": curve})
