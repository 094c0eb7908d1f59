"""What methods that weigh losses have in common: one backward pass over Σ_k w_k L_k. T tasks, S of them present."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polyrank.balancing.memory import Memory
from polyrank.balancing.step import Step
from polyrank.errors import TrainingDiverged

LEAST = 1e-12
"""A loss counts as this much where it is divided by or its logarithm is taken."""


@dataclass(frozen=True)
class ScaledConfig:
    """How large weights are.

    Attributes:
        scale: `tasks`: weights are rescaled to sum to the number of tasks present, so that the learning rate means the
            same whatever the method; `paper`: they are as published.
    """

    scale: Literal["tasks", "paper"] = "tasks"


class LossWeighting(Memory, ABC):
    """Weights from what the losses did: `weigh` gives those of the tasks present; all parameters get w_t ∇L_t.

    A task without rows has weight 0 in that step, the others are weighed as if it did not exist, and what is remembered
    of it stays. A model with one task is trained plainly.
    """

    scale: Literal["tasks", "paper"] = "paper"

    def backward(self, step: Step) -> Tensor:
        """One backward pass of Σ_t w_t L_t; the weights `[T]`."""
        weights = torch.zeros(len(self.tasks), dtype=torch.float64)
        here = step.present.nonzero().squeeze(1)
        if len(self.tasks) == 1:
            weights += step.present
        elif len(here):
            weights[here] = scaled(self.weigh(step.losses[here].double(), here, step), self.scale)
        step.pull(weights.float())
        self.pulled(step, weights, here)
        step.push()
        return weights

    @abstractmethod
    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """`[S]` losses of the tasks with the numbers `here` `[S]` → `[S]` weights, float64 both."""

    def pulled(self, step: Step, weights: Tensor, here: Tensor) -> None:
        """Between the two halves of the pass: `step` can be asked for gradients."""


def scaled(weights: Tensor, scale: Literal["tasks", "paper"]) -> Tensor:
    """Weights that sum to how many they are, where that is asked for and their sum is positive."""
    total = weights.sum()
    return weights * (len(weights) / total) if scale == "tasks" and total > 0 else weights


def positive(losses: Tensor, method: str, tasks: Sequence[str], here: Tensor) -> Tensor:
    """Losses that may be divided by.

    Raises:
        TrainingDiverged: a loss is negative: the method is not defined.
    """
    if (losses < 0).any():
        names = [tasks[task] for task, loss in zip(here.tolist(), losses.tolist(), strict=True) if loss < 0]
        raise TrainingDiverged(
            f"{method} needs losses that are not negative",
            received=f"a negative loss of {', '.join(names)}",
            mend="choose another balance.method for such a task kind",
        )
    return losses.clamp(min=LEAST)
