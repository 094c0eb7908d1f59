"""Loss weighting without learned state: fixed, decaying, random weights, and those that are functions of the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torchjd.scalarization import GeometricMean, Scalarizer

from polyrank.balancing.memory import Memory, by_task
from polyrank.balancing.step import Step
from polyrank.balancing.weighting import LossWeighting, ScaledConfig, positive


@dataclass(frozen=True)
class StaticConfig:
    """Attributes: `weights`: a task's weight w_k by its name; 1 where not given."""

    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)


class Static(Memory):
    """Fixed weights.

    L = Σ_k w_k L_k.

    Cost: none.
    When: always first; weights by hand or by `polyrank tune` are hard to beat.
    Source: the field's formula (1).
    """

    def __init__(self, tasks: Sequence[str], config: StaticConfig) -> None:
        super().__init__(tasks)
        self.weights = by_task(config.weights, tasks, 1.0, "weights")

    def backward(self, step: Step) -> Tensor:
        """Backward of Σ_k w_k L_k; the weights `[T]`."""
        weights = self.weights * step.present
        step.pull(weights.float())
        step.push()
        return weights


@dataclass(frozen=True)
class PLEDynamicConfig:
    """The paper gives no values.

    Attributes:
        weights: ω_k,0 of a task by its name; 1 where not given.
        decays: γ_k of a task by its name; 1 (constant) where not given.
        unit: the steps in which t grows by one: an epoch's steps for the equation's t, 1 for t in steps.
        floor: the least weight: γ^t underflows in a long stream.
    """

    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    decays: Mapping[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    unit: Annotated[int, Gt(0)] = 1000
    floor: Annotated[float, Ge(0)] = 1e-3


class PLEDynamic(Memory):
    """Weights that grow or decay at a rate of their own.

    ω_k(t) = ω_k,0 · γ_k^t, t in units of `unit` steps, as a fraction between them; never below `floor`. Not normalised:
    with every γ < 1 it is also a decay of the learning rate.

    Cost: none.
    When: a task should lead early or late in training and you know which.
    Source: Tang et al., Progressive Layered Extraction, RecSys 2020, equation 10.
    Departures: t runs on within an epoch; the floor.
    """

    def __init__(self, tasks: Sequence[str], config: PLEDynamicConfig) -> None:
        super().__init__(tasks, step=torch.zeros((), dtype=torch.float64))
        self.start = by_task(config.weights, tasks, 1.0, "weights")
        self.decay = by_task(config.decays, tasks, 1.0, "decays")
        self.unit, self.floor = config.unit, config.floor

    def backward(self, step: Step) -> Tensor:
        """Backward of Σ_k ω_k(t) L_k; the weights `[T]`. A step without any row does not count."""
        time = self.memory["step"] / self.unit
        weights = torch.maximum(self.start * self.decay**time, self.start.clamp(max=self.floor)) * step.present
        self.memory["step"] = self.memory["step"] + step.present.any()
        step.pull(weights.float())
        step.push()
        return weights


@dataclass(frozen=True)
class RandomConfig(ScaledConfig):
    """Attributes (and `ScaledConfig`'s): `seed`: of the method's own generator."""

    seed: Annotated[int, Ge(0)] = 0


class Random(LossWeighting):
    """New random weights at every step.

    w = softmax(ε), ε ~ N(0, I), over the tasks present.

    Cost: none.
    When: as a sanity check: what does not beat it has not been shown to work.
    Source: Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022.
    """

    def __init__(self, tasks: Sequence[str], config: RandomConfig) -> None:
        super().__init__(tasks, seed=config.seed)
        self.scale = config.scale

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """Softmax of Gaussian numbers."""
        return torch.softmax(torch.randn(len(self.tasks), generator=self.generator, dtype=torch.float64)[here], dim=0)


def slopes(scalarizer: Scalarizer, values: Tensor) -> Tensor:
    """∂f/∂v of one of torchjd's scalarizers at `[S]` values."""
    leaf = values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scalarizer(leaf), leaf)
    return gradient


@dataclass(frozen=True)
class GeometricConfig(ScaledConfig):
    """Attributes: see `ScaledConfig`; rescaled to `tasks` the method is the scale-invariant loss."""

    scale: Literal["tasks", "paper"] = "paper"


class Geometric(LossWeighting):
    """The geometric mean of the losses (GLS).

    L = (Π_t L_t)^(1/T), so that w_t = L / (T · L_t): torchjd's `GeometricMean`.

    Cost: none.
    When: losses of different units, few tasks, all labelled everywhere.
    Source: Chennupati et al., MultiNet++, CVPR Workshops 2019.
    Departures: a loss counts as at least 10⁻¹².
    """

    def __init__(self, tasks: Sequence[str], config: GeometricConfig) -> None:
        super().__init__(tasks)
        self.scale = config.scale

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """∂L/∂L_t."""
        return slopes(GeometricMean(), positive(losses, "gls", self.tasks, here))


@dataclass(frozen=True)
class ScaleInvariantConfig(ScaledConfig):
    """Attributes: see `ScaledConfig`."""


class ScaleInvariant(LossWeighting):
    """The sum of the logarithms of the losses.

    L = Σ_t log L_t, so that w_t = 1 / L_t: a loss's unit does not matter.

    Cost: none.
    When: losses of different units; the simplest of the methods that equalise them.
    Source: Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022 (its baseline "SI").
    Departures: a loss counts as at least 10⁻¹².
    """

    def __init__(self, tasks: Sequence[str], config: ScaleInvariantConfig) -> None:
        super().__init__(tasks)
        self.scale = config.scale

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """1 / L_t."""
        return 1.0 / positive(losses, "scale_invariant", self.tasks, here)
