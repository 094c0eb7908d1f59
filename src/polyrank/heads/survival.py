"""What heads of thresholds share: where thresholds stand, and how a mean is restored from P(y > threshold).

Thresholds t_0 < t_1 < … < t_M are values of the label, t_0 its least and t_M its greatest over the training rows. A
head learns S_m = P(y > t_m | x) for m < M; P(y > t_M) is 0.
"""

import numpy as np
import torch
from torch import Tensor

_CLIP = 1e-4  # of a base rate, so that its logit is finite
_LEAST = 1 / 8  # of the mass between two neighbouring quantiles: a bin within it holds at least that
_ALPHAS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def restore(survival: Tensor, values: Tensor) -> Tensor:
    """E[y] = Σ_m P(y in bin m)·c_m = c_0 + Σ_{m<M} S_m·(c_{m+1} − c_m), c_m the training labels' mean within bin m.

    Papers of such heads put the bins' ends for c, which is wrong by up to a bin, or their middles, which is wrong where
    a bin is wide and the labels crowd at its low end, as in the last one of a long tail. With c the labels' own
    distribution is restored to their own mean.

    Args:
        survival: `[B, M]` S_0 … S_{M−1}.
        values: `[M + 1]` of the bins, the first of y ≤ t_0; see `bin_means`.

    Returns:
        `[B]`.
    """
    return values[0] + survival @ torch.diff(values)


def bin_means(quantiles: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """`[M + 1]` the mean of the labels in (t_{m−1}, t_m]; the first is t_0, below which there is none.

    From equally spaced quantiles, linear between them: the integral of the quantile function over the bin's shares.
    """
    shares = np.linspace(0.0, 1.0, len(quantiles))
    area = np.concatenate([[0.0], np.cumsum((quantiles[1:] + quantiles[:-1]) / 2 * np.diff(shares))])
    ends = share_up_to(quantiles, thresholds)
    at = np.searchsorted(shares, ends, side="right").clip(1, len(quantiles) - 1) - 1
    within = ends - shares[at]
    slope = (quantiles[at + 1] - quantiles[at]) / np.diff(shares)[at]
    up_to = area[at] + within * quantiles[at] + slope * np.square(within) / 2
    means = np.diff(up_to) / np.maximum(np.diff(ends), 1e-12)
    return np.concatenate([thresholds[:1], np.clip(means, thresholds[:-1], thresholds[1:])])


def exceeds(labels: Tensor, thresholds: Tensor) -> Tensor:
    """`[B]` labels → `[B, M]` 1 where y > t_m, m < M."""
    return (labels[:, None] > thresholds[:-1]).float()


def share_up_to(quantiles: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Ψ(v) = P(y ≤ v) from equally spaced quantiles, linear between them."""
    place = np.searchsorted(quantiles, values, side="right")
    low, high = quantiles[np.maximum(place - 1, 0)], quantiles[np.minimum(place, len(quantiles) - 1)]
    within = np.where(high > low, (values - low) / np.where(high > low, high - low, 1.0), 0.0)
    shares: np.ndarray = np.clip((place - 1 + within) / (len(quantiles) - 1), 0.0, 1.0)
    return shares


def base_logits(shares: np.ndarray) -> list[float]:
    """The logits of probabilities, kept away from 0 and 1."""
    p = np.clip(shares, _CLIP, 1.0 - _CLIP)
    logits: list[float] = np.log(p / (1.0 - p)).tolist()
    return logits


def discretise(quantiles: np.ndarray, bins: int, alpha: float) -> np.ndarray:
    """Error-adaptive thresholds t_m = Ψ⁻¹(γ(m / M)), γ(z) = (1 − e^{−αz}) / (1 − e^{−α}); α = 0: equal frequency.

    The larger α, the rarer the values that a bin of high values holds, and the narrower that bin. Thresholds that
    coincide (a value with many rows) are one.

    Args:
        quantiles: the label's quantiles over the training rows, equally spaced, not all equal.
        bins: M, at most.
        alpha: α ≥ 0.

    Returns:
        `[M + 1]`, increasing.
    """
    z = np.linspace(0.0, 1.0, bins + 1)
    gamma = z if alpha == 0.0 else np.expm1(-alpha * z) / np.expm1(-alpha)
    shares = np.linspace(0.0, 1.0, len(quantiles))
    return np.unique(np.interp(gamma, shares, quantiles).astype(np.float32)).astype(np.float64)


def adaptive_alpha(quantiles: np.ndarray, bins: int, beta: float) -> float:
    """The α of a grid that gives the smallest A_w + β·A_b, estimates of the learning and the restoration error.

    A_w = Σ(ΔΨ)² · Σ((Δt)² / ΔΨ), A_b = Σ(ΔΨ)² · Σ(Δt)², with ΔΨ_m and Δt_m the bins' masses and widths (CREAD).

    Args:
        quantiles: as in `discretise`.
        bins: M.
        beta: β.
    """

    def error(alpha: float) -> float:
        thresholds = discretise(quantiles, bins, alpha)
        width = np.diff(thresholds)
        mass = np.maximum(np.diff(share_up_to(quantiles, thresholds)), _LEAST / len(quantiles))
        concentration = np.square(mass).sum()
        return float(concentration * (np.square(width) / mass).sum() + beta * concentration * np.square(width).sum())

    return min(_ALPHAS, key=error)
