"""Task losses as pure functions of logits and targets. B rows, T tasks.

Here are those of one logit a task; heads of several (`polyrank.heads`) bring their own.

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

HIGHEST_LOG_RATE = 15.0  # e^15 is 3 million


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """ℓ = −y·log σ(z) − (1 − y)·log(1 − σ(z)), elementwise, from the logit z (never from a probability)."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """ℓ = (z − y)², elementwise."""
    return (outputs - targets).square()


def poisson_deviance(log_rates: Tensor, targets: Tensor) -> Tensor:
    """ℓ = μ − y + y·ln(y / μ), μ = e^z, elementwise: half the unit deviance of a Poisson rate, y ≥ 0.

    That is the negative log-likelihood e^z − y·z + ln y! less what it is at μ = y: the same gradient e^z − y, but never
    negative. z counts as 15 above 15, so that e^z stays finite; there the gradient is 0.
    """
    z = log_rates.clamp(max=HIGHEST_LOG_RATE)
    loss: Tensor = torch.exp(z) - targets * (1.0 + z) + torch.special.xlogy(targets, targets)
    return loss


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"binary": binary_cross_entropy, "regression": squared_error, "count": poisson_deviance}
)


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
        `[T]`; a task without a row gives 0 and no gradient.
    """
    counting = where.to(values.dtype) if weights is None else where * weights
    total = counting.sum(dim=0)
    return (values * counting).sum(dim=0) / (total + (total == 0))


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
