"""What learners of policies share: a session log as tensors, the loop of training steps, and its end where Q runs away.

N steps of the log, S state numbers, K weights, B steps of the log in a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor

from polyrank.errors import DataError, TrainingDiverged
from polyrank.fusion.policy import Box, Standard
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress

_LOOKS = 50  # how often the curve of Q is read, and no sooner than after 20 steps
_BEYOND = 10.0  # how many times what rewards allow a Q may be before learning has diverged
_BEGINNINGS = 500  # first states of sessions that the curve is read at


@dataclass(frozen=True)
class ActorCriticConfig:
    """What every actor-critic learner asks for.

    Attributes:
        gamma: γ, of a step; BatchRL-MTF's is 0.95.
        hidden: the hidden layers of every network. What states of some tens of numbers need; papers of robots use
            (256, 256), those of fusion do not say.
        learning_rate: Adam's at the beginning, for every network; over the second half of the steps it falls to 0
            along half a cosine. BatchRL-MTF: 0.00002 with 300,000 steps.
        batch_size: B.
        steps: training steps.
        averaging: τ: slow copies move by this share of the difference after each step.
        seed: of initial weights, batches and noise.
    """

    gamma: Annotated[float, Interval(ge=0, lt=1)] = 0.95
    hidden: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (64, 64)
    learning_rate: Annotated[float, Gt(0)] = 3e-4
    batch_size: Annotated[int, Gt(0)] = 256
    steps: Annotated[int, Gt(0)] = 50_000
    averaging: Annotated[float, Interval(gt=0, le=1)] = 0.005
    seed: Annotated[int, Ge(0)] = 0


class Batch(NamedTuple):
    """Steps of a log.

    Attributes:
        states: `[B, S]` standardised.
        actions: `[B, K]`, [−1, 1] over the box.
        rewards: `[B, 1]` in units of `Experience.unit`.
        following: `[B, S]` the states that came next; anything where none did.
        going: `[B, 1]` 0 where the session ended, otherwise 1.
        at: `[B]` the rows of the log.
        after: `[B]` those of `following`.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    following: Tensor
    going: Tensor
    at: Tensor
    after: Tensor


class Experience:
    """A session log as learners see it: standardised states, actions of [−1, 1] over the box, rewards of deviation 1.

    A last step that is `done` has no following state: its return is its reward. A last step of a session that was cut
    off is left out: what came after is unknown.

    Attributes:
        standard: what standardises states.
        box: the box.
        unit: the rewards' standard deviation: what a learner's Q is counted in.
        beginnings: `[≤ 500, S]` first states of sessions, spread over the log.
        width: S.
        weights: K.

    Raises:
        DataError: every session is one step and cut off.
    """

    def __init__(self, log: SessionLog, box: Box) -> None:
        self.standard, self.box = Standard.of(log), box
        deviation, largest = float(np.std(log.rewards)), float(np.abs(log.rewards).max())
        self.unit = deviation if deviation > 1e-6 * largest else largest or 1.0
        self.highest = _BEYOND * (largest / self.unit or 1.0)
        usable = log.outcomes
        if not len(usable):
            raise DataError(
                "a session log must hold a step whose outcome is known: another follows, or it is done",
                received=f"{len(log.sessions):,} sessions of one step, none of them done",
                mend="log what followed, or `done` where the user left",
            )
        self._states = torch.from_numpy(self.standard(log.states))
        rewards = (log.rewards[usable] / self.unit).astype(np.float32)
        columns = (box.normalised(log.actions[usable]), rewards[:, None], ~log.done[usable, None])
        self._rows = torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32))
        self._at = torch.from_numpy(usable)
        self._next = torch.from_numpy(np.minimum(usable + 1, len(log.rewards) - 1))
        self.width, self.weights = log.states.shape[1], log.actions.shape[1]
        first = log.starts[:-1]
        spread = np.linspace(0, len(first) - 1, min(len(first), _BEGINNINGS)).astype(np.int64)
        self.beginnings = self._states[torch.from_numpy(first[spread])]

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Steps of the log, drawn alike with replacement."""
        drawn = torch.randint(len(self._at), (size,), generator=generator)
        actions, rewards, going = torch.split(self._rows[drawn], [self.weights, 1, 1], dim=1)
        at, after = self._at[drawn], self._next[drawn]
        return Batch(self._states[at], actions, rewards, self._states[after], going, at, after)


def learn(
    name: str,
    data: Experience,
    config: ActorCriticConfig,
    generator: torch.Generator,
    step: Callable[[Batch, int], None],
    value: Callable[[Tensor], Tensor],
    progress: Progress,
) -> list[tuple[int, float]]:
    """Run the training steps.

    Args:
        name: the method's.
        data: the log.
        config: its steps, batch size and γ.
        generator: of the batches.
        step: (batch, number from 1): learn from a batch.
        value: `[B, S]` → `[B]` Q(s, π(s)), as it stands.
        progress: where to report.

    Returns:
        (training step, mean Q(s₀, π(s₀))), in units of the log's rewards.

    Raises:
        TrainingDiverged: |mean Q| passes ten times max|r| / (1 − γ), or is not a number.
    """
    curve: list[tuple[int, float]] = []
    highest = data.highest / (1 - config.gamma)
    with progress.bar(name, config.steps, unit="steps") as bar:
        for number in range(1, config.steps + 1):
            step(data.sample(config.batch_size, generator), number)
            if number % max(20, config.steps // _LOOKS) == 0 or number == config.steps:
                with torch.no_grad():
                    mean = float(value(data.beginnings).mean())
                curve.append((number, mean * data.unit))
                bar.advance(number - (curve[-2][0] if len(curve) > 1 else 0), f"Q {mean * data.unit:,.4g}")
                if not abs(mean) <= highest:
                    raise TrainingDiverged(
                        f"{name}: Q must stay within what rewards allow",
                        received=f"mean Q {mean * data.unit:,.3g} after {number:,} steps; rewards allow "
                        f"{highest * data.unit / _BEYOND:,.3g}",
                        mend="a lower learning_rate or averaging; a method that keeps to what the log shows "
                        "(batchrl_mtf, unified_rl, iql, td3_bc), or a log that explores more",
                    )
    return curve


def targets(batch: Batch, gamma: float, following: Tensor) -> Tensor:
    """R + γ Q(s', a'), and r alone where a session ended: `[B, 1]` beside `following` `[..., B, 1]`."""
    return torch.addcmul(batch.rewards, batch.going, following, value=gamma)
