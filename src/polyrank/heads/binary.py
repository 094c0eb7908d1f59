"""The losses of binary tasks in one call: their means and all that the backward pass needs. B rows, T tasks.

By autograd they are some twenty operations on so few numbers that each takes longer to begin than to run.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polyrank.losses import binary_cross_entropy, masked_mean
from polyrank.nn.kernels import optional

kernels = optional("polyrank.nn.kernels.entropies")
_UNWEIGHTED = np.empty((0, 0), np.float32)


def mean_cross_entropies(logits: Tensor, labels: Tensor, where: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_t = Σ_b δ_b w_b ℓ(z_b, y_b) / Σ_b δ_b w_b: `masked_mean` of `binary_cross_entropy`.

    Its gradient δ w (σ(z) − y) / Σ δ w is made with it; it can be asked for again, but has no derivative of its own.

    Args:
        logits: `[B, T]` float32.
        labels: `[B, T]` float32; what stands where `where` is False changes nothing.
        where: `[B, T]` bool, δ.
        weights: `[B, T]` float32, w ≥ 0; None for 1.

    Returns:
        `[T]`; a task without a row gives 0 and no gradient. NaN where any of its logits is.
    """
    if kernels is None:
        return mean_cross_entropies_plainly(logits, labels, where, weights)
    losses: Tensor = _MeanCrossEntropies.apply(logits, labels, where, weights)  # type: ignore[no-untyped-call]
    return losses


def mean_cross_entropies_plainly(
    logits: Tensor, labels: Tensor, where: Tensor, weights: Tensor | None = None
) -> Tensor:
    """`mean_cross_entropies` in plain torch operations."""
    return masked_mean(binary_cross_entropy(logits, torch.where(where, labels, 0.0)), where, weights)


class _MeanCrossEntropies(torch.autograd.Function):
    """(logits `[B, T]`, labels, where, weights or None) → `[T]`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, where: Tensor, weights: Tensor | None) -> Tensor:
        assert kernels is not None
        read = [part.detach().contiguous().numpy() for part in (logits, labels, where)]
        counted = _UNWEIGHTED if weights is None else weights.contiguous().numpy()
        slopes, losses = np.empty_like(read[0]), np.empty(logits.shape[1], np.float32)
        kernels.mean_entropies(*read, counted, slopes, losses)
        ctx.slopes = torch.from_numpy(slopes)
        return torch.from_numpy(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.slopes * gradient, None, None, None
