"""MMoE: common experts, a gate per task.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, ExpertGroup, GateWeights, mix


@dataclass(frozen=True)
class MMoEConfig:
    """The paper's synthetic study uses 8 one-layer experts of 16 units; these are wider, for real logs.

    Attributes:
        experts: E.
        widths: each expert's layers.
        dropout: the share of activations dropped after each layer.
    """

    experts: Annotated[int, Gt(0)] = 8
    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (64,)
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class MMoE(nn.Module):
    """f_t(x) = Σ_e g_t(x)_e · f_e(x), g_t(x) = softmax(W_t x) (section 4.2), W_t without bias.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
    """

    def __init__(self, in_width: int, tasks: int, config: MMoEConfig) -> None:
        super().__init__()
        self.tasks, self.experts = tasks, config.experts
        logits = tasks * config.experts
        self.group = ExpertGroup(in_width, config.experts, config.widths, gate_logits=logits, dropout=config.dropout)
        self.out_width = self.group.out_width

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[B, T, H]`."""
        weights, experts = self._run(x)
        return mix(weights, experts)

    def gates(self, x: Tensor) -> list[GateWeights]:
        """The T gates' weights over the E experts."""
        weights, _ = self._run(x)
        names = tuple((SHARED, index) for index in range(self.experts))
        return [GateWeights(1, task, names, weights[:, task]) for task in range(self.tasks)]

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gate weights `[B, T, E]` and expert outputs `[B, E, H]`."""
        experts, logits = self.group(x.unsqueeze(0))
        weights = torch.softmax(logits.reshape(len(x), self.tasks, self.experts), dim=2)
        return weights, experts[:, 0]
