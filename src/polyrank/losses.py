"""Task losses as pure functions of logits and targets. B rows, T tasks.

Formula (1) of the field is L = Σ_k w_k L_k. Here are the L_k, each the mean over the rows of task k's own sample space
on which its label is present (the joint training of PLE, Tang et al., RecSys 2020, section 4.3); the w_k are a
balancer's.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """ℓ = −y·log σ(z) − (1 − y)·log(1 − σ(z)), elementwise, from the logit z (never from a probability)."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """ℓ = (z − y)², elementwise."""
    return (outputs - targets).square()


LOSSES: Mapping[str, Loss] = MappingProxyType({"binary": binary_cross_entropy, "regression": squared_error})


def smoothed(labels: Tensor, kinds: Sequence[str], epsilon: float) -> Tensor:
    """Label smoothing (Szegedy et al. 2016) with two classes: y·(1 − ε) + ε/2 in columns `[B, T]` of binary tasks."""
    if epsilon == 0.0:
        return labels
    binary = torch.tensor([kind == "binary" for kind in kinds])
    return torch.where(binary, labels * (1.0 - epsilon) + 0.5 * epsilon, labels)


def masked_mean(values: Tensor, where: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the rows that count: Σ_b δ_b w_b ℓ_b / Σ_b δ_b w_b, and 0 where no row counts.

    Args:
        values: `[B, T]`, finite also where `where` is False.
        where: `[B, T]` bool, δ.
        weights: `[B, T]` w ≥ 0; None for 1.

    Returns:
        `[T]`.
    """
    counting = where.to(values.dtype) if weights is None else where * weights
    total = counting.sum(dim=0)
    return (values * counting).sum(dim=0) / torch.where(total > 0, total, torch.ones_like(total))


def row_losses(logits: Tensor, targets: Tensor, kinds: Sequence[str]) -> Tensor:
    """Each row's loss on each task of one logit.

    Args:
        logits: `[B, T]`.
        targets: `[B, T]`, finite everywhere (0 where the label does not count).
        kinds: `[T]` keys of LOSSES.

    Returns:
        `[B, T]`.
    """
    if len(set(kinds)) == 1:
        return LOSSES[kinds[0]](logits, targets)
    # A few tasks: cheaper than gathering the columns of each kind.
    return torch.stack([LOSSES[kind](z, y) for kind, z, y in zip(kinds, logits.T, targets.T, strict=True)], dim=1)
