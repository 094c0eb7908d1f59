"""Tasks' gradients at the outputs of shared experts, from those at the tasks' own mixtures of them.

T tasks, B rows, H width, S shared experts, L gate logits. Task t's mixture is h_t = Σ_s r_ts f_s + what is its own, so
that ∂L_t/∂f_s = r_ts δ_t with δ_t = ∂L_t/∂h_t: one backward pass to the mixtures tells all tasks' gradients at the
experts. `columns` `[T, S]` says where in the gate weights `[B, L]` each r_ts stands (see `polyrank.nn.ownership`).
"""

import torch
from torch import Tensor

from polyrank.nn.kernels import optional

_PARTS = 64  # always the same sums, whatever the number of threads

kernels = optional("polyrank.nn.kernels.gramian")
_threads = optional("polyrank.nn.kernels.threads")


def gramian(gradients: Tensor, weights: Tensor, columns: Tensor) -> Tensor:
    """`[T, T]` float64: Σ_b (Σ_s r_is r_js) (δ_iᵀδ_j), of δ `[T, B, H]`."""
    if kernels is None or _threads is None or gradients.shape[2] % 16:
        return gramian_plainly(gradients, weights, columns)
    _threads.follow_torch()
    out = torch.empty(_PARTS, len(gradients), len(gradients), dtype=torch.float64)
    kernels.gramian(*(t.contiguous().numpy() for t in (gradients, weights, columns)), out.numpy())
    return out.sum(dim=0)


def gramian_plainly(gradients: Tensor, weights: Tensor, columns: Tensor) -> Tensor:
    """`gramian` in plain torch operations."""
    by_row = gradients.double().transpose(0, 1)
    products = by_row @ by_row.transpose(1, 2)
    if columns.shape[1]:
        read = reads(weights, columns).double()
        products = products * (read @ read.transpose(1, 2))
    return products.sum(dim=0)


def summed(gradients: Tensor, weights: Tensor, columns: Tensor) -> Tensor:
    """`[T, S·H]`: each task's gradient at the shared experts, summed over rows (`[T, H]` where S = 0)."""
    if not columns.shape[1]:
        return gradients.sum(dim=1)
    read = reads(weights, columns).permute(1, 2, 0)  # [T, S, B]
    return torch.bmm(read, gradients).flatten(1)


def reads(weights: Tensor, columns: Tensor) -> Tensor:
    """The shares r `[B, T, S]`; 0 where a gate does not see an expert."""
    picked = weights[:, columns.clamp(min=0).flatten()].view(-1, *columns.shape)
    return torch.where(columns >= 0, picked, 0.0)
