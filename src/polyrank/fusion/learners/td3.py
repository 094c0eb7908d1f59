"""TD3: an actor that climbs the smaller of two critics; nothing holds it to what a log shows.

Fujimoto, van Hoof, Meger, "Addressing Function Approximation Error in Actor-Critic Methods", ICML 2018. It is made for
learning while acting: from a log it is here to be seen to fail (BatchRL-MTF's offline table has it at −648 beside +4).
"""

from collections.abc import Callable
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

# (Q_1(s, π(s)) `[B, 1]`, π(s) `[B, K]`, the log's actions `[B, K]`) → what the actor makes small
ActorLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TD3Config(ActorCriticConfig):
    """The paper's noise and delay.

    Has the fields of `ActorCriticConfig` too.

    Attributes:
        reach: how far weights may go, in half-widths of the box. The default is that of a box of ±0.15 in weights that
            could be ±1, as Tencent's logs have it.
        noise: deviation of the noise on a target's action, as a share of the reach.
        clip: its largest, likewise.
        delay: steps of the critics to one of the actor.
    """

    reach: Annotated[float, Gt(0)] = 1 / 0.15
    noise: Annotated[float, Ge(0)] = 0.2
    clip: Annotated[float, Ge(0)] = 0.5
    delay: Annotated[int, Gt(0)] = 2


def fit(log: SessionLog, box: Box, config: TD3Config, progress: Progress) -> Fitted:
    """Learn it from a log: y = r + γ min_j Q'_j(s', π'(s') + ε), max_π Q_1(s, π(s)).

    Departure: what is served is the slow π', whose value it is that the critics learn.

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    return fit_by("td3", log, box, config, lambda q, chosen, logged: -q.mean(), progress)


def fit_by(
    name: str, log: SessionLog, box: Box, config: TD3Config, actor_loss: ActorLoss, progress: Progress
) -> Fitted:
    """The same with another loss of the actor.

    Raises:
        DataError, TrainingDiverged: see `Experience`, `learn`.
    """
    data, generator = Experience(log, box), torch.Generator().manual_seed(config.seed)
    actor = Stack((data.width,), config.hidden, data.weights, generator)
    critics = Stack((data.width, data.weights), config.hidden, 1, generator, count=2)
    slow_actor, slow_critics = actor.copy(), critics.copy()
    learn_actor = Descent(config.learning_rate, max(1, config.steps // config.delay), actor)
    learn_critics = Descent(config.learning_rate, config.steps, critics)
    reach, most = config.reach, config.clip * config.reach

    def step(batch: Batch, number: int) -> None:
        with torch.no_grad():
            noise = torch.randn(batch.actions.shape, generator=generator).mul_(config.noise * reach).clamp_(-most, most)
            after = torch.tanh(slow_actor(batch.following)[0]).mul_(reach).add_(noise).clamp_(-reach, reach)
            target = targets(batch, config.gamma, slow_critics(batch.following, after).amin(dim=0))
        learn_critics((critics(batch.states, batch.actions) - target).square().mean(dim=1).sum())
        if number % config.delay == 0:
            chosen = reach * torch.tanh(actor(batch.states)[0])
            learn_actor(actor_loss(critics.fixed(batch.states, chosen)[0], chosen, batch.actions))
            slow_actor.follow(actor, config.averaging)
            slow_critics.follow(critics, config.averaging)

    def value(states: Tensor) -> Tensor:
        return critics(states, reach * torch.tanh(actor(states)[0])).amin(dim=0)

    curve = learn(name, data, config, generator, step, value, progress)
    return Fitted(ActorPolicy(data.standard, box, slow_actor.network(), reach), {"q": curve})
