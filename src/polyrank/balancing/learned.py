"""Loss weighting with weights that are learnt by gradients of their own: UW, IMTL-L, FAMO, GradNorm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from polyrank.balancing.step import Scope, Step
from polyrank.balancing.streams import Adam, Average, Reference, zeros
from polyrank.balancing.weighting import LossWeighting, ScaledConfig, positive


@dataclass(frozen=True)
class LearnedScaleConfig:
    """The papers give neither; the learning rate is the one GradNorm's authors used for UW.

    Attributes:
        learning_rate: Adam's, of s.
        bound: s stays in [−bound, bound]: it is cut off after the update, where it can come back.
    """

    learning_rate: Annotated[float, Gt(0)] = 0.025
    bound: Annotated[float, Gt(0)] = 20.0


@dataclass(frozen=True)
class UncertaintyConfig(LearnedScaleConfig):
    """Both of the paper's forms.

    Attributes (and `LearnedScaleConfig`'s):
        form: of the likelihood: `classification` or `regression`; they differ in where weights start (1 or ½), not in
            where they settle (1/(2L)).
    """

    form: Literal["classification", "regression"] = "classification"


class _LearnedScale(LossWeighting):
    """s `[T]`, 0 at first, moved by Adam for the tasks present alone."""

    def __init__(self, tasks: Sequence[str], config: LearnedScaleConfig) -> None:
        super().__init__(tasks, scales=zeros(len(tasks)))
        self.adam, self.bound = Adam(self.memory, "scales", config.learning_rate), config.bound

    def move(self, gradient: Tensor, here: Tensor) -> None:
        self.adam.step(gradient, here)
        self.memory["scales"].clamp_(-self.bound, self.bound)


class Uncertainty(_LearnedScale):
    """Losses divided by a learnt noise level (homoscedastic uncertainty).

    classification: e^(−s) L + s/2; regression: (e^(−s) L + s)/2; s = log σ² is learnt. Settles at w_t = 1/(2 L_t), and
    may go above 1 on the way: s may be negative.

    Cost: none.
    When: losses of different units and noise.
    Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018.
    Departures: s has an optimiser of its own, and a task without rows keeps its s.
    """

    def __init__(self, tasks: Sequence[str], config: UncertaintyConfig) -> None:
        super().__init__(tasks, config)
        self.factor = 1.0 if config.form == "classification" else 0.5

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """The weights before this step's update of s."""
        weights = self.factor * torch.exp(-self.memory["scales"][here])
        self.move(0.5 - weights * losses, here)
        return weights


@dataclass(frozen=True)
class IMTLLConfig(LearnedScaleConfig):
    """Attributes: see `LearnedScaleConfig`."""


class IMTLL(_LearnedScale):
    """Losses scaled by learnt factors until all are equal (IMTL-L).

    e^s L − s, s learnt: settles at w_t = 1/L_t. It is twice the regression form of `uncertainty` with the sign of s
    turned.

    Cost: none.
    When: losses of different units; starts at equal weights.
    Source: Liu et al., Towards Impartial Multi-task Learning, ICLR 2021.
    Departures: as of `uncertainty`.
    """

    def __init__(self, tasks: Sequence[str], config: IMTLLConfig) -> None:
        super().__init__(tasks, config)

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """The weights before this step's update of s."""
        weights = torch.exp(self.memory["scales"][here])
        self.move(weights * losses - 1.0, here)
        return weights


@dataclass(frozen=True)
class FAMOConfig(ScaledConfig):
    """The authors' values; they update at every step, which costs a forward pass each.

    Attributes (and `ScaledConfig`'s):
        learning_rate: Adam's, of ξ.
        decay: γ, of ξ.
        every: the steps after which ξ is updated.
    """

    learning_rate: Annotated[float, Gt(0)] = 0.025
    decay: Annotated[float, Ge(0)] = 1e-3
    every: Annotated[int, Gt(0)] = 10


class FAMO(LossWeighting):
    """All losses fall at the same relative speed, seen from the losses before and after a step alone.

    w_t = c z_t / L_t, z = softmax(ξ), 1/c = Σ z_t / L_t. After the update the same batch is looked at again, and ξ
    moves against z ⊙ (δ − Σ z δ), δ_t = log L_t before − log L_t after.

    Cost: a forward pass at every `every`-th step.
    When: you want MGDA's fairness at the price of a loss weighting.
    Source: Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023.
    Departures: the second look takes place every `every` steps (1 is the paper's), with the same dropout.
    """

    def __init__(self, tasks: Sequence[str], config: FAMOConfig) -> None:
        count = len(tasks)
        super().__init__(tasks, logits=zeros(count), before=zeros(count), steps=torch.zeros((), dtype=torch.float64))
        self.adam = Adam(self.memory, "logits", config.learning_rate, config.decay)
        self.every, self.scale = config.every, config.scale

    @property
    def again(self) -> bool:  # type: ignore[override]
        """At every `every`-th step."""
        return bool((self.memory["steps"] + 1) % self.every == 0) and len(self.tasks) > 1

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """Weights that sum to 1."""
        losses = positive(losses, "famo", self.tasks, here)
        self.memory["before"][here] = losses
        self.memory["steps"] = self.memory["steps"] + 1.0
        weights = torch.softmax(self.memory["logits"][here], dim=0) / losses
        return weights / weights.sum()

    def after(self, losses: Tensor, present: Tensor) -> None:
        """Move ξ by how far each task's log loss has come."""
        here = present.nonzero().squeeze(1)
        if len(here):
            progress = (self.memory["before"][here] / positive(losses[here].double(), "famo", self.tasks, here)).log()
            shares = torch.softmax(self.memory["logits"][here], dim=0)
            self.adam.step(shares * (progress - (shares * progress).sum()), here)


@dataclass(frozen=True)
class GradNormConfig:
    """The paper's values.

    Attributes:
        restoring: α: how strongly a task that lags behind is pulled along; 0 equalises gradient norms.
        learning_rate: Adam's, of the logarithms of the weights.
        reference_steps: the labelled steps over which a task's starting loss L(0) is averaged; weights rest meanwhile.
        half_life: of the average of the present loss, in labelled steps; 0 for the batch's own.
        gradient_scope: where norms are measured: at the output of the last shared layer (`representation`), or at all
            shared dense parameters.
    """

    restoring: Annotated[float, Ge(0)] = 1.5
    learning_rate: Annotated[float, Gt(0)] = 0.025
    reference_steps: Annotated[int, Gt(0)] = 10
    half_life: Annotated[float, Ge(0)] = 10.0
    gradient_scope: Scope = "representation"


class GradNorm(LossWeighting):
    """Gradient norms are steered to a target of each task's own: larger where it lags behind.

    G_t = w_t ‖∇L_t‖ on the last shared layer; target Ḡ r_t^α, r_t = (L_t / L_t(0)) / its mean. The weights alone
    descend Σ_t |G_t − target_t|, targets held fixed: ∂/∂w_t = sign(G_t − target_t) ‖∇L_t‖. Then Σ w = T.

    Cost: the norms; next to nothing at the representation.
    When: gradients of very different size, tasks that learn at different speeds.
    Source: Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing, ICML 2018.
    Departures: norms at the last shared layer's output (the paper: at its weights); L(0) and L are averages over steps;
        log w descends instead of w, so that weights stay positive and may settle powers of ten apart.
    """

    def __init__(self, tasks: Sequence[str], config: GradNormConfig) -> None:
        super().__init__(tasks, logs=zeros(len(tasks)))
        self.config, self.scale = config, "tasks"
        self.reference = Reference(self.memory, "reference", len(tasks), config.reference_steps)
        self.average = Average(self.memory, "average", len(tasks), config.half_life)
        self.adam = Adam(self.memory, "logs", config.learning_rate)

    def weigh(self, losses: Tensor, here: Tensor, step: Step) -> Tensor:
        """The weights so far."""
        return self.memory["logs"][here].exp()

    def pulled(self, step: Step, weights: Tensor, here: Tensor) -> None:
        """Move the weights of the tasks present, whose sum stays what it is."""
        if len(self.tasks) == 1 or not len(here):
            return
        losses = positive(step.losses[here].double(), "gradnorm", self.tasks, here)
        ready = len(here) > 1 and bool(self.reference.settled(here).all())
        rates = self.average.add(losses, here) / self.reference.add(losses, here)
        if not ready:
            return
        norms = step.gramian(self.config.gradient_scope).diagonal()[here].clamp(min=0).sqrt()
        if not (torch.isfinite(norms).all() and norms.sum() > 0):
            return
        logs = self.memory["logs"]
        before = torch.logsumexp(logs[here], dim=0)
        slopes = gradnorm_slopes(norms / norms.mean(), weights[here], rates, self.config.restoring)
        self.adam.step(slopes * weights[here], here)
        logs[here] += before - torch.logsumexp(logs[here], dim=0)


def gradnorm_slopes(weighted_norms: Tensor, weights: Tensor, rates: Tensor, alpha: float) -> Tensor:
    """∂/∂w of Σ_t |G_t − Ḡ r_t^α|, `[S]`: G_t = w_t n_t, r_t = rate_t / mean rate, targets held fixed."""
    target = weighted_norms.mean() * (rates / rates.mean()) ** alpha
    return torch.sign(weighted_norms - target) * weighted_norms / weights
