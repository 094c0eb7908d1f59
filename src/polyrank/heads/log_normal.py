"""A log-normal duration that may be zero: two parts, as in ZILN."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST, _LARGEST = 1e-3, 5.0  # of s: keeps exp(s² / 2) finite
_HIGHEST_LOG = 80.0  # of a predicted logarithm: e^80 is a float32


def log_normal_loss(zero: Tensor, mu: Tensor, raw: Tensor, labels: Tensor, standard: Tensor) -> Tensor:
    """ℓ = BCE(a, 1[y > 0]) + 1[y > 0]·(ln s + ½ ln 2π + (u − μ)² / 2s²), s = softplus(ρ) within [0.001, 5].

    With u = ln y this is the negative log-likelihood of y, less ln y, which no parameter changes.

    Args:
        zero: `[B]` a, the logit of y > 0.
        mu: `[B]` μ.
        raw: `[B]` ρ.
        labels: `[B]` y ≥ 0.
        standard: `[B]` u: ln y, or a shifted and scaled one; anything finite where y = 0.
    """
    positive = (labels > 0).float()
    s = spread(raw)
    density = torch.log(s) + 0.5 * math.log(2.0 * math.pi) + (standard - mu).square() / (2.0 * s.square())
    return functional.binary_cross_entropy_with_logits(zero, positive, reduction="none") + positive * density


def spread(raw: Tensor) -> Tensor:
    """S = softplus(ρ), within [0.001, 5]."""
    return functional.softplus(raw).clamp(_SMALLEST, _LARGEST)


class LogNormal(nn.Module):
    """Zero with probability 1 − π, else log-normal; ŷ = π·exp(m + s²/2), the mean and not the median π·exp(m).

    Three logits (a, μ, ρ): π = σ(a), and of the logarithms of the positive durations the mean m = c + d·μ and the
    standard deviation s = d·softplus(ρ), where c and d are theirs over the training rows: in another unit c alone
    changes, and neither loss nor training do. No censoring: a play that was cut off at the item's end counts as it is.

    Source: Wang, Liu & Miao, A Deep Probabilistic Model for Customer Lifetime Value Prediction, arXiv 1912.07753, 2019
    (ZILN; their s has no upper bound, and they do not standardise ln y). Without zeros it is the plain log-normal.

    Args:
        quantiles: the label's quantiles over the training rows, equally spaced, some of them positive.
    """

    logits = 3
    center: Tensor
    scale: Tensor

    def __init__(self, quantiles: Sequence[float]) -> None:
        super().__init__()
        known = np.asarray(quantiles)
        logs = np.log(known[known > 0])
        self._positive = min(max(len(logs) / len(known), 1e-4), 1.0 - 1e-4)
        self.register_buffer("center", torch.tensor(float(logs.mean())))
        self.register_buffer("scale", torch.tensor(float(logs.std()) or 1.0))

    def biases(self) -> list[float]:
        """`[3]`: the share of positive durations, and their own μ = 0 and s = 1."""
        return [math.log(self._positive / (1.0 - self._positive)), 0.0, math.log(math.e - 1.0)]

    def loss(self, logits: Tensor, labels: Tensor, bins: Tensor) -> Tensor:
        """`[B, 3]`, labels `[B]` → `[B]`; see `log_normal_loss`."""
        standard = (torch.log(torch.where(labels > 0, labels, 1.0)) - self.center) / self.scale
        zero, mu, raw = logits.unbind(dim=1)
        return log_normal_loss(zero, mu, raw, labels, standard)

    def predict(self, logits: Tensor, bins: Tensor) -> Tensor:
        """`[B, 3]` → the mean `[B]`."""
        zero, mu, raw = logits.unbind(dim=1)
        s = self.scale * spread(raw)
        return torch.sigmoid(zero) * torch.exp((self.center + self.scale * mu + s.square() / 2).clamp(max=_HIGHEST_LOG))
