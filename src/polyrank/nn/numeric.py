"""Numbers as vectors: piecewise-linear and periodic encodings, each with its own linear layer per feature.

Gorishniy, Rubachev & Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022.
B rows, D numbers, J bins, K frequencies, N width of the result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

Encoding = Literal["scaled", "piecewise", "periodic"]


@dataclass(frozen=True)
class NumberConfig:
    """`[model.number]`: what stands for a number beside the embedding of its quantile bin.

    Attributes:
        encoding: `scaled`: the scaled value alone; `piecewise`: linear within each quantile bin; `periodic`: cosines
            and sines of learned frequencies.
        width: N, of the vector that either gives for each number.
        frequencies: K, of `periodic`.
        frequency_scale: the standard deviation that frequencies start from: the key knob of `periodic`, to be searched
            on a logarithmic scale.
    """

    encoding: Encoding = "scaled"
    width: Annotated[int, Gt(0)] = 12
    frequencies: Annotated[int, Gt(0)] = 48
    frequency_scale: Annotated[float, Gt(0)] = 0.01


class Piecewise(nn.Module):
    """z = x·w₀ + b₀ + PLE(x) W, each feature with its own w₀, b₀ and W (the package's version B; W starts at zero).

    PLE(x)_j = (x − b_{j−1}) / (b_j − b_{j−1}), cut off at 0 and 1; the first bin is not cut off at 0 and the last one
    not at 1, so that values beyond the edges stay apart. Edges are the inner quantiles of the training data; a number
    with fewer than two has the single bin [−1, 1] of its scaled value.

    Args:
        edges: `[D]` sequences of increasing b₀ < … < b_J, scaled as x is.
        config: the knobs.
    """

    lower: Tensor
    span: Tensor
    least: Tensor
    most: Tensor
    real: Tensor

    def __init__(self, edges: Sequence[Sequence[float]], config: NumberConfig) -> None:
        super().__init__()
        known = [sorted(set(own)) if len(set(own)) > 1 else [-1.0, 1.0] for own in edges]
        bins = max(len(own) for own in known) - 1
        lower, span = torch.zeros(len(known), bins), torch.ones(len(known), bins)
        least, most = torch.zeros(len(known), bins), torch.ones(len(known), bins)
        real = torch.zeros(len(known), bins)
        for row, own in enumerate(known):
            cuts = torch.tensor(own, dtype=torch.float64)
            own_bins = len(own) - 1
            lower[row, :own_bins], span[row, :own_bins] = cuts[:-1].float(), cuts.diff().float()
            least[row, 0], most[row, own_bins - 1], real[row, :own_bins] = -math.inf, math.inf, 1.0
        for name, value in (("lower", lower), ("span", span), ("least", least), ("most", most), ("real", real)):
            self.register_buffer(name, value, persistent=False)
        self.linear = nn.Parameter(torch.empty(len(known), config.width).uniform_(-1.0, 1.0))
        self.bias = nn.Parameter(torch.empty(len(known), config.width).uniform_(-1.0, 1.0))
        self.weight = nn.Parameter(torch.zeros(len(known), bins, config.width))

    def encode(self, x: Tensor) -> Tensor:
        """PLE: `[B, D]` → `[B, D, J]`, 0 in bins that a feature does not have."""
        parts = (x.unsqueeze(2) - self.lower) / self.span
        return torch.clamp(parts, self.least, self.most) * self.real

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[B, D, N]`."""
        bent = torch.bmm(self.encode(x).transpose(0, 1), self.weight).transpose(0, 1)
        return x.unsqueeze(2) * self.linear + self.bias + bent


class Periodic(nn.Module):
    """z = ReLU([cos v; sin v] W + b), v = 2π c ⊙ x, each feature with its own frequencies c, W and b (PLR).

    c starts from N(0, scale²), cut off at three scales.

    Args:
        numbers: D.
        config: the knobs.
    """

    def __init__(self, numbers: int, config: NumberConfig) -> None:
        super().__init__()
        scale, waves = config.frequency_scale, config.frequencies
        self.frequencies = nn.Parameter(torch.empty(numbers, waves))
        nn.init.trunc_normal_(self.frequencies, 0.0, scale, -3.0 * scale, 3.0 * scale)
        bound = (2 * waves) ** -0.5
        self.weight = nn.Parameter(torch.empty(numbers, 2 * waves, config.width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(numbers, config.width).uniform_(-bound, bound))

    def encode(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[B, D, 2K]`: cosines, then sines."""
        angles = 2.0 * math.pi * self.frequencies * x.unsqueeze(2)
        return torch.cat([torch.cos(angles), torch.sin(angles)], dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[B, D, N]`."""
        waves = torch.bmm(self.encode(x).transpose(0, 1), self.weight).transpose(0, 1)
        return torch.relu(waves + self.bias)
