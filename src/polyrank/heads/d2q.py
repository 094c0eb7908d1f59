"""D2Q: the quantile of a watch time among items of about the same duration."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def quantile_of(labels: Tensor, grid: Tensor) -> Tensor:
    """F_k(y), the share of a group's labels up to y, linear between the points of its grid.

    Args:
        labels: `[B]`.
        grid: `[B, P]` each row's group's quantiles, equally spaced from its least label to its greatest.

    Returns:
        `[B]` in [0, 1]; of a value that many rows have, the whole share up to and with it.
    """
    points = grid.shape[1]
    place = torch.searchsorted(grid.contiguous(), labels[:, None].contiguous(), right=True)
    low = grid.gather(1, (place - 1).clamp(min=0))
    high = grid.gather(1, place.clamp(max=points - 1))
    apart = high > low
    within = torch.where(apart, (labels[:, None] - low) / torch.where(apart, high - low, 1.0), 0.0)
    return ((place - 1 + within) / (points - 1)).clamp(0.0, 1.0).squeeze(1)


def value_at(shares: Tensor, grid: Tensor) -> Tensor:
    """F_k⁻¹(q): `[B]` shares in [0, 1] and `[B, P]` grids → `[B]`, linear between points."""
    place = shares * (grid.shape[1] - 1)
    below = place.floor().clamp(max=grid.shape[1] - 2)
    index = below.long()[:, None]
    low, high = grid.gather(1, index), grid.gather(1, index + 1)
    return torch.lerp(low, high, (place - below)[:, None]).squeeze(1)


class D2Q(nn.Module):
    """q = F_k(y), y's quantile among the training rows whose item is about as long; h = σ(z) learns q; ŷ = F_k⁻¹(h).

    A long item is watched for longer whatever the user thinks of it: within its group of durations k, the quantile says
    how the user liked it, and the group's distribution translates that back. The groups are the quantile bins of the
    feature that the task names as `item_duration` (its `bins` is the paper's M, best at 30); items whose duration is
    missing are a group too, and a group without enough training rows takes the distribution of all.

    ℓ = 12·(h − q)²: the paper's squared error over the variance of a uniform quantile, so that always answering ½
    costs 1. ŷ is the value at a mean quantile, neither mean nor median of y. Fitted on training rows only.

    Source: Zhan et al., Deconfounding Duration Bias in Watch-time Prediction for Video Recommendation, KDD 2022 (D2Q;
    the tower of Res-D2Q for the duration is not needed: the duration is a feature).

    Args:
        grouped: `[K][P]` for each bin of the duration the label's quantiles, equally spaced.
    """

    logits = 1
    grids: Tensor

    def __init__(self, grouped: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.register_buffer("grids", torch.tensor(grouped, dtype=torch.float32))

    def biases(self) -> list[float]:
        """`[1]`: the middle quantile."""
        return [0.0]

    def loss(self, logits: Tensor, labels: Tensor, bins: Tensor) -> Tensor:
        """`[B, 1]`, labels `[B]`, bins `[B]` → `[B]`."""
        return 12.0 * (torch.sigmoid(logits[:, 0]) - quantile_of(labels, self.grids[bins])).square()

    def predict(self, logits: Tensor, bins: Tensor) -> Tensor:
        """`[B, 1]`, bins `[B]` → `[B]`."""
        return value_at(torch.sigmoid(logits[:, 0]), self.grids[bins])
