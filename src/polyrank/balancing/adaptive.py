"""Loss weighting by how fast or how well a task has learnt so far: DWA, DTP, LBTW, STCH. S tasks present in a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torchjd.scalarization import STCH

from polyrank.balancing.step import Quality, Step
from polyrank.balancing.streams import Average, Reference, zeros
from polyrank.balancing.weighting import LossWeighting, ScaledConfig, positive
from polyrank.balancing.weights import slopes


@dataclass(frozen=True)
class DWAConfig:
    """The paper's temperature; its windows are epochs.

    Attributes:
        temperature: τ; the larger, the more equal the weights. In a stream r is near 1, and 2 hardly acts: 0.1 does.
        window: the labelled steps of a task over which its loss is averaged.
    """

    temperature: Annotated[float, Gt(0)] = 2.0
    window: Annotated[int, Gt(0)] = 25


class DWA(LossWeighting):
    """More weight to tasks whose loss falls slowly (dynamic weight average).

    w_t = T · softmax(r_t / τ), r_t the mean loss of the last full window over that of the one before. A task's r is 1
    until it has two windows.

    Cost: none.
    When: tasks learn at different speeds and their losses have comparable noise.
    Source: Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019.
    Departures: windows are of steps, each task's of its own labelled ones, instead of epochs.
    """

    def __init__(self, tasks: Sequence[str], config: DWAConfig) -> None:
        count = len(tasks)
        super().__init__(tasks, sums=zeros(count), steps=zeros(count), older=zeros(count), newer=zeros(count))
        self.temperature, self.window, self.scale = config.temperature, config.window, "tasks"

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """Weights from the windows that are full; then this step joins its window."""
        losses = positive(losses, "dwa", self.tasks, here)
        sums, steps, older, newer = (self.memory[name] for name in ("sums", "steps", "older", "newer"))
        rate = torch.where(older[here] > 0, newer[here] / older[here].clamp(min=1e-300), 1.0)
        sums[here] += losses
        steps[here] += 1.0
        full = steps >= self.window
        older[full], newer[full] = newer[full], sums[full] / self.window
        sums[full] = steps[full] = 0.0
        return torch.softmax(rate / self.temperature, dim=0)


@dataclass(frozen=True)
class DTPConfig(ScaledConfig):
    """The paper's values are not published; these are the usual ones.

    Attributes (and `ScaledConfig`'s):
        focus: γ; the larger, the less an easy task counts.
        metric: κ: `auc` for 2·AUC − 1 (of pairs of rows ranked by their label, ties half: for any kind of task), or
            `accuracy`, for binary tasks alone.
        every: the steps after which the metric is looked at.
        momentum: α, what the newest value counts in the running one.
    """

    focus: Annotated[float, Ge(0)] = 1.0
    metric: Quality = "auc"
    every: Annotated[int, Gt(0)] = 5
    momentum: Annotated[float, Interval(gt=0, le=1)] = 0.1


class DTP(LossWeighting):
    """More weight to tasks that are predicted badly (dynamic task prioritisation).

    w_t = −(1 − κ̄_t)^γ log κ̄_t, κ̄ ← α κ + (1 − α) κ̄ the running key metric in [0.01, 0.99].

    Cost: the metric, every few steps.
    When: hard tasks matter more than easy ones. Not with accuracy where labels are rare: it is high from the start.
    Source: Guo et al., Dynamic Task Prioritization for Multitask Learning, ECCV 2018 (formula from re-implementations:
        we could not read the paper).
    Departures: the metric is a running one over batches; the examples' own focal loss is not part of it.
    """

    def __init__(self, tasks: Sequence[str], config: DTPConfig) -> None:
        super().__init__(tasks, quality=zeros(len(tasks)), steps=torch.zeros((), dtype=torch.float64))
        self.config, self.scale = config, config.scale

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """Weights from the running metric; a task of which nothing is known yet counts as 0.5."""
        quality = self.memory["quality"]
        if self.memory["steps"] % self.config.every == 0:
            found = step.quality(self.config.metric)
            found = 2.0 * found - 1.0 if self.config.metric == "auc" else found
            found = found.clamp(0.01, 0.99)
            moved = torch.where(quality > 0, torch.lerp(quality, found, self.config.momentum), found)
            known = torch.zeros(len(self.tasks), dtype=torch.bool)
            known[here] = True
            quality = torch.where(known & ~found.isnan(), moved, quality)
            self.memory["quality"] = quality
        self.memory["steps"] = self.memory["steps"] + 1.0
        kappa = torch.where(quality[here] > 0, quality[here], 0.5)
        return -((1.0 - kappa) ** self.config.focus) * kappa.log()


@dataclass(frozen=True)
class LBTWConfig:
    """The authors' exponent; their reference is a single batch.

    Attributes:
        exponent: α; 0 for equal weights.
        reference_steps: the labelled steps over which a task's reference loss is averaged.
        half_life: of the average of the present loss, in labelled steps; 0 for the batch's own.
    """

    exponent: Annotated[float, Ge(0)] = 0.5
    reference_steps: Annotated[int, Gt(0)] = 10
    half_life: Annotated[float, Ge(0)] = 20.0


class LBTW(LossWeighting):
    """More weight to tasks whose loss has fallen little since the start (loss-balanced task weighting).

    w_t ∝ (L_t / L_t^ref)^α, Σ w = T.

    Cost: none.
    When: some tasks are learnt in no time and would drag the shared part along.
    Source: Liu, Liang and Gitter, Loss-Balanced Task Weighting to Reduce Negative Transfer, AAAI 2019.
    Departures: the reference is the mean over the first steps, once, instead of each epoch's first batch.
    """

    def __init__(self, tasks: Sequence[str], config: LBTWConfig) -> None:
        super().__init__(tasks)
        self.reference = Reference(self.memory, "reference", len(tasks), config.reference_steps)
        self.average = Average(self.memory, "average", len(tasks), config.half_life)
        self.exponent, self.scale = config.exponent, "tasks"

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """The ratio to the power α."""
        losses = positive(losses, "lbtw", self.tasks, here)
        return (self.average.add(losses, here) / self.reference.add(losses, here)) ** self.exponent


@dataclass(frozen=True)
class STCHConfig(ScaledConfig):
    """The authors' smoothing; their warm-up is four epochs.

    Attributes (and `ScaledConfig`'s):
        smoothing: μ; towards 0 only the worst task counts.
        warmup: the labelled steps in which a task's log loss is summed; its nadir is the mean loss of the second half.
    """

    smoothing: Annotated[float, Gt(0)] = 1.0
    warmup: Annotated[int, Gt(1)] = 40


class STCHWeighting(LossWeighting):
    """A smooth maximum over the tasks' losses relative to where they began (smooth Tchebycheff).

    T · μ log Σ_t exp(log(L_t / nadir_t) / μ), so that w_t = T · p_t / L_t, p = softmax(log(L / nadir) / μ): torchjd's
    `STCH` on log(L / nadir). While a task warms up it counts as if at its nadir.

    Cost: none.
    When: the worst-off task decides.
    Source: Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024, in the form of its
        multi-task experiments (logarithms, nadir).
    Departures: the warm-up is in steps.
    """

    def __init__(self, tasks: Sequence[str], config: STCHConfig) -> None:
        super().__init__(tasks)
        half = config.warmup // 2
        self.nadir = Reference(self.memory, "nadir", len(tasks), config.warmup - half, skipped=half)
        self.smoothing, self.scale = config.smoothing, config.scale

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """T · p_t / L_t."""
        losses = positive(losses, "stch", self.tasks, here)
        nadir = self.nadir.add(losses, here)
        height = torch.where(self.nadir.settled(here), (losses / nadir).log(), 0.0)
        smooth = STCH(self.smoothing, weights=torch.ones_like(height))
        return len(here) * slopes(smooth, height) / losses
