"""Layers of M networks side by side, forward and backward, for autograd functions that keep what they need themselves.

Where the processor can, compiled kernels run a layer in one pass (`polyrank.nn.kernels.products`); elsewhere torch's
products, with ReLU, bias and dropout in place. Under autocast activations are bf16, sums and gradients of parameters
float32. M networks, B rows, K inputs, H outputs of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyrank.nn.kernels import activations, products, scores
from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.layers import Dropout

_LARGEST = 2**16
"""Of a layer's weights: sums of their gradient, 256 KiB, still stay in a core's own cache. Larger ones are torch's."""


@dataclass
class Layer:
    """What a layer's forward pass leaves for its backward.

    Attributes:
        read: `[M, B, K]`, or `[G, M / G, B, K]`.
        weight: `[M, K, H]` float32.
        output: `[M, B, ≥ H]`, after ReLU and dropout.
        rectified: so many outputs pass a ReLU, the first ones.
    """

    read: Tensor
    weight: Tensor
    output: Tensor
    rectified: int


def forward(parameters: Sequence[Tensor], x: Tensor, dropout: Dropout) -> list[Layer]:
    """Layers on `[M, B, K]`, ReLU and dropout after each; `parameters` are weights and biases in turn, detached.

    The input may also be given as `[G, M / G, B, K]`.
    """
    layers = []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        layers.append(run(x, weight, bias[:, 0], dropout))
        x = layers[-1].output
    return layers


def backward(
    layers: Sequence[Layer], gradient: Tensor, scale: float, to: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """Gradients of `forward`'s parameters and input; the latter is written to `to` where given.

    Args:
        layers: what it left.
        gradient: `[M, B, H]` contiguous, of the last output; may be changed.
        scale: what dropout multiplied activations with.
        to: as what was read.
    """
    found: list[Tensor] = []
    for index in reversed(range(len(layers))):
        weight, bias, gradient = run_back(layers[index], gradient, scale, to if index == 0 else None)
        found = [weight, bias[:, None], *found]
    return found, gradient


def last(read: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A layer of one output for each of T tasks: `[T, B, H]`, `[T, H, 1]`, `[T, 1, 1]` → `[B, T]` float32."""
    tasks, rows, width = read.shape
    if width % LANES:
        return torch.baddbmm(bias, read.float(), weight)[:, :, 0].t()
    out = torch.empty(rows, tasks)
    scores.scores(held(read.contiguous()), weight[:, :, 0].numpy(), bias[:, 0, 0].numpy(), out.numpy())
    return out


def last_back(read: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `last`: of its weight, its bias, and what it read."""
    bias = gradient.sum(dim=0)[:, None, None]
    if read.shape[2] % LANES:
        gradient = gradient.t()[:, :, None]
        to = torch.bmm(gradient, weight.transpose(1, 2)).to(read.dtype)
        return torch.bmm(read.float().transpose(1, 2), gradient), bias, to
    to = torch.empty_like(read, memory_format=torch.contiguous_format)
    parts = torch.empty(-(-read.shape[1] // scores.CHUNK), len(read), read.shape[2])
    scores.scores_back(
        held(read.contiguous()), weight[:, :, 0].numpy(), gradient.contiguous().numpy(), held(to), parts.numpy()
    )
    return parts.sum(dim=0)[:, :, None], bias, to


def run(x: Tensor, weight: Tensor, bias: Tensor, dropout: Dropout) -> Layer:
    """A layer: `[M, B, K]`, `[M, K, H]` → `[M, B, ≥ H]`; those with a bias, `[M, ≤ H]`, pass a ReLU and dropout."""
    networks, _, width = weight.shape
    rectified = bias.shape[1]
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows = x.shape[-2]
    if _suits(x, weight, rectified):
        output = torch.empty(networks, rows, -(-width // LANES) * LANES, dtype=x.dtype)
        parameters = weight.contiguous().numpy(), bias.numpy()
        products.layer(rows, *_placed(x), *parameters, output.data_ptr(), kind(x))
    else:
        output = torch.bmm(x.reshape(networks, rows, -1), weight.to(x.dtype))
        rectify(output, bias)
    drop(output, rectified, dropout)
    return Layer(x, weight, output, rectified)


def run_back(layer: Layer, gradient: Tensor, scale: float, to: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight, bias and input; the latter is written to `to` where given.

    Args:
        layer: what `run` left.
        gradient: `[M, B, ≥ H]` contiguous, of its output; may be changed.
        scale: what dropout multiplied activations with.
        to: as what was read.
    """
    x, weight, output = layer.read, layer.weight, layer.output
    networks, inputs, width = weight.shape
    rows = x.shape[-2]
    if not _suits(x, weight, layer.rectified):
        bias = rectify_back(gradient, output, scale, layer.rectified)
        flat = None if to is None else to.reshape(networks, rows, inputs)  # a view, but for parts of several groups
        back = torch.bmm(gradient, weight.to(x.dtype).transpose(1, 2), out=flat)
        if to is None:
            to = back
        elif to.data_ptr() != back.data_ptr():
            to.copy_(back.view(to.shape))
        return product(x.reshape(networks, rows, inputs), gradient), bias, to
    to = torch.empty(networks, rows, inputs, dtype=x.dtype) if to is None else to
    own, bias = torch.empty(networks, inputs, width), torch.empty(networks, layer.rectified)
    products.layer_back(
        rows, *_placed(x), weight.contiguous().numpy(), output.data_ptr(), np.float32(scale), gradient.data_ptr(),
        *_placed(to), own.numpy(), bias.numpy(), kind(x),
    )  # fmt: skip
    return own, bias, to


def _suits(x: Tensor, weight: Tensor, rectified: int) -> bool:
    """Whether the kernels can run a layer, and faster than torch."""
    return (
        weight.shape[1] % LANES == 0
        and rectified % LANES == 0
        and weight.shape[1] * weight.shape[2] <= _LARGEST
        and products.able(half=x.dtype != torch.float32)
    )


def places(values: Tensor) -> tuple[list[int], int]:
    """Where each network's part of `[M, B, N]` or `[G, M / G, B, N]` begins, and by how many bytes rows stand apart."""
    *networks, _, _ = values.shape
    *apart, row, one = values.stride()
    assert one == 1
    size, starts = values.itemsize, [values.data_ptr()]
    for many, step in zip(networks, apart, strict=True):
        starts = [start + each * step * size for start in starts for each in range(many)]
    return starts, row * size


def _placed(values: Tensor) -> tuple[np.ndarray, int]:
    starts, apart = places(values)
    return np.array(starts, np.uint64), apart


def product(read: Tensor, gradient: Tensor) -> Tensor:
    """A layer's weight gradient, `[M, B, K]`ᵀ `[M, B, H]` → `[M, K, H]` float32.

    In bf16 the product's own transpose is computed: then the operand that has to be packed for the processor is the one
    that lies in rows.
    """
    if read.dtype == torch.float32:
        return torch.bmm(read.transpose(1, 2), gradient)
    return torch.bmm(gradient.transpose(1, 2), read).transpose(1, 2).float().contiguous()


def rectify(values: Tensor, bias: Tensor) -> None:
    """Add the bias `[M, H]` to the first H columns of `values [M, B, N]` and cut off what is negative, in place."""
    activations.rectify(held(values), bias.detach().numpy())


def drop(values: Tensor, width: int, dropout: Dropout) -> None:
    """Dropout on the first `width` columns of `values [M, B, N]`, in place."""
    if dropout.active:
        bits = dropout.bits(torch.Size((*values.shape[:2], width)))
        activations.drop(held(values), bits.numpy(), dropout.dropped, np.float32(dropout.scale))


def rectify_back(gradient: Tensor, values: Tensor, scale: float, width: int) -> Tensor:
    """The gradient under ReLU and dropout, in place, and its sum over rows: the bias' `[M, H]`."""
    chunks = -(-gradient.shape[1] // activations.CHUNK)
    partial = torch.empty(chunks, len(gradient), width)
    activations.rectify_back(held(gradient), held(values), np.float32(scale), partial.numpy())
    return partial.sum(dim=0)


def held(values: Tensor) -> Any:
    """As kernels take activations: float32, or bf16 as uint16."""
    return values.numpy() if values.dtype == torch.float32 else values.view(torch.uint16).numpy()


def kind(values: Tensor) -> Any:
    """A number as kernels take activations."""
    return np.float32(0) if values.dtype == torch.float32 else np.uint16(0)
