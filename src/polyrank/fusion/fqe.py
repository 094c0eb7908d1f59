"""Fitted Q evaluation: the value of a policy by learning its Q function from a log.

N steps, D state numbers, K fusion weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from polyrank.errors import TrainingDiverged
from polyrank.fusion.estimate import Terms
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats
from polyrank.progress import Progress

Act = Callable[[Tensor], Tensor]  # states `[B, D]` → the target policy's actions `[B, K]`

_LOOKS = 50  # how often the curve of Q is read
_LOOKED_AT = 4_096  # in about so many beginnings of sessions
_BEYOND = 10.0  # how many times what rewards allow a Q may be before learning has diverged


@dataclass(frozen=True)
class FQEConfig:
    """How Q̂ is learned.

    Attributes:
        gamma: γ.
        hidden: the layers of the network.
        learning_rate: Adam's.
        batch_size: steps of the log a training step.
        steps: training steps.
        averaging: τ: the target network moves by this share of the difference after each step.
        conservative: α of CQL's penalty (Kumar et al. 2020) log Σ_a exp Q̂(s, a) − Q̂(s, a_log), its sum over the action
            that is judged and the logged one: 0 for FQE; above 0 for BatchRL-MTF's Conservative-OPEstimator. That
            paper's form, E_μ Q̂ − E_log Q̂, has no lower bound where the log never shows an action; its α and its μ could
            not be found.
        seed: of initial weights and batches.
    """

    gamma: Annotated[float, Interval(ge=0, lt=1)] = 0.95
    hidden: tuple[Annotated[int, Gt(0)], ...] = (64, 64)
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    batch_size: Annotated[int, Gt(0)] = 512
    steps: Annotated[int, Gt(0)] = 5_000
    averaging: Annotated[float, Interval(gt=0, le=1)] = 0.01
    conservative: Annotated[float, Ge(0)] = 0.0
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class FQE:
    """A learned Q̂.

    Attributes:
        network: `[B, D + K]` → `[B, 1]`.
        curve: (training step, mean Q̂(s₀, π(s₀))) while learning.
        terms: of the estimate: Q̂(s₀, π(s₀)) of each session. Its interval is that of which sessions began; what the
            network has got wrong is not in it.
    """

    network: nn.Module
    terms: Terms
    curve: list[tuple[int, float]] = field(default_factory=list)

    @torch.no_grad()
    def q(self, states: Tensor, actions: Tensor) -> Floats:
        """`[B]` Q̂(s, a)."""
        found: Floats = self.network(torch.cat([states, actions], dim=1)).squeeze(1).double().numpy()
        return found


def fitted_q(log: SessionLog, act: Act, config: FQEConfig, progress: Progress) -> FQE:
    """Learn Q̂(s, a) = E[r + γ Q̂(s', π(s'))] (Le, Voloshin, Yue 2019), with a slowly moving target network.

    A last step that is `done` has no s'. One of a session that was cut off is left out: what came after is unknown.

    Raises:
        TrainingDiverged: |Q̂| passes ten times max|r| / (1 − γ).
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network, slow = (_network(log.states.shape[1] + log.actions.shape[1], config.hidden) for _ in range(2))
    slow.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    states, actions = torch.from_numpy(log.states), torch.from_numpy(log.actions)
    rewards, done = torch.from_numpy(log.rewards).float(), torch.from_numpy(log.done)
    first = states[torch.from_numpy(log.starts[:-1])]
    usable = torch.from_numpy(log.outcomes)
    # An untrained Q is below 1 wherever it stands: where there is hardly a reward, that is no divergence.
    highest = _BEYOND * max(float(rewards.abs().max()) / (1 - config.gamma), 0.1)
    with torch.no_grad():
        chosen, beginnings = act(states), torch.cat([first, act(first)], dim=1)
        some = beginnings[:: max(1, len(beginnings) // _LOOKED_AT)]
    curve: list[tuple[int, float]] = []
    with progress.bar("fitted Q evaluation", config.steps, unit="steps") as bar:
        for step in range(1, config.steps + 1):
            at = usable[torch.randint(len(usable), (config.batch_size,), generator=generator)]
            after = torch.where(done[at], at, at + 1)
            with torch.no_grad():
                following = slow(torch.cat([states[after], chosen[after]], dim=1)).squeeze(1)
                target = rewards[at] + config.gamma * torch.where(done[at], 0.0, following)
            logged = network(torch.cat([states[at], actions[at]], dim=1)).squeeze(1)
            loss = (logged - target).square().mean()
            if config.conservative:
                own = network(torch.cat([states[at], chosen[at]], dim=1)).squeeze(1)
                loss = loss + config.conservative * (torch.logaddexp(own, logged) - logged).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mine, its in zip(network.parameters(), slow.parameters(), strict=True):
                    its.lerp_(mine, config.averaging)
            if step % max(1, config.steps // _LOOKS) == 0 or step == config.steps:
                with torch.no_grad():
                    value = float(network(some).mean())
                curve.append((step, value))
                bar.advance(step - (curve[-2][0] if len(curve) > 1 else 0))
                if not abs(value) <= highest:
                    raise TrainingDiverged(
                        "Q must stay within what rewards allow",
                        received=f"mean Q {value:,.3g} after {step:,} steps; rewards allow {highest / _BEYOND:,.3g}",
                        mend="a lower learning_rate or averaging, or conservative above 0; a policy that leaves what "
                        "the log shows cannot be judged by it",
                    )
    with torch.no_grad():
        values = network(beginnings).double().numpy()
    return FQE(network, Terms(values, np.ones_like(values)), curve)


def _network(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else width, 1))
