"""CREAD: classification at thresholds that adapt to the error, and restoration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from polyrank.heads.survival import adaptive_alpha, base_logits, bin_means, discretise, exceeds, restore, share_up_to


@dataclass(frozen=True)
class CreadConfig:
    """CREAD; the paper tuned these and our sources do not give what it found: the values are plain ones.

    Attributes:
        bins: M, at most.
        alpha: of the discretisation, 0 for equal frequency; None: the one of a grid with the smallest estimated error.
        beta: β, what the restoration error counts in that estimate.
        restoration: λ_res, of the Huber loss of the restored value.
        order: λ_ord, of classifiers out of order.
    """

    bins: Annotated[int, Ge(2)] = 32
    alpha: Annotated[float, Ge(0)] | None = None
    beta: Annotated[float, Ge(0)] = 1.0
    restoration: Annotated[float, Ge(0)] = 1.0
    order: Annotated[float, Ge(0)] = 1.0


def classification_loss(logits: Tensor, above: Tensor) -> Tensor:
    """Σ_m BCE(z_m, 1[y > t_m]): `[B, M]`, `[B, M]` → `[B]`."""
    return functional.binary_cross_entropy_with_logits(logits, above, reduction="none").sum(dim=1)


def order_penalty(survival: Tensor) -> Tensor:
    """Σ_m max(φ_{m+1} − φ_m, 0): `[B, M]` → `[B]`."""
    return torch.diff(survival, dim=1).clamp(min=0).sum(dim=1)


class Cread(nn.Module):
    """φ_m = σ(z_m) ≈ P(y > t_m | x), M classifiers at error-adaptive thresholds; ŷ restored from them.

    ℓ = (1/M) Σ_m BCE(z_m, 1[y > t_m]) + λ_res·Huber(ŷ / std, y / std) + λ_ord Σ_m max(φ_{m+1} − φ_m, 0).

    Departures: ŷ = c_0 + Σ φ_m·(c_{m+1} − c_m) with the training labels' means c within the bins, where the paper has
    the right-end rule Σ φ_m·(t_m − t_{m−1}), which falls short of the mean; the first classifier stands at the least
    label (P(y > 0) where labels may be 0) and none at the greatest, where it is trivial; the cross-entropy is the mean
    over classifiers, and the Huber loss (threshold 1) is of values divided by the label's standard deviation, so that
    neither M nor the unit changes the weight of the task.

    Source: Sun et al., CREAD: A Classification-Restoration Framework with Error Adaptive Discretization for Watch Time
    Prediction in Video Recommender Systems, AAAI 2024.

    Args:
        quantiles: the label's quantiles over the training rows, equally spaced.
        std: the label's standard deviation over them.
        config: the knobs.
    """

    thresholds: Tensor
    values: Tensor
    unit: Tensor

    def __init__(self, quantiles: Sequence[float], std: float, config: CreadConfig) -> None:
        super().__init__()
        known = np.asarray(quantiles)
        alpha = adaptive_alpha(known, config.bins, config.beta) if config.alpha is None else config.alpha
        thresholds = discretise(known, config.bins, alpha)
        self._biases = base_logits(1.0 - share_up_to(known, thresholds[:-1]))
        self.logits, self.config = len(thresholds) - 1, config
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))
        self.register_buffer("values", torch.tensor(bin_means(known, thresholds), dtype=torch.float32))
        self.register_buffer("unit", torch.tensor(std))

    def biases(self) -> list[float]:
        """`[M]`."""
        return self._biases

    def loss(self, logits: Tensor, labels: Tensor, bins: Tensor) -> Tensor:
        """`[B, M]`, labels `[B]` → `[B]`."""
        survival = torch.sigmoid(logits)
        restored = restore(survival, self.values)
        error = functional.smooth_l1_loss(restored / self.unit, labels / self.unit, reduction="none")  # Huber's, δ = 1
        classified = classification_loss(logits, exceeds(labels, self.thresholds)) / self.logits
        return classified + self.config.restoration * error + self.config.order * order_penalty(survival)

    def predict(self, logits: Tensor, bins: Tensor) -> Tensor:
        """`[B, M]` → the mean `[B]`."""
        return restore(torch.sigmoid(logits), self.values)
