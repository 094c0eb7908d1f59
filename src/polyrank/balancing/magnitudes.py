"""Gradient methods that remember gradients over steps: DB-MTL, MetaBalance, ExcessMTL, SDMGrad. S tasks present."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from torch import Tensor

from polyrank.balancing.gradients import GradientConfig, GradientMethod
from polyrank.balancing.memory import Memory
from polyrank.balancing.solvers import norms, onto_simplex
from polyrank.balancing.step import Step
from polyrank.balancing.streams import Average, Reference, zeros
from polyrank.balancing.weighting import ScaledConfig, positive, scaled

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DBMTLConfig(GradientConfig):
    """The paper searches β in 0.1, 0.5 and 0.9.

    Attributes (and `GradientConfig`'s):
        half_life: of the average of a task's gradient norm, in labelled steps; 0 for the batch's own (β = 0).
    """

    half_life: Annotated[float, Ge(0)] = 5.0


class DBMTL(GradientMethod):
    """Logarithms of losses, and gradients all made as long as the longest (dual balancing).

    g_t = ∇ log L_t; d = max_s ‖ĝ_s‖ · Σ_t g_t / ‖ĝ_t‖; a task's own parameters receive ∇ log L_t.

    Cost: the Gramian's diagonal.
    When: losses and gradients of very different size.
    Source: Lin et al., Dual-Balancing for Multi-Task Learning, arXiv 2308.12029.
    Departures: norms are averaged over steps (without bias), not vectors; rescaled to `tasks`, both 1 / L_t and the
        weights sum to the number of tasks.
    """

    def __init__(self, tasks: Sequence[str], config: DBMTLConfig) -> None:
        super().__init__(tasks, config)
        self.average = Average(self.memory, "norms", len(tasks), config.half_life)

    def pulled_by(self, step: Step) -> Tensor | None:
        """1 / L_t."""
        here = step.present.nonzero().squeeze(1)
        found = torch.ones(len(self.tasks), dtype=torch.float64)
        if len(self.tasks) > 1 and len(here):
            found[here] = scaled(1.0 / positive(step.losses[here].double(), "db_mtl", self.tasks, here), self.scale)
        return found.float()

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """The longest norm over each."""
        size = self.average.add(torch.from_numpy(norms(gramian)), here).numpy()
        found: Array = size.max() / size
        return found


@dataclass(frozen=True)
class MetaBalanceConfig(GradientConfig):
    """The authors' values.

    Attributes (and `GradientConfig`'s):
        target: the task that matters, by its name; the first where empty.
        relax: r: 0 leaves gradients as they are, 1 makes all as long as the target's.
        momentum: β of the running norms.
        which: gradients to change: those longer than the target's (`shrink`), shorter (`enlarge`), or `both`.
    """

    target: str = ""
    relax: Annotated[float, Interval(ge=0, le=1)] = 0.7
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    which: Literal["both", "shrink", "enlarge"] = "both"


class MetaBalance(GradientMethod):
    """Auxiliary gradients are brought towards the length of the target task's.

    m_t ← β m_t + (1 − β) ‖g_t‖; w_t = r m_target / m_t + 1 − r.

    Cost: the Gramian's diagonal.
    When: one task is what counts, and the others are there to help it.
    Source: He et al., MetaBalance, WWW 2022.
    Departures: one norm over the scope instead of one for each tensor; averages without bias; until the target has been
        seen all weights are 1.
    """

    def __init__(self, tasks: Sequence[str], config: MetaBalanceConfig) -> None:
        super().__init__(tasks, config)
        if config.target and config.target not in tasks:
            raise ValueError(f"target must name a task ({', '.join(tasks)}). Received: {config.target}")
        self.target = list(tasks).index(config.target) if config.target else 0
        self.relax, self.which, self.momentum = config.relax, config.which, config.momentum
        self.memory["norms"], self.memory["norms_steps"] = zeros(len(tasks)), zeros(len(tasks))

    def solve(self, gramian: Array, losses: Array, here: Tensor) -> Array:
        """As much of the way to the target's length as r says."""
        running, steps = self.memory["norms"], self.memory["norms_steps"]
        running[here] = self.momentum * running[here] + (1.0 - self.momentum) * torch.from_numpy(norms(gramian))
        steps[here] += 1.0
        if not steps[self.target]:
            return np.ones(len(gramian))
        mean = running / (1.0 - self.momentum**steps)
        ratio = (mean[self.target] / mean[here]).numpy()
        change = {"both": ratio > 0, "shrink": ratio < 1, "enlarge": ratio > 1}[self.which]
        found: Array = np.where(change, self.relax * ratio + 1.0 - self.relax, 1.0)
        return found


@dataclass(frozen=True)
class ExcessMTLConfig(ScaledConfig):
    """The step of the authors' config; their command line has 1.

    Attributes (and `ScaledConfig`'s):
        step: η of the weights.
        reference_steps: the labelled steps over which a task's starting excess is averaged; weights rest meanwhile.
        gradient_scope: as of `GradientConfig`.
    """

    step: Annotated[float, Gt(0)] = 0.01
    reference_steps: Annotated[int, Gt(0)] = 10
    gradient_scope: Literal["representation", "parameters"] = "representation"


class ExcessMTL(Memory):
    """More weight to tasks that are far from where they could be (excess risk), whatever their noise.

    S_t ← S_t + g_t², e_t = Σ g_t² / √S_t; w_t ← w_t exp(η e_t / e_t(0)), normalised.

    Cost: the gradients summed over rows, and squares of the same size for each task.
    When: tasks with label noise that pulls on methods which look at losses.
    Source: He et al., Robust Multi-Task Learning with Excess Risks, ICML 2024.
    Departures: gradients summed over rows at the representation; e(0) is a mean over steps. torchjd's first call uses
        an excess that is not divided by e(0).
    """

    combines = True

    def __init__(self, tasks: Sequence[str], config: ExcessMTLConfig) -> None:
        count = len(tasks)
        super().__init__(tasks, logits=zeros(count), squares=torch.zeros(count, 0, dtype=torch.float64))
        self.reference = Reference(self.memory, "excess", count, config.reference_steps)
        self.config = config

    def backward(self, step: Step) -> Tensor:
        """Own gradients to own parameters, Σ w_t g_t to shared ones; the weights `[T]`."""
        step.pull()
        weights = step.present.double()
        here = step.present.nonzero().squeeze(1)
        if len(self.tasks) > 1 and len(here):
            vectors = step.summed(1, self.config.gradient_scope)[0].double()[here]
            if bool(torch.isfinite(vectors).all()):
                self._move(vectors, here)
            shares = torch.softmax(self.memory["logits"][here], dim=0)
            weights[here] = scaled(shares, self.config.scale)
        step.push(weights.float())
        return weights

    def _move(self, vectors: Tensor, here: Tensor) -> None:
        """Take in gradients `[S, K]`; logits of the tasks present rise by η e / e(0), their log-sum-exp stays."""
        if self.memory["squares"].shape[1] != vectors.shape[1]:
            self.memory["squares"] = torch.zeros(len(self.tasks), vectors.shape[1], dtype=torch.float64)
        squares, logits = self.memory["squares"], self.memory["logits"]
        squares[here] += vectors.square()
        excess = (vectors.square() / squares[here].sqrt().clamp(min=1e-300)).sum(dim=1)
        # e(0) is complete after this step's; weights move from the next one on.
        ready = self.reference.settled(here)
        start = self.reference.add(excess, here)
        before = torch.logsumexp(logits[here], dim=0)
        rise = torch.where(ready & (start > 0), self.config.step * excess / start.clamp(min=1e-300), 0.0)
        moved = logits[here] + rise
        logits[here] = moved - torch.logsumexp(moved, dim=0) + before


@dataclass(frozen=True)
class SDMGradConfig(ScaledConfig):
    """The authors' values but for the learning rate: theirs (10) does not converge on the normalised matrix.

    Attributes (and `ScaledConfig`'s):
        pull: λ: how strongly the direction is drawn to the mean gradient.
        learning_rate: of the inner descent.
        momentum: of it.
        iterations: of it at each step; it goes on from the last step's weights.
        gradient_scope: as of `GradientConfig`.
    """

    pull: Annotated[float, Ge(0)] = 0.3
    learning_rate: Annotated[float, Gt(0)] = 0.3
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    iterations: Annotated[int, Gt(0)] = 20
    gradient_scope: Literal["representation", "parameters"] = "representation"


class SDMGrad(Memory):
    """MGDA drawn to the mean gradient, from two independent batches so that noise does not bias it.

    w = argmin over convex w of ½ ‖Σ (w_t + λ/T) g_t‖² by projected descent on w ↦ X (w + λ/T), X = J₁J₂ᵀ; the step
    takes (w + λ/T) / (1 + λ).

    Cost: the gradients summed over rows.
    When: small batches, MGDA wanted.
    Source: Xiao, Ban and Ji, Direction-oriented Multi-objective Learning, NeurIPS 2023.
    Departures: the two batches are the halves of one, their gradients summed over rows at the representation, and the
        update is on both.
    """

    combines = True

    def __init__(self, tasks: Sequence[str], config: SDMGradConfig) -> None:
        count = len(tasks)
        super().__init__(tasks, shares=torch.full((count,), 1.0 / count, dtype=torch.float64))
        self.config = config

    def backward(self, step: Step) -> Tensor:
        """Own gradients to own parameters, the combination to shared ones; the weights `[T]`."""
        step.pull()
        weights = step.present.double()
        here = step.present.nonzero().squeeze(1)
        if len(self.tasks) > 1 and len(here) > 1:
            first, second = step.summed(2, self.config.gradient_scope).double()[:, here]
            cross = (first @ second.T).numpy()
            weights[here] = scaled(torch.from_numpy(self._solved(cross, here)), self.config.scale)
        step.push(weights.float())
        return weights

    def _solved(self, cross: Array, here: Tensor) -> Array:
        """Weights `[S]`; the shares of the tasks present move, their sum stays."""
        total = float(self.memory["shares"][here].sum())
        shares = self.memory["shares"][here].numpy() / total if total > 0 else np.full(len(here), 1.0 / len(here))
        size = np.sqrt(cross.diagonal().clip(min=0.0)).mean()
        if size > 0 and np.isfinite(cross).all():
            shares = sdm_descent(cross / size**2, shares, self.config)
            self.memory["shares"][here] = torch.from_numpy(shares * total)
        return (shares + self.config.pull / len(here)) / (1.0 + self.config.pull)


def sdm_descent(cross: Array, shares: Array, config: SDMGradConfig) -> Array:
    """Projected descent with momentum from `shares` `[S]` on the simplex; X `[S, S]`, its diagonal's roots about 1."""
    preference = config.pull / len(shares)
    velocity = np.zeros(len(shares))
    for _ in range(config.iterations):
        velocity = config.momentum * velocity + cross @ (shares + preference)
        shares = onto_simplex(shares - config.learning_rate * velocity)
    return shares
