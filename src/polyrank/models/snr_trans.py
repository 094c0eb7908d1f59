"""SNR-Trans, sub-network routing: connections between sub-networks that are learned to be open or shut.

Ma, Zhao, Chen, Li, Hong, Chi, "SNR: Sub-Network Routing for Flexible Parameter Sharing in Multi-Task Learning", AAAI
2019; the gates are those of Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization",
ICLR 2018.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig, StackedMLP
from polyrank.nn.ownership import Owned, of_stack

LOW, HIGH = -0.1, 1.1
"""γ and ζ: the interval to which the concrete distribution is stretched before it is cut to [0, 1]."""


@dataclass(frozen=True)
class SNRTransConfig(NetworkConfig):
    """Numbers of sub-networks are tuned in the paper. Has the fields of `NetworkConfig` too: each sub-network's layers.

    Attributes:
        levels: levels of sub-networks.
        subnetworks: how many there are at each level.
        temperature: β of the hard concrete distribution (Louizos et al. use 2/3).
        strength: λ, on the expected number of open connections.
    """

    levels: Annotated[int, Gt(0)] = 2
    subnetworks: Annotated[int, Gt(0)] = 4
    temperature: Annotated[float, Gt(0)] = 2 / 3
    strength: Annotated[float, Ge(0)] = 1e-4


class Routes(nn.Module):
    """u_i = Σ_j z_ij v_j W_ij: J outputs of width H to I inputs of the same width.

    In training z = clip(s (ζ − γ) + γ, 0, 1), s = σ((ln u − ln(1 − u) + ln α) / β), with u uniform on (0, 1) drawn once
    a step; otherwise z = clip(σ(ln α) (ζ − γ) + γ, 0, 1). ln α is one number a connection and starts at 0.

    Args:
        sources: J.
        targets: I.
        width: H.
        temperature: β.
    """

    def __init__(self, sources: int, targets: int, width: int, temperature: float) -> None:
        super().__init__()
        bound = math.sqrt(3.0 / (sources * width))  # no ReLU follows: variance is kept
        self.weight = nn.Parameter(torch.empty(targets, sources, width, width).uniform_(-bound, bound))
        self.log_alpha = nn.Parameter(torch.zeros(targets, sources))
        self.temperature = temperature

    def connections(self, uniform: Tensor | None = None) -> Tensor:
        """z, `[I, J]`: of these u, or without noise."""
        if uniform is None:
            open_ = torch.sigmoid(self.log_alpha)
        else:
            noise = torch.logit(uniform, eps=1e-6)
            open_ = torch.sigmoid((noise + self.log_alpha) / self.temperature)
        return (open_ * (HIGH - LOW) + LOW).clamp(0.0, 1.0)

    def expected_open(self) -> Tensor:
        """Σ_ij P(z_ij > 0) = Σ_ij σ(ln α_ij − β ln(−γ / ζ))."""
        return torch.sigmoid(self.log_alpha - self.temperature * math.log(-LOW / HIGH)).sum()

    def forward(self, v: Tensor) -> Tensor:
        """`[J, B, H]` → `[I, B, H]`."""
        z = self.connections(torch.rand_like(self.log_alpha) if self.training else None)
        return torch.einsum("jbh,ijhk->ibk", v, self.weight * z[:, :, None, None])


class SNRTrans(nn.Module):
    """Sub-networks of x; at each further level sub-networks of what routes bring; at last routes to the T tasks.

    The objective's penalty is λ times the expected number of open connections.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
    """

    def __init__(self, in_width: int, tasks: int, config: SNRTransConfig) -> None:
        super().__init__()
        count, width = config.subnetworks, config.widths[-1]
        self.strength, self.out_width = config.strength, width
        self.first = Level(in_width, [(count, 0)], [], config.widths, **config.style)
        self.later = nn.ModuleList(
            StackedMLP(count, width, config.widths, **config.style) for _ in range(config.levels - 1)
        )
        targets = [count] * (config.levels - 1) + [tasks]
        self.routes: Any = nn.ModuleList(Routes(count, each, width, config.temperature) for each in targets)

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        outputs: Tensor = self.first([x])[0]
        for routes, subnetworks in zip(self.routes, self.later, strict=False):
            outputs = subnetworks(routes(outputs))
        last: Tensor = self.routes[-1](outputs)
        return last

    def owned(self) -> Owned:
        """The routes to each task."""
        return of_stack(self.routes[-1], range(len(self.routes[-1].weight)))

    def penalty(self) -> Tensor | None:
        """λ times the expected number of open connections; None where λ is 0."""
        if not self.strength:
            return None
        return self.strength * torch.stack([routes.expected_open() for routes in self.routes]).sum()

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none that mix: its connections are open or shut, the same for every row."""
        return []
