"""An ordinal head over quantiles: is the duration above a threshold, given that it is above the one before?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from polyrank.heads.survival import base_logits, bin_means, discretise, exceeds, restore, share_up_to


@dataclass(frozen=True)
class OrdinalConfig:
    """The ordinal head.

    Attributes:
        bins: M, of equal frequency; fewer where a value has many rows.
    """

    bins: Annotated[int, Ge(2)] = 32


def ordinal_loss(logits: Tensor, above: Tensor) -> Tensor:
    """ℓ = Σ_m 1[y > t_{m−1}]·BCE(z_m, 1[y > t_m]), the first m for every row: −log of the probability of y's bin.

    Args:
        logits: `[B, M]`; σ(z_m) = P(y > t_m | y > t_{m−1}).
        above: `[B, M]` 1[y > t_m].

    Returns:
        `[B]`.
    """
    asked = torch.cat([torch.ones_like(above[:, :1]), above[:, :-1]], dim=1)
    each = functional.binary_cross_entropy_with_logits(logits, above, reduction="none")
    return (asked * each).sum(dim=1)


class Ordinal(nn.Module):
    """Conditional ordinal regression over thresholds of equal frequency, and the mean restored from it.

    σ(z_m) = P(y > t_m | y > t_{m−1}); S_m = Π_{j ≤ m} σ(z_j) falls with m by construction; ŷ = E[y]
    (`survival.restore`). The loss is divided by ln M, what the training labels' own distribution costs about.

    Source: Shi, Cao & Raschka, Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
    Probabilities (CORN), arXiv 2111.08851, 2021: there for given ranks; they divide by the pairs of rows and ranks.

    Args:
        quantiles: the label's quantiles over the training rows, equally spaced.
        config: the knobs.
    """

    thresholds: Tensor
    values: Tensor

    def __init__(self, quantiles: Sequence[float], config: OrdinalConfig) -> None:
        super().__init__()
        known = np.asarray(quantiles)
        thresholds = discretise(known, config.bins, 0.0)
        survival = 1.0 - share_up_to(known, thresholds[:-1])
        self._biases = base_logits(survival / np.concatenate([[1.0], np.maximum(survival[:-1], 1e-9)]))
        self.logits = len(thresholds) - 1
        self._unit = math.log(max(self.logits, 2))
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))
        self.register_buffer("values", torch.tensor(bin_means(known, thresholds), dtype=torch.float32))

    def biases(self) -> list[float]:
        """`[M]`."""
        return self._biases

    def loss(self, logits: Tensor, labels: Tensor, bins: Tensor) -> Tensor:
        """`[B, M]`, labels `[B]` → `[B]`; see `ordinal_loss`."""
        return ordinal_loss(logits, exceeds(labels, self.thresholds)) / self._unit

    def predict(self, logits: Tensor, bins: Tensor) -> Tensor:
        """`[B, M]` → the mean `[B]`."""
        return restore(torch.sigmoid(logits).cumprod(dim=1), self.values)
