"""Importance weights: how much likelier the target policy was to do what the log shows. N rows, K fusion weights."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import ndtr

from polyrank.metrics.checks import Floats, Rows

Kernel = Literal["gaussian", "epanechnikov"]


def density_ratio(target_log_density: Rows, behavior_log_density: Rows) -> Floats:
    """W = π(a | s) / μ(a | s) `[N]`, from log-densities (or log-probabilities of discrete actions; −inf for 0).

    Raises:
        ValueError: μ of an action that was taken is not finite and positive.
    """
    behavior = np.asarray(behavior_log_density, np.float64)
    if not np.isfinite(behavior).all():
        raise ValueError("behavior_log_density must be finite: the log's policy did take these actions")
    return np.exp(np.asarray(target_log_density, np.float64) - behavior)


def kernel_ratio(
    targets: Rows,
    actions: Rows,
    behavior_log_density: Rows,
    bandwidths: Rows | float,
    *,
    box: tuple[Rows, Rows] | None = None,
    kernel: Kernel = "gaussian",
) -> Floats:
    """What stands for the density ratio of a deterministic policy: `[N]` (Kallus & Zhou 2018).

    w = Π_k K((π_k(s) − a_k) / h_k) / (h_k m_k) / μ(a | s). A product kernel is normalised by Π_k h_k (h^K with one
    bandwidth), not by h: with the latter a mean of K = 2 weights comes out h times too small. Where the log's policy is
    confined to a box, the part of the kernel outside of it, 1 − Π m_k, could never be seen; m_k, the integral over the
    box of K((π_k − a) / h_k) / h_k, makes up for it.

    Args:
        targets: `[N, K]` the target policy's actions π(s).
        actions: `[N, K]` the log's.
        behavior_log_density: `[N]` log μ(a | s).
        bandwidths: h, one or `[K]`, above 0.
        box: lowest and highest actions, each `[K]` or `[N, K]`; None where μ is not confined.
        kernel: K: `gaussian`, or `epanechnikov` ¾(1 − u²) on [−1, 1], which has no tails.

    Raises:
        ValueError: shapes differ, a bandwidth is not above 0, or a target lies where its kernel has no mass in the box.
    """
    targets, actions = np.asarray(targets, np.float64), np.asarray(actions, np.float64)
    if targets.shape != actions.shape or targets.ndim != 2:
        raise ValueError(f"targets and actions must be [N, K] alike, got {targets.shape} and {actions.shape}")
    h = np.broadcast_to(np.asarray(bandwidths, np.float64), targets.shape[1:])
    if not (h > 0).all():
        raise ValueError(f"bandwidths must be above 0, got {h.min()}")
    density, mass = _KERNELS[kernel]
    inside = np.ones(targets.shape)
    if box is not None:
        low, high = (np.asarray(side, np.float64) for side in box)
        inside = mass((high - targets) / h) - mass((low - targets) / h)
        if not (inside > 0).all():
            raise ValueError("a target action must lie in or near the box, or no logged action can be like it")
    with np.errstate(divide="ignore"):
        parts = np.log(density((targets - actions) / h)) - np.log(h) - np.log(inside)
    return density_ratio(parts.sum(axis=1), behavior_log_density)


def lepski(values: Sequence[float], widths: Sequence[float]) -> int:
    """The bandwidth to take: the largest whose interval meets those of all smaller ones (SLOPE, Su et al. 2020).

    Bias grows with the bandwidth and the interval's width falls; as long as intervals still share a point, the bias
    does not show.

    Args:
        values: estimates, from the smallest bandwidth to the largest.
        widths: half the width of each one's interval; nan for an estimate that was refused, which is passed over.

    Returns:
        Its index.

    Raises:
        ValueError: all were refused.
    """
    low, high, chosen = -math.inf, math.inf, -1
    for index, (value, width) in enumerate(zip(values, widths, strict=True)):
        if math.isnan(value) or math.isnan(width):
            continue
        low, high = max(low, value - 2 * width), min(high, value + 2 * width)
        if low > high:
            break
        chosen = index
    if chosen < 0:
        raise ValueError("no bandwidth has an estimate: the log does not show what the target policy does")
    return chosen


def _gaussian(u: Floats) -> Floats:
    return np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)


def _epanechnikov(u: Floats) -> Floats:
    return 0.75 * np.maximum(1 - u * u, 0.0)


def _epanechnikov_mass(u: Floats) -> Floats:
    u = np.clip(u, -1.0, 1.0)
    return 0.5 + 0.75 * u - 0.25 * u**3


_KERNELS = {"gaussian": (_gaussian, ndtr), "epanechnikov": (_epanechnikov, _epanechnikov_mass)}
