"""The monotone network: a learned curve per head, conditioned on the context, under positive learned weights.

UMRE: Unified Monotonic Ranking Ensemble, arXiv 2508.07613; the integrated transform is that of Wehenkel & Louppe,
Unconstrained Monotonic Neural Networks, NeurIPS 2019.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor, nn

from polyrank.evaluation.requests import Requests
from polyrank.fusion.fusion import Columns, read_columns
from polyrank.fusion.networks import NONE, NetworkConfig, Positions, fit, pairwise_loss
from polyrank.fusion.scaling import Scaling
from polyrank.fusion.trained import NetworkFusion
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Bar

_BLOCK = 4_096  # rows scored at a time


@dataclass(frozen=True)
class MonotoneConfig(NetworkConfig):
    """`[fusion.monotone]`; the paper's widths are not published.

    Attributes:
        hidden: units of each integrand f_k.
        knots: points at which an integrand is evaluated; the paper's quadrature has 32.
        reach: they lie within ± this many standard deviations of the head's logarithm.
        learning_rate: of Adam; so few parameters bear a high one.
    """

    hidden: Annotated[int, Gt(0)] = 12
    knots: Annotated[int, Gt(1)] = 17
    reach: Annotated[float, Gt(0)] = 4.0
    learning_rate: Annotated[float, Gt(0)] = 1e-2


class MonotoneNet(nn.Module):
    """`s = Σ_k w_k(c) · g_k(z_k; c)`, `g_k(z; c) = ∫_0^z f_k(t; c) dt`, f_k > 0 and w_k > 0 whatever the context c.

    f_k is an MLP of one hidden layer on (t, c), made positive by ELU + 1. The papers integrate by Clenshaw–Curtis
    quadrature on [0, z]; between its nodes nothing keeps the sum from falling as z rises. Here f_k is evaluated on
    fixed knots, taken as linear between them and constant beyond, and that is integrated exactly: g_k never falls, but
    for rounding. UMRE weighs heads by cross-attention between user and predictions, which may undo monotonicity when a
    weight falls as its head rises: here weights read the context alone. At first f ≈ 1 and w = 1: equal weights.

    Args:
        heads: K.
        context: C, may be 0.
        config: widths and knots.
    """

    def __init__(self, heads: int, context: int, config: MonotoneConfig) -> None:
        super().__init__()
        width = config.hidden
        self.on_value = nn.Parameter(torch.randn(heads, width))
        self.on_context = nn.Parameter(torch.randn(heads, context, width) / max(context, 1) ** 0.5)
        self.bias = nn.Parameter(torch.randn(heads, width))
        self.out = nn.Parameter(0.1 * torch.randn(heads, width) / width**0.5)
        self.weight = nn.Parameter(torch.zeros(heads))
        self.weight_context = nn.Parameter(torch.zeros(heads, context))
        self.register_buffer("at", torch.linspace(-config.reach, config.reach, config.knots))
        self.at: Tensor

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """`[N, K]`, `[N, C]` → `[N]`."""
        return (self.weights(c) * self.curves(z, c)).sum(dim=1)

    def weights(self, c: Tensor) -> Tensor:
        """The weights w `[N, K]`: softplus, 1 at zero."""
        return nn.functional.softplus(self.weight + c @ self.weight_context.T + np.log(np.e - 1))

    def curves(self, z: Tensor, c: Tensor) -> Tensor:
        """The curves g `[N, K]`."""
        slopes = self._slopes(c)
        return self._integral(z, slopes) - self._integral(torch.zeros_like(z), slopes)

    def _slopes(self, c: Tensor) -> Tensor:
        """The slopes f on the knots `[N, K, M]`; `[1, K, M]` without context, where one curve is every row's."""
        c = c if c.shape[1] else c[:1]
        on_context = torch.einsum("nc,kch->nkh", c, self.on_context) + self.bias
        on_value = self.at[:, None] * self.on_value[:, None, :]  # [K, M, H]
        hidden = nn.functional.elu(on_value + on_context.unsqueeze(2))
        return nn.functional.elu(torch.einsum("nkmh,kh->nkm", hidden, self.out)) + 1

    def _integral(self, z: Tensor, slopes: Tensor) -> Tensor:
        """From the first knot to z, of what is linear between knots and constant beyond."""
        step = self.at[1] - self.at[0]
        inside = (z.unsqueeze(2) - self.at[:-1]).clamp(min=0)
        inside = torch.minimum(inside, step)  # how much of each piece lies below z
        left, right = slopes[..., :-1], slopes[..., 1:]
        pieces = left * inside + (right - left) * inside**2 / (2 * step)
        below, beyond = (self.at[0] - z).clamp(min=0), (z - self.at[-1]).clamp(min=0)
        return pieces.sum(dim=2) - slopes[..., 0] * below + slopes[..., -1] * beyond


@dataclass(frozen=True, eq=False)
class MonotoneFusion(NetworkFusion):
    """A trained `MonotoneNet`; a row's score does not depend on other rows."""

    kind: ClassVar[str] = "monotone"
    configured = MonotoneConfig

    @staticmethod
    def network(scaling: Scaling, config: MonotoneConfig) -> MonotoneNet:
        """See `NetworkFusion.network`."""
        return MonotoneNet(len(scaling.heads), len(scaling.context), config)

    def score(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """See `Fusion.score`."""
        z, c = self.scaling.inputs(read_columns(rows, (*self.heads, *self.context)))
        scores = np.empty(len(z))
        with torch.inference_mode():
            for start in range(0, len(z), _BLOCK):
                part = slice(start, start + _BLOCK)
                scores[part] = self.net(torch.from_numpy(z[part]), torch.from_numpy(c[part])).numpy()
        return scores


def learn_monotone(
    train: Requests,
    valid: Requests,
    context: tuple[str, ...],
    negative: tuple[str, ...],
    config: MonotoneConfig,
    bar: Bar | None = None,
) -> MonotoneFusion:
    """Train the monotone network to the reward, by pairs within requests.

    The paper regresses the score on the reward; an order within requests is what is wanted, and what is trained here.

    Args:
        train: training rows.
        valid: rows of other users, for early stopping.
        context: columns that curves and weights may depend on: traits of the user, the request or the video.
        negative: heads that speak against a candidate: the score falls in them.
        config: the knobs.
        bar: see `networks.fit`.
    """
    torch.manual_seed(config.seed)
    scaling = Scaling.fit(train.columns, train.heads, context, negative)
    net = MonotoneFusion.network(scaling, config)

    def loss_of(data: Requests) -> Any:
        z, c = (torch.from_numpy(part.astype(np.float32)) for part in scaling.inputs(data.columns))
        worth = torch.from_numpy(data.reward.astype(np.float32))

        def loss(batch: Positions) -> Tensor:
            rows = torch.from_numpy(batch)
            present = rows != NONE
            scores = torch.zeros(rows.shape)
            scores[present] = net(z[rows[present]], c[rows[present]])
            return pairwise_loss(scores, worth[rows], present)

        return loss

    fit(net, (train.requests, loss_of(train)), (valid.requests, loss_of(valid)), config, bar)
    return MonotoneFusion(scaling, config, net)
