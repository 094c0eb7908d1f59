"""Layers that every architecture is made of. B rows, G groups, D input width, H output width."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, TypedDict

import torch
from annotated_types import Gt, Interval, MinLen
from torch import Tensor, nn


class Style(TypedDict, total=False):
    """How hidden layers are made, besides their widths: keywords of whatever holds some (see `NetworkConfig`)."""

    dropout: float
    layer_norm: bool
    residual: bool


@dataclass(frozen=True)
class NetworkConfig:
    """What the hidden layers of experts, trunks and tasks' networks have in common.

    Attributes:
        widths: the layers' widths.
        dropout: the share of activations dropped after each layer.
        layer_norm: normalise each layer's sums over its units before ReLU (Ba et al. 2016).
        residual: add to a layer's output what it read, where both are equally wide (He et al. 2016).
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (64,)
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    layer_norm: bool = False
    residual: bool = False

    @property
    def style(self) -> Style:
        """All but the widths."""
        return {"dropout": self.dropout, "layer_norm": self.layer_norm, "residual": self.residual}


class Dropout(nn.Module):
    """Inverted dropout: in training each element is 0 with probability p, else x / (1 − p); nothing otherwise.

    `torch.nn.Dropout`, but several times faster on a processor: sixteen random bits an element, drawn from torch's
    generator four elements at a time, instead of one Bernoulli draw each. p is rounded to a multiple of 2⁻¹⁶.

    Args:
        p: in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = min(round(p * 65_536), 65_535)  # of the 2¹⁶ values that sixteen bits can take

    @property
    def active(self) -> bool:
        """Whether it does anything now."""
        return self.training and self.dropped > 0

    @property
    def scale(self) -> float:
        """What is kept is multiplied with it: 1 / (1 − p) in training, 1 otherwise."""
        return 65_536 / (65_536 - self.dropped) if self.training else 1.0

    def bits(self, shape: torch.Size) -> Tensor:
        """Sixteen random bits for each element, as int16: uniform on −2¹⁵ … 2¹⁵ − 1."""
        count = shape.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        return words.view(torch.int16)[:count].view(shape)

    def factors(self, bits: Tensor, dtype: torch.dtype) -> Tensor:
        """What each element is multiplied with: 0 or `scale`."""
        return (bits >= self.dropped - 32_768).to(dtype).mul_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the same shape."""
        return x * self.factors(self.bits(x.shape), x.dtype) if self.active else x


class StackedLinear(nn.Module):
    """G independent linear layers as one batched product: `y[g] = x[g] W[g] + b[g]`.

    Each `[D, H]` slice is initialised by itself, uniformly in ±√(3/D)·√2 (He et al. 2015, for ReLU): on the whole
    `[G, D, H]` tensor the fan-in would be taken as D·H and the weights would come out far too small.

    Args:
        groups: G.
        in_width: D.
        out_width: H.
        bias: whether there is a b, `[G, 1, H]`, zero at the start.
    """

    def __init__(self, groups: int, in_width: int, out_width: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = math.sqrt(6.0 / in_width)
        self.weight = nn.Parameter(torch.empty(groups, in_width, out_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(groups, 1, out_width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """`[G, B, D]` → `[G, B, H]`."""
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias, x, self.weight)


class StackedNorm(nn.Module):
    """Layer normalisation of G groups: (x − mean) / √(variance + ε) over the H units, times 1 + gain, plus bias.

    Ba et al., "Layer Normalization", 2016.

    Args:
        groups: G.
        width: H.
        epsilon: ε.
    """

    def __init__(self, groups: int, width: int, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(groups, 1, width))
        self.bias = nn.Parameter(torch.zeros(groups, 1, width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """`[G, B, H]` → `[G, B, H]`."""
        plain = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=self.epsilon)
        return torch.addcmul(self.bias, plain, 1.0 + self.gain)


class StackedBatchNorm(nn.Module):
    """Batch normalisation of G groups: like `StackedNorm`, but each unit over the batch, whose statistics are kept.

    In training by mean and variance of the batch, which move the kept ones by a tenth; otherwise, and for a batch of
    one row, by the kept ones. Ioffe & Szegedy, "Batch Normalization", 2015.

    Args:
        groups: G.
        width: H.
        epsilon: ε.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, groups: int, width: int, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(groups, 1, width))
        self.bias = nn.Parameter(torch.zeros(groups, 1, width))
        self.register_buffer("mean", torch.zeros(groups, 1, width))
        self.register_buffer("variance", torch.ones(groups, 1, width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """`[G, B, H]` → `[G, B, H]`."""
        mean, variance, rows = self.mean, self.variance, x.shape[1]
        if self.training and rows > 1:
            variance, mean = torch.var_mean(x.float(), dim=1, keepdim=True, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, 0.1)
                self.variance.lerp_(variance * (rows / (rows - 1)), 0.1)
        plain = (x - mean) * torch.rsqrt(variance + self.epsilon)
        return torch.addcmul(self.bias, plain, 1.0 + self.gain)


class StackedMLP(nn.Module):
    """G independent networks of the same shape, ReLU and dropout after every layer.

    Args:
        groups: G.
        in_width: D.
        widths: the layers' widths; empty for the identity.
        dropout: the share of activations dropped in training.
        layer_norm: normalise before ReLU.
        residual: add to a layer's output what it read, where both are equally wide.
    """

    def __init__(
        self,
        groups: int,
        in_width: int,
        widths: tuple[int, ...],
        *,
        dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        sizes = (in_width, *widths)
        self.layers = nn.ModuleList(StackedLinear(groups, inner, outer) for inner, outer in pairwise(sizes))
        self.norms = nn.ModuleList(StackedNorm(groups, width) for width in widths if layer_norm)
        self.residual = [residual and inner == outer for inner, outer in pairwise(sizes)]
        self.dropout = Dropout(dropout)
        self.out_width = sizes[-1]

    @property
    def plain(self) -> bool:
        """Whether it is nothing but products, biases, ReLU and dropout: what the compiled kernels can run."""
        return not self.norms and not any(self.residual)

    def forward(self, x: Tensor) -> Tensor:
        """`[G, B, D]` → `[G, B, H]`."""
        for number, (layer, add) in enumerate(zip(self.layers, self.residual, strict=True)):
            sums = self.norms[number](layer(x)) if self.norms else layer(x)
            out = self.dropout(torch.relu(sums))
            x = x + out if add else out
        return x
