"""Optimisers: AdamW for dense parameters, and updates of the touched rows of the embedding table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from polyrank.models.ranker import Ranker
from polyrank.nn.embeddings import Touched, kernels

Schedule = Literal["constant", "cosine", "one_cycle"]


class Rows(Protocol):
    """A table and the rows of it that the last batch touched: `Embeddings`, or what stands before them."""

    table: Tensor

    def touched(self) -> list[Touched]:
        """Rows and their gradients; the optimiser is about to move them."""


class LazyAdam:
    """Adam (Kingma & Ba, 2015) on the rows a batch touches; other rows and their moments stay as they are.

    m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², row ← row − lr·m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε), g the sum over the
    row's occurrences in the batch, t the number of steps of the optimiser (as in TensorFlow's LazyAdam), not the row's.

    Args:
        embeddings: whose table is updated.
        betas: β₁, β₂.
        epsilon: ε.
    """

    usual_rate: float | None = None  # that of the dense parameters

    def __init__(self, embeddings: Rows, *, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> None:
        self.embeddings, self.betas, self.epsilon = embeddings, betas, epsilon
        self.moment = torch.zeros_like(embeddings.table)
        self.variance = torch.zeros_like(embeddings.table)
        self.steps = 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the rows that the last forward pass took."""
        self.steps += 1
        first, second = self.betas
        root = math.sqrt(1 - second**self.steps)
        rate = learning_rate / (1 - first**self.steps)
        for touched in self.embeddings.touched():
            if kernels is None:
                self._step_plainly(touched, rate, root)
            else:
                arrays = _arrays(self.embeddings.table, self.moment, self.variance, touched)
                kernels.adam(*arrays, *_float32(1 - first, second, 1 - second, rate, root, self.epsilon))

    def _step_plainly(self, touched: Touched, rate: float, root: float) -> None:
        (first, second), rows, gradient = self.betas, touched.rows, touched.sums
        moment = self.moment.index_select(0, rows).lerp_(gradient, 1 - first)
        variance = self.variance.index_select(0, rows).mul_(second).addcmul_(gradient, gradient, value=1 - second)
        self.moment.index_copy_(0, rows, moment)
        self.variance.index_copy_(0, rows, variance)
        update = moment.div_(variance.sqrt_().div_(root).add_(self.epsilon)).mul_(-rate)
        self.embeddings.table.index_copy_(0, rows, self.embeddings.table.index_select(0, rows).add_(update))

    def state_dict(self) -> dict[str, Any]:
        """Moments and step count."""
        return {"moment": self.moment, "variance": self.variance, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.moment.copy_(state["moment"])
        self.variance.copy_(state["variance"])
        self.steps = int(state["steps"])


class RowwiseAdagrad:
    """Adagrad with one accumulator a row (as FBGEMM and TorchRec use): a = Σ_t mean(g²), row ← row − lr·g/(√a + ε).

    Needs W times less memory than Adam's moments.

    Args:
        embeddings: whose table is updated.
        epsilon: ε.
    """

    usual_rate: float | None = (
        0.05  # a step is at most the rate, and shrinks as a row is seen: Adam's would hardly move it
    )

    def __init__(self, embeddings: Rows, *, epsilon: float = 1e-8) -> None:
        self.embeddings, self.epsilon = embeddings, epsilon
        self.accumulator = torch.zeros(len(embeddings.table), 1)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the rows that the last forward pass took."""
        for touched in self.embeddings.touched():
            if kernels is None:
                self._step_plainly(touched, learning_rate)
            else:
                arrays = _arrays(self.embeddings.table, self.accumulator.view(-1), touched)
                kernels.adagrad(*arrays, *_float32(learning_rate, self.epsilon))

    def _step_plainly(self, touched: Touched, learning_rate: float) -> None:
        rows, gradient = touched.rows, touched.sums
        total = self.accumulator.index_select(0, rows).add_(gradient.square().mean(dim=1, keepdim=True))
        self.accumulator.index_copy_(0, rows, total)
        update = gradient.div(total.sqrt_().add_(self.epsilon)).mul_(-learning_rate)
        self.embeddings.table.index_copy_(0, rows, self.embeddings.table.index_select(0, rows).add_(update))

    def state_dict(self) -> dict[str, Any]:
        """The accumulators."""
        return {"accumulator": self.accumulator}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.accumulator.copy_(state["accumulator"])


EMBEDDING_OPTIMIZERS = {"adam": LazyAdam, "adagrad": RowwiseAdagrad}


class DenseAdam:
    """`torch.optim.AdamW`, its numbers and its state, without what its `step` asks anew every time.

    Torch's method looks for hooks, devices and kinds of numbers before it calls torch's kernel, every step anew. Here
    the kernel is called.

    Args:
        groups: as `torch.optim.AdamW` takes them.
        learning_rate: of the first step; later ones are written into `param_groups`.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], learning_rate: float) -> None:
        self._adam = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
        self._one = torch.ones(())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Torch's."""
        return self._adam.param_groups

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        moved = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        states = [[self._adam.state[parameter] for parameter in parameters] for parameters in moved]
        if not all(state for own in states for state in own):
            self._adam.step()  # which makes the states
            return
        for group, parameters, own in zip(self.param_groups, moved, states, strict=True):
            if not parameters:
                continue
            steps = [state["step"] for state in own]
            torch._foreach_add_(steps, [self._one] * len(steps))  # a number would be made a tensor for each
            torch._fused_adamw_(
                parameters, [p.grad for p in parameters], [state["exp_avg"] for state in own],
                [state["exp_avg_sq"] for state in own], [], steps, lr=group["lr"], beta1=group["betas"][0],
                beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False,
                maximize=False,
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Torch's."""
        return self._adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self._adam.load_state_dict(dict(state))


def dense_optimizer(ranker: Ranker, learning_rate: float, weight_decay: float) -> DenseAdam:
    """AdamW on everything but the embedding table; weights are decayed, but no biases, gains or mixing coefficients."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in ranker.dense_parameters():
        (decayed if name.endswith("weight") and weight_decay > 0 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return DenseAdam([group for group in groups if group["params"]], learning_rate)


def clip_norm(parameters: Sequence[nn.Parameter], highest: float) -> None:
    """Scale all gradients together so that their common norm is at most `highest` (`torch.nn.utils.clip_grad_norm_`).

    On a processor the norm can be looked at without waiting: most steps then need no pass over the gradients.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(torch.dot(flat, flat).item() for flat in (g.reshape(-1) for g in gradients)))
    if not norm <= highest:  # also where it is not a number: the loop will see that
        for gradient in gradients:
            gradient.mul_(highest / (norm + 1e-6))


def learning_rate_factor(step: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Factor on the learning rate at `step` (from 0) of `total`.

    It rises linearly to 1 over the first `warmup` share of the steps; then stays there, or falls to 0 along half a
    cosine. `one_cycle` (Smith & Topin 2018) rises along half a cosine from 1/25 and falls along half a cosine to
    1/250,000, as `torch.optim.lr_scheduler.OneCycleLR` does; momentum stays as it is.
    """
    warm = max(1, round(total * warmup))
    if schedule == "one_cycle":
        peak = warm - 1
        if step < peak:
            return _along_cosine(1 / 25, 1.0, step / peak)
        return _along_cosine(1.0, 1 / 250_000, (step - peak) / max(1, total - 1 - peak))
    if step < warm and warmup > 0:
        return (step + 1) / warm
    if schedule == "constant":
        return 1.0
    done = (step - warm) / max(1, total - warm) if warmup > 0 else step / max(1, total)
    return _along_cosine(1.0, 0.0, done)


def _along_cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def _arrays(*parts: Tensor | Touched) -> list[np.ndarray]:
    """Tensors, and what was touched, as the kernels take them."""
    tensors: list[Tensor] = []
    for part in parts:
        tensors += [part.rows, part.sums, part.starts, part.counts] if isinstance(part, Touched) else [part]
    return [tensor.numpy() for tensor in tensors]


def _float32(*values: float) -> list[np.float32]:
    with np.errstate(over="ignore"):  # a rate beyond float32 is infinite: the loop will see what comes of it
        return [np.float32(value) for value in values]
