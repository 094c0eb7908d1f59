"""DSelect-k: gates that end with at most k experts, and can be trained by gradient all along.

Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to Multi-Task
Learning", NeurIPS 2021.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, GatedConfig, GateWeights, Level, mix
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.ownership import Owned


@dataclass(frozen=True)
class DSelectKConfig(GatedConfig):
    """Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        experts: n.
        selected: k, the most experts that a gate ends with.
        routing: `example`: gates depend on the row; `task`: on the task alone.
        gamma: γ, the width of the smooth step.
        entropy: λ, of the selectors' entropy. The authors' 1e-6 is on the sum over a batch; here it is on the mean.
    """

    experts: Annotated[int, Gt(0)] = 8
    selected: Annotated[int, Gt(0)] = 2
    routing: Literal["example", "task"] = "example"
    gamma: Annotated[float, Gt(0)] = 1.0
    entropy: Annotated[float, Ge(0)] = 1e-3


class DSelectK(nn.Module):
    """f_t = Σ_i w_ti e_i, w_t = Σ_j softmax(a_t)_j r_tj: k selectors r of one expert each, weighed against each other.

    With b_i the ⌈log₂ n⌉ binary digits of i, r_j(i) = Π_c S(z_jc) where b_ic = 1, 1 − S(z_jc) where it is 0. S is the
    smooth step of width γ: 0 below −γ/2, 1 above γ/2, −2t³/γ³ + 3t/(2γ) + ½ between, so that a selector can become
    exactly one expert. z and a are linear in x with a bias (`example`), or biases alone (`task`).

    The objective's penalty is, as means over the batch, λ times the entropy −Σ r ln(r + 1e-6) of all selectors, and,
    where n is no power of 2, 1 / Σ_i r(i) of each: some codes then belong to no expert. It concerns the last batch.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    codes: Tensor

    def __init__(self, in_width: int, tasks: int, config: DSelectKConfig, columns: InputColumns | None = None) -> None:
        super().__init__()
        self.tasks, self.experts, self.selected = tasks, config.experts, config.selected
        self.gamma, self.entropy = config.gamma, config.entropy
        self.level = Level(in_width, [(config.experts, 0)], [], config.widths, **config.style)
        self.out_width = self.level.out_width
        self.read = config.gate_columns(columns)
        digits = math.ceil(math.log2(config.experts))
        self.whole = config.experts == 2**digits
        numbers = torch.arange(config.experts)
        powers = 2 ** torch.arange(digits - 1, -1, -1)
        self.register_buffer("codes", (numbers[:, None] // powers) % 2 == 1, persistent=False)  # [n, digits]
        # For each task and selector its digits' z, then its a.
        bounds = torch.tensor([config.gamma / 100] * digits + [0.05]).repeat(tasks * config.selected)
        read = in_width if self.read is None else len(self.read)
        self.bias = nn.Parameter((2 * torch.rand(len(bounds)) - 1) * bounds)
        self.weight = None
        if config.routing == "example":
            self.weight = nn.Parameter((2 * torch.rand(read, len(bounds)) - 1) * bounds)
        self._selectors: Tensor | None = None

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        weights, selectors = self._weights(x)
        self._selectors = selectors if self.training and torch.is_grad_enabled() else None
        return mix(weights, self.level([x])[0])

    def _weights(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """The gates' weights `[T, B, n]`, and their selectors `[T, B, k, n]`."""
        logits = self.bias.expand(x.rows, -1)
        if self.weight is not None:
            read = x.written()
            logits = (read if self.read is None else read[:, self.read]) @ self.weight + self.bias
        by_selector = logits.float().view(x.rows, self.tasks, self.selected, -1).transpose(0, 1)
        steps = smooth_step(by_selector[..., :-1], self.gamma).unsqueeze(3)  # [T, B, k, 1, digits]
        selectors = torch.where(self.codes, steps, 1.0 - steps).prod(dim=4)
        shares = torch.softmax(by_selector[..., -1:], dim=2)
        return (shares * selectors).sum(dim=2), selectors

    def owned(self) -> Owned:
        """Each task's gate; experts are everyone's."""
        owners = torch.arange(self.tasks).repeat_interleave(len(self.bias) // self.tasks)
        return [(parameter, owners) for parameter in (self.bias, self.weight) if parameter is not None]

    def penalty(self) -> Tensor | None:
        """Of the last batch; None if there was none in training since it was last asked, or nothing is asked for."""
        selectors, self._selectors = self._selectors, None
        if selectors is None or (self.whole and not self.entropy):
            return None
        rows = selectors.shape[1]
        total = -self.entropy * (selectors * (selectors + 1e-6).log()).sum() / rows
        if not self.whole:
            total = total + (1.0 / selectors.sum(dim=3)).sum() / rows
        return total

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The T gates' weights over the n experts."""
        weights, _ = self._weights(x)
        names = tuple((SHARED, index) for index in range(self.experts))
        return [GateWeights(1, task, names, weights[task].detach()) for task in range(self.tasks)]


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """S(t) of width γ, elementwise."""
    t = t.clamp(-gamma / 2, gamma / 2)
    return -2.0 / gamma**3 * t**3 + 1.5 / gamma * t + 0.5
