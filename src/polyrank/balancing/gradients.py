"""What gradient methods have in common, and those that look for a direction that suits every task.

All see the Gramian of the tasks' gradients over the shared part and answer with a weight for each. T tasks, S of them
present in a step with a gradient that is not zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting, IMTLGWeighting

from polyrank.balancing.memory import Memory, by_task
from polyrank.balancing.solvers import (
    bargained,
    conflict_averse,
    cosines,
    into_dual_cone,
    least_norm,
    length,
    norms,
    onto_simplex,
)
from polyrank.balancing.step import Scope, Step
from polyrank.balancing.weighting import ScaledConfig, scaled

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GradientConfig(ScaledConfig):
    """What gradient methods have in common.

    Attributes (and `ScaledConfig`'s):
        gradient_scope: where gradients are compared: at the outputs of the last shared experts (`representation`, all
            but free), or at all shared dense parameters (`parameters`, a backward pass a task).
        every: the steps for which weights are kept; they are worked out anew whenever other tasks are present.
    """

    gradient_scope: Scope = "representation"
    every: Annotated[int, Gt(0)] = 1


class GradientMethod(Memory, ABC):
    """Shared parameters and embeddings receive Σ_t w_t ∇L_t; a task's own ones its own gradient, unweighted.

    A task without rows is left out, and so is one whose gradient is exactly 0 (its weight, which changes nothing, is
    1): the others are solved for as if it did not exist, and what is remembered of it stays. One task alone is trained
    plainly.
    """

    combines = True

    def __init__(self, tasks: Sequence[str], config: GradientConfig, **remembered: Any) -> None:
        count = len(tasks)
        weights = torch.ones(count, dtype=torch.float64)
        solved = torch.zeros(count, dtype=torch.bool)
        super().__init__(tasks, weights=weights, solved=solved, age=torch.zeros((), dtype=torch.int64), **remembered)
        self.scope, self.scale, self.every = config.gradient_scope, config.scale, config.every

    def backward(self, step: Step) -> Tensor:
        """Own gradients to own parameters, the combination to shared ones; the weights `[T]`."""
        scale = self.pulled_by(step)
        step.pull(scale)
        weights = self.weights(step)
        step.push(weights.float())
        return weights if scale is None else weights * scale

    def pulled_by(self, step: Step) -> Tensor | None:
        """The scale `[T]` with which the losses are differentiated; None for ones."""
        return None

    def weights(self, step: Step) -> Tensor:
        """`[T]` float64, 0 for an absent task."""
        present = step.present
        if len(self.tasks) == 1 or int(present.sum()) < 2:
            return present.double()
        age = self.memory["age"]
        if int(age) % self.every == 0 or not torch.equal(self.memory["solved"], present):
            self.memory["weights"], self.memory["solved"] = self._solved(step), present.clone()
            age = torch.zeros_like(age)
        self.memory["age"] = age + 1
        return self.memory["weights"]

    def _solved(self, step: Step) -> Tensor:
        weights = step.present.double()
        gramian = step.gramian(self.scope)
        able = step.present & (gramian.diagonal() > 0)
        here = able.nonzero().squeeze(1)
        # A gradient that is not finite is not ours to hide: the loop looks at the losses and stops.
        if len(here) > 1 and bool(torch.isfinite(gramian).all()):
            part = gramian[here][:, here].numpy()
            answer = torch.from_numpy(np.ascontiguousarray(self.solve(part, step.losses[here].double().numpy(), here)))
            weights[here] = scaled(answer, self.scale)
        return weights

    @abstractmethod
    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """Weights `[S]` from the Gramian `[S, S]` (positive diagonal) and losses `[S]` of the tasks numbered `here`."""


@dataclass(frozen=True)
class MGDAConfig(GradientConfig):
    """Attributes: see `GradientConfig`."""


class MGDA(GradientMethod):
    """The shortest vector in the convex hull of the tasks' gradients.

    w = argmin ‖Σ w_t g_t‖², w ≥ 0, Σ w = 1: zero at a Pareto-stationary point, else a descent direction for all.

    Cost: the Gramian and a non-negative least-squares problem.
    When: no task may ever get worse. Favours the task with the smallest gradient.
    Source: Désidéri, C. R. Math. 2012; Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS
        2018 (MGDA-UB at the representation).
    Departures: solved exactly; torchjd's Frank-Wolfe stops at three digits.
    """

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The least-norm point."""
        return least_norm(gramian)


@dataclass(frozen=True)
class PELTRConfig(GradientConfig):
    """Bounds are the user's.

    Attributes (and `GradientConfig`'s):
        bounds: c_k, the least weight of a task by its name, 0 where not given; their sum must stay below 1.
        solver: `exact`, or `projection`: the paper's relaxation and projection, which is not always the optimum.
    """

    bounds: Mapping[str, Annotated[float, Interval(ge=0, lt=1)]] = field(default_factory=dict)
    solver: Literal["exact", "projection"] = "exact"


class PELTR(GradientMethod):
    """MGDA with a least weight for each task (Pareto-efficient learning to rank).

    w = argmin ‖Σ w_t g_t‖², w ≥ c, Σ w = 1.

    Cost: as of MGDA.
    When: business goals set a floor for some tasks.
    Source: Lin et al., A Pareto-Efficient Algorithm for Multiple Objective Optimization in E-Commerce Recommendation,
        RecSys 2019 (structure from public code: we could not read the paper).
    Departures: solved exactly by default.
    """

    def __init__(self, tasks: Sequence[str], config: PELTRConfig) -> None:
        super().__init__(tasks, config)
        self.bounds = by_task(config.bounds, tasks, 0.0, "bounds")
        if self.bounds.sum() >= 1.0:
            raise ValueError(f"bounds must sum to less than 1. Received: {float(self.bounds.sum()):g}")
        self.exact = config.solver == "exact"

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The least-norm point above the bounds."""
        bounds = self.bounds[here].numpy()
        if self.exact:
            return least_norm(gramian, bounds)
        count, gramian = len(gramian), gramian / gramian.trace() * len(gramian)
        system = np.ones((count + 1, count + 1))
        system[:count, :count], system[count, count] = gramian, 0.0
        aim = np.append(-gramian @ bounds, 1.0 - bounds.sum())
        relaxed = np.linalg.lstsq(system, aim, rcond=None)[0][:count]
        return np.asarray(bounds + onto_simplex(relaxed, 1.0 - bounds.sum()))


@dataclass(frozen=True)
class CAGradConfig(GradientConfig):
    """The values of the authors' library.

    Attributes (and `GradientConfig`'s):
        radius: c: how far the direction may be from the mean gradient, relative to its length; 0 for the mean.
        rescale: the direction is divided by 1 + c² (1), 1 + c (2) or not at all (0).
    """

    radius: Annotated[float, Ge(0)] = 0.5
    rescale: Literal[0, 1, 2] = 1


class CAGrad(GradientMethod):
    """The direction near the mean gradient whose worst task gains most (conflict-averse gradient descent).

    max_d min_t g_tᵀd with ‖d − g_0‖ ≤ c ‖g_0‖: d = g_0 + (c ‖g_0‖ / ‖g_w‖) g_w, w = argmin g_wᵀg_0 + c ‖g_0‖ ‖g_w‖.

    Cost: the Gramian and about ten small least-squares problems.
    When: tasks conflict, and the mean loss should still converge.
    Source: Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021.
    Departures: solved exactly by a search for ‖g_w‖; torchjd's returns zeros for gradients below its epsilon.
    """

    def __init__(self, tasks: Sequence[str], config: CAGradConfig) -> None:
        super().__init__(tasks, config)
        self.radius = config.radius
        self.shrink = {0: 1.0, 1: 1.0 + config.radius**2, 2: 1.0 + config.radius}[config.rescale]

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """Coefficients of g_0 and g_w together."""
        count = len(gramian)
        mean = np.full(count, 1.0 / count)
        inner = conflict_averse(gramian, self.radius)
        reach = length(inner, gramian)
        weights: Array = mean.copy()
        if reach > 1e-12 * norms(gramian).max():  # else nothing helps every task: the mean is as good as any
            weights += self.radius * length(mean, gramian) / reach * inner
        return weights / self.shrink


@dataclass(frozen=True)
class UPGradConfig(GradientConfig):
    """Attributes: see `GradientConfig`."""


class UPGrad(GradientMethod):
    """Each gradient projected onto the directions that hurt no task, then their mean.

    w = mean over i of argmin vᵀGv, v ≥ e_i: the projection of g_i onto {d: g_tᵀd ≥ 0 for all t}.

    Cost: the Gramian and T small least-squares problems.
    When: tasks conflict; deterministic, no task is hurt, and without conflict it is the mean.
    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, arXiv 2406.16232.
    Departures: exact, without torchjd's ridge and epsilon, which break the guarantee for gradients of very different
        size and switch the method off for small ones.
    """

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The mean of the projections' coefficients."""
        return np.asarray(into_dual_cone(gramian).mean(axis=0))


@dataclass(frozen=True)
class BargainConfig(GradientConfig):
    """The authors' cut.

    Attributes (and `GradientConfig`'s):
        max_norm: with `scale = "paper"`, the combined gradient is cut to this norm (at the scope); 0 for no cut.
    """

    max_norm: Annotated[float, Ge(0)] = 1.0


@dataclass(frozen=True)
class FairGradConfig(BargainConfig):
    """Attributes (and `BargainConfig`'s): `alpha`: α; 1 is Nash-MTL, towards ∞ the worst-off task decides."""

    alpha: Annotated[float, Gt(0)] = 2.0


@dataclass(frozen=True)
class NashMTLConfig(BargainConfig):
    """Attributes: see `BargainConfig`; the authors advise gradients of parameters, and `every` > 1 to save time."""


class _Bargain(GradientMethod):
    """w > 0 with (G w)_t = w_t^(−1/α)."""

    def __init__(self, tasks: Sequence[str], config: BargainConfig, alpha: float) -> None:
        super().__init__(tasks, config)
        self.alpha, self.max_norm = alpha, config.max_norm

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The bargain, cut to the largest norm."""
        weights = bargained(gramian, self.alpha)
        size = length(weights, gramian)
        return weights * (self.max_norm / size) if 0 < self.max_norm < size else weights


class NashMTL(_Bargain):
    """The Nash bargaining solution: relative gains of all tasks have the largest product.

    w > 0 with G w = 1/w: the direction does not depend on the size of any gradient.

    Cost: the Gramian and about eight Newton steps of size T.
    When: gradients of very different size, tasks that conflict.
    Source: Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022.
    Departures: Newton's method instead of a sequence of convex programs; a ridge of 10⁻⁹ on the cosines, for opposite
        gradients leave no finite bargain; rescaled to `tasks` by default, for ‖Σ w_t g_t‖ = √T whatever the gradients.
    """

    def __init__(self, tasks: Sequence[str], config: NashMTLConfig) -> None:
        super().__init__(tasks, config, 1.0)


class FairGrad(_Bargain):
    """A bargain between the sum of gains and the gain of the worst-off (α-fairness).

    w > 0 with (G w)_t = w_t^(−1/α).

    Cost: as of Nash-MTL.
    When: as Nash-MTL, with a knob for fairness.
    Source: Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024.
    Departures: as of Nash-MTL.
    """

    def __init__(self, tasks: Sequence[str], config: FairGradConfig) -> None:
        super().__init__(tasks, config, config.alpha)


@dataclass(frozen=True)
class IMTLGConfig(GradientConfig):
    """Attributes: see `GradientConfig`."""


class IMTLG(GradientMethod):
    """The direction with equal projections on all tasks' unit gradients (IMTL-G).

    w ∝ D⁻¹ C⁺ 1, Σ w = 1: torchjd's `IMTLGWeighting` on the cosines C. Weights may be negative.

    Cost: the Gramian and a T × T pseudo-inverse.
    When: gradients of different size and no strong conflict.
    Source: Liu et al., Towards Impartial Multi-task Learning, ICLR 2021.
    Departures: where Σ w < 0 the published normalisation turns the direction against every task; we divide by Σ |w|.
    """

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """Weights of the unit gradients, divided by the norms."""
        size = norms(gramian) / norms(gramian).max()
        units = IMTLGWeighting()(torch.from_numpy(cosines(gramian))).numpy()
        weights: Array = (units if units.any() else np.ones(len(size))) / size
        total, most = weights.sum(), np.abs(weights).sum()
        weights /= total if total > 1e-9 * most else most
        return weights


@dataclass(frozen=True)
class AlignedMTLConfig(GradientConfig):
    """The paper's length.

    Attributes (and `GradientConfig`'s):
        length: the singular value that all are set to: the least (`min`), the `median`, or the root mean (`rmse`).
    """

    length: Literal["min", "median", "rmse"] = "min"


class AlignedMTL(GradientMethod):
    """The gradients made orthogonal and equally long with as little change as possible.

    w = √λ V Λ^(−1/2) Vᵀ 1/T, G = V Λ Vᵀ, λ its least eigenvalue that is not 0: torchjd's `AlignedMTLWeighting`.

    Cost: the Gramian and a T × T eigendecomposition.
    When: one task dominates or two nearly coincide; steps become small where tasks are nearly collinear.
    Source: Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023.
    Departures: the Gramian is divided by its trace first, which changes nothing but rounding.
    """

    def __init__(self, tasks: Sequence[str], config: AlignedMTLConfig) -> None:
        super().__init__(tasks, config)
        self.weighting = AlignedMTLWeighting(scale_mode=config.length)

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The weights of torchjd, in float64."""
        found: Array = self.weighting(torch.from_numpy(gramian / gramian.trace())).numpy()
        return found
