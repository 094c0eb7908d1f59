"""DCN-v2: explicit crosses of the input with itself.

Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
WWW 2021. B rows, D input width, R rank, E experts.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn


@dataclass(frozen=True)
class CrossConfig:
    """`[model.cross]`: cross layers between the input and the architecture (the paper's stacked form).

    Attributes:
        layers: how many; 0 for none.
        rank: R; 0 for full matrices. The paper finds R ≈ D / 4 as good as full ones.
        experts: low-rank experts under a softmax gate (the paper's mixture, DCN-Mix); 1 for plain low rank. They need
            `rank`.
    """

    layers: Annotated[int, Ge(0)] = 0
    rank: Annotated[int, Ge(0)] = 64
    experts: Annotated[int, Gt(0)] = 1


class Cross(nn.Module):
    """x_{l+1} = x₀ ⊙ (W_l x_l + b_l) + x_l, from x₀ = x.

    Low rank: W = U Vᵀ. Mixture: x_{l+1} = Σ_i G_i(x_l)·x₀ ⊙ (U_i g(C_i g(V_iᵀ x_l)) + b) + x_l, g = tanh, G a softmax
    over experts, each layer's own (public implementations share it between layers).

    Args:
        width: D.
        config: the knobs.

    Raises:
        ValueError: experts without a rank.
    """

    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        if config.experts > 1 and not config.rank:
            raise ValueError(f"cross.experts need cross.rank. Received: {config.experts} experts of full rank")
        kind = _Mixture if config.experts > 1 else _LowRank if config.rank else _Full
        self.layers = nn.ModuleList(kind(width, config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[B, D]`."""
        crossed = x
        for layer in self.layers:
            crossed = x * layer(crossed) + crossed
        return crossed


class _Full(nn.Module):
    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(width, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class _LowRank(nn.Module):
    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.inner_weight = nn.Parameter(_uniform(width, config.rank))  # V
        self.outer_weight = nn.Parameter(_uniform(config.rank, width))  # Uᵀ
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.inner_weight @ self.outer_weight + self.bias


class _Mixture(nn.Module):
    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        shape = config.experts, config.rank
        self.inner_weight = nn.Parameter(_uniform(width, *shape))  # V
        self.core_weight = nn.Parameter(
            torch.stack([_uniform(config.rank, config.rank) for _ in range(config.experts)])
        )
        self.outer_weight = nn.Parameter(torch.stack([_uniform(config.rank, width) for _ in range(config.experts)]))
        self.gate_weight = nn.Parameter(torch.zeros(width, config.experts))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(torch.einsum("bd,der->ebr", x, self.inner_weight))
        hidden = torch.tanh(torch.bmm(hidden, self.core_weight))
        weights = torch.softmax(x @ self.gate_weight, dim=1)
        # Σ_i G_i = 1: the bias stands outside the sum.
        return torch.einsum("ebd,be->bd", torch.bmm(hidden, self.outer_weight), weights) + self.bias


def _uniform(inner: int, *outer: int) -> Tensor:
    """Weights of variance 1 / inner."""
    bound = (3.0 / inner) ** 0.5
    return torch.empty(inner, *outer).uniform_(-bound, bound)
