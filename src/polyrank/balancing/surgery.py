"""Gradient methods that mend one task's gradient by another's: PCGrad, GradVac, GradDrop. S tasks present in a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy.typing import NDArray
from torch import Tensor
from torchjd.aggregation import PCGradWeighting

from polyrank.balancing.gradients import GradientConfig, GradientMethod
from polyrank.balancing.memory import Memory, instead_of_torchs
from polyrank.balancing.step import Step

Array = NDArray[np.float64]

_HIGHEST = 0.99  # a target cosine of 1 would divide by 0


@dataclass(frozen=True)
class PCGradConfig(GradientConfig):
    """Attributes (and `GradientConfig`'s): `seed`: of the order in which tasks are projected."""

    seed: Annotated[int, Ge(0)] = 0


class PCGrad(GradientMethod):
    """What conflicts with another task is cut out of each gradient (gradient surgery).

    For each i, for j ≠ i in random order: if g_i'ᵀg_j < 0 then g_i' ← g_i' − (g_i'ᵀg_j / ‖g_j‖²) g_j; Σ g_i'. torchjd's
    `PCGradWeighting`.

    Cost: the Gramian and T² inner products.
    When: few tasks that conflict now and then; from three tasks on it may still hurt one.
    Source: Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020.
    """

    def __init__(self, tasks: Sequence[str], config: PCGradConfig) -> None:
        super().__init__(tasks, config, seed=config.seed)
        self.weighting = PCGradWeighting()

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The weights of torchjd, in float64, on a generator of our own."""
        assert self.generator is not None
        with instead_of_torchs(self.generator):
            found: Array = self.weighting(torch.from_numpy(gramian / gramian.trace())).numpy()
        return found


@dataclass(frozen=True)
class GradVacConfig(GradientConfig):
    """The paper's step (from memory); LibMTL's and torchjd's is 0.5.

    Attributes (and `GradientConfig`'s):
        step: β of the running cosines.
        seed: of the order in which tasks are looked at.
    """

    step: Annotated[float, Interval(gt=0, le=1)] = 0.01
    seed: Annotated[int, Ge(0)] = 0


class GradVac(GradientMethod):
    """Each gradient is turned towards another until they are as similar as they usually are (gradient vaccine).

    For each i, for j ≠ i in random order: φ = cos(g_i', g_j); if φ < φ̂_ij then g_i' += ‖g_i'‖ (φ̂ √(1 − φ²) −
    φ √(1 − φ̂²)) / (‖g_j‖ √(1 − φ̂²)) g_j; φ̂_ij ← (1 − β) φ̂_ij + β φ; Σ g_i'. With φ̂ = 0 it is PCGrad.

    Cost: as of PCGrad.
    When: tasks that usually agree.
    Source: Wang et al., Gradient Vaccine, ICLR 2021.
    Departures: |φ̂| ≤ 0.99. torchjd's keeps φ̂ where it can be neither saved nor held still for an absent task.
    """

    def __init__(self, tasks: Sequence[str], config: GradVacConfig) -> None:
        targets = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
        super().__init__(tasks, config, seed=config.seed, targets=targets)
        self.beta = config.step

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """Coefficients of the turned gradients; the running cosines of the tasks present move."""
        count = len(gramian)
        others = [[j for j in torch.randperm(count, generator=self.generator).tolist() if j != i] for i in range(count)]
        grid = here[:, None], here[None, :]
        coefficients, cosines = vaccinated(gramian, self.memory["targets"][grid].numpy(), self.beta, others)
        self.memory["targets"][grid] = torch.from_numpy(cosines)
        found: Array = coefficients.sum(axis=0)
        return found


def vaccinated(gramian: Array, targets: Array, beta: float, orders: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Row i: the coefficients of g_i'; and the running cosines after it. `[S, S]` both; `orders[i]`: i's partners."""
    size = np.sqrt(gramian.diagonal())
    coefficients, targets = np.eye(len(gramian)), targets.copy()
    for i, order in enumerate(orders):
        row = coefficients[i]
        for j in order:
            product = row @ gramian
            length = np.sqrt(max(product @ row, 0.0))
            if length == 0.0:  # cancelled: it has no direction to turn
                break
            cosine = float(np.clip(product[j] / (length * size[j]), -1.0, 1.0))
            aim = float(np.clip(targets[i, j], -_HIGHEST, _HIGHEST))
            if cosine < aim:
                sine = np.sqrt(1.0 - aim**2)
                row[j] += length * (aim * np.sqrt(1.0 - cosine**2) - cosine * sine) / (size[j] * sine)
            targets[i, j] = (1.0 - beta) * targets[i, j] + beta * cosine
    return coefficients, targets


@dataclass(frozen=True)
class GradDropConfig:
    """The paper's masks.

    Attributes:
        leak: the share of what is masked that passes all the same.
        seed: of the masks.
    """

    leak: Annotated[float, Interval(ge=0, le=1)] = 0.0
    seed: Annotated[int, Ge(0)] = 0


class GradDrop(Memory):
    """Each unit hears at random either the tasks that push it up or those that push it down (sign dropout).

    P = ½ (1 + Σ_t g_t / Σ_t |g_t|) for each unit of the representation, g_t summed over the batch times sign(h); a draw
    U ~ U(0, 1) for each: the positive g_t pass where P > U, the negative ones where P < U.

    Cost: the signs of all gradients, summed over rows.
    When: many tasks, noise as regularisation is welcome.
    Source: Chen et al., Just Pick a Sign, NeurIPS 2020.
    Departures: with gates, unit i of all tasks' mixtures of the same experts counts as one unit, and is masked where
        the experts hand it on: what goes through gates and experts that only one task reads is not.
    """

    combines = True

    def __init__(self, tasks: Sequence[str], config: GradDropConfig) -> None:
        super().__init__(tasks, seed=config.seed)
        self.leak = config.leak

    def backward(self, step: Step) -> Tensor:
        """Masked gradients to shared parameters; each task's mean mask `[T]`."""
        step.pull()
        weights = step.present.double()
        if len(self.tasks) == 1 or not step.present.any():
            step.push()
            return weights
        pushes = step.units().double()
        draws = torch.rand(pushes.shape[1], generator=self.generator, dtype=torch.float64)
        masks = self.leak + (1.0 - self.leak) * passed(pushes, draws)
        step.push(masks.float())
        return weights * masks.mean(dim=1)


def passed(gradients: Tensor, draws: Tensor) -> Tensor:
    """`[T, K]` gradients and `[K]` draws → 1 where GradDrop lets one through, else 0."""
    purity = 0.5 * (1.0 + gradients.sum(dim=0) / gradients.abs().sum(dim=0).clamp(min=1e-300))
    return torch.where(gradients > 0, purity > draws, purity < draws).double()
