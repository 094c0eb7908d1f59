"""IQL: values of what the log did, optimistic among them; the actor imitates the log where it did better than usual.

Kostrikov, Nair, Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR 2022.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from polyrank.fusion.actors import ActorPolicy
from polyrank.fusion.learners.learning import ActorCriticConfig, Batch, Experience, learn, targets
from polyrank.fusion.learners.networks import Descent, Stack
from polyrank.fusion.policy import Box, Fitted
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress


@dataclass(frozen=True)
class IQLConfig(ActorCriticConfig):
    """The paper's, for locomotion; learning_rate too.

    Has the fields of `ActorCriticConfig` too.

    Attributes:
        expectile: of Q over the log's actions that V is: 0.5 the mean, towards 1 the best.
        temperature: β: a step of the log weighs exp(β (Q − V)) when it is imitated, with rewards of deviation 1. A log
            of wide exploration needs more than 3: the actor is the weighted mean of what the log did.
        largest: the most a step may weigh.
    """

    expectile: Annotated[float, Interval(ge=0.5, lt=1)] = 0.7
    temperature: Annotated[float, Ge(0)] = 3.0
    largest: Annotated[float, Gt(0)] = 100.0


def expectile_loss(better: Tensor, expectile: float) -> Tensor:
    """|τ − 1(u < 0)| u², by element (the paper's equation 4): its least mean is at the τ-expectile."""
    return torch.where(better > 0, expectile, 1 - expectile) * better.square()


def fit(log: SessionLog, box: Box, config: IQLConfig, progress: Progress) -> Fitted:
    """Learn it from a log.

    V(s) is the expectile of min_j Q'_j(s, a) over the log's actions; Q_j learns r + γ V(s'); the actor, a Gaussian of
    mean tanh f(s) and deviations of its own, learns max exp(β (min_j Q'_j(s, a) − V(s))) log π(a | s). What is served
    is its mean. No action that the log does not show is ever asked about.

    Departure: no dropout.

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    data, generator = Experience(log, box), torch.Generator().manual_seed(config.seed)
    actor = Stack((data.width,), config.hidden, data.weights, generator)
    usual = Stack((data.width,), config.hidden, 1, generator)
    critics = Stack((data.width, data.weights), config.hidden, 1, generator, count=2)
    slow = critics.copy()
    log_deviation = torch.zeros(data.weights, requires_grad=True)
    descend = Descent(config.learning_rate, config.steps, actor, usual, critics, log_deviation)

    def step(batch: Batch, number: int) -> None:
        with torch.no_grad():
            target = targets(batch, config.gamma, usual(batch.following)[0])
            known = slow(batch.states, batch.actions).amin(dim=0)
        error = (critics(batch.states, batch.actions) - target).square().mean(dim=1).sum()
        better = known - usual(batch.states)[0]
        weight = (config.temperature * better.detach()).exp().clamp(max=config.largest)
        deviation = log_deviation.clamp(-5, 2)
        away = (batch.actions - torch.tanh(actor(batch.states)[0])) * (-deviation).exp()
        unlikely = (0.5 * away.square() + deviation).sum(dim=1, keepdim=True)
        descend(error + expectile_loss(better, config.expectile).mean() + (weight * unlikely).mean())
        slow.follow(critics, config.averaging)

    def value(states: Tensor) -> Tensor:
        return critics(states, torch.tanh(actor(states)[0])).amin(dim=0)

    curve = learn("iql", data, config, generator, step, value, progress)
    return Fitted(ActorPolicy(data.standard, box, actor.network(), 1.0), {"q": curve})
