"""Networks over the candidates of a request: a transformer, and its kin in which no head can do harm.

Self-attention promises nothing about a head. Its weights sum to one, so that a candidate that rises takes from what
the others are made of, and the values that are weighed are of any sign: a higher like may lower the liked candidate's
own score, or lift a rival above it. `RivalryNet` keeps attention where no direction is promised, among the context
columns, and lets the heads of other candidates in by comparisons alone.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from polyrank.fusion.networks import NetworkConfig


@dataclass(frozen=True)
class ListwiseConfig(NetworkConfig):
    """`[fusion.learn.listwise]`; the paper's sizes (some 500 candidates a request) are not published.

    Attributes:
        monotone: a candidate never loses its place to another by a higher head (by a lower one that speaks against
            it): `RivalryNet`. Else a transformer, as in the paper, which promises no such thing.
        width: of a candidate's vector.
        attention_heads: of the transformer; they divide the width. Of the monotone network, which has them over the
            context alone, also the directions in which candidates are compared.
        layers: of the transformer.
        dropout: in its layers.
        prior: how much the pairwise losses on the heads count beside the one on the reward.
        per_time: a head that predicts watch time: the prior of every other head is `p / p_watch` (the paper's IPUT:
            without it, what is interacted with because it is watched long counts twice); the head itself where empty.
        k: places that the heads' own metric counts.
    """

    monotone: bool = False
    width: Annotated[int, Gt(0)] = 32
    attention_heads: Annotated[int, Gt(0)] = 4
    layers: Annotated[int, Gt(0)] = 1
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    prior: Annotated[float, Ge(0)] = 0.1
    per_time: str = ""
    k: Annotated[int, Gt(0)] = 3


class Attention(nn.Module):
    """Features of the candidates of requests → self-attention among them → a vector each.

    A candidate has no position: permuting candidates permutes vectors. Padding is never looked at.

    Args:
        features: F.
        config: sizes.
    """

    def __init__(self, features: int, config: ListwiseConfig) -> None:
        super().__init__()
        self.into = nn.Linear(features, config.width)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.attention_heads,
            2 * config.width,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """`[R, L, F]`, `[R, L]` bool → `[R, L, W]`."""
        vectors: Tensor = self.norm(self.encoder(self.into(x), src_key_padding_mask=~present))
        return vectors


class ListwiseNet(nn.Module):
    """The transformer: candidates look at one another's heads, places and context before they are scored.

    Args:
        heads: K.
        context: C, may be 0.
        config: sizes.
    """

    def __init__(self, heads: int, context: int, config: ListwiseConfig) -> None:
        super().__init__()
        self.attention = Attention(2 * heads + context, config)
        self.out = nn.Linear(config.width, 1)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """`[R, L, 2K + C]` (heads z, places, context), `[R, L]` bool → `[R, L]`."""
        scores: Tensor = self.out(self.attention(x, present)).squeeze(2)
        return scores


class RivalryNet(nn.Module):
    """`s_i = Σ_k w_k(u_i) z_ik + a · φ(P [z_i, places_i, 1 − r_i] + U u_i + b)`, of which a head can only do good.

    `r_i = mean_{j ≠ i} σ(t_j − t_i)`, `t = Q z + V u`: the softened share of the rivals that surpass candidate i, in D
    learned directions: attention by comparison, whose weights need not sum to one. `u` is what `Attention` makes of the
    context columns of all candidates. P, Q, a, w ≥ 0 and φ rises (half of its units are ELU, half −ELU(−x)): raising a
    head of candidate i raises t_i, so r_i falls, every other r_j rises, and places move in the same way. So s_i never
    falls and no other score rises: candidate i never loses a place. At first nearly `Σ_k z_ik`: equal weights.

    Args:
        heads: K.
        context: C, may be 0.
        config: sizes.
    """

    def __init__(self, heads: int, context: int, config: ListwiseConfig) -> None:
        super().__init__()
        directions, width, inner = config.attention_heads, config.width, config.width if context else 0
        self.heads = heads
        self.attention = Attention(context, config) if context else None
        self.weight = nn.Parameter(torch.zeros(heads))
        self.weight_context = nn.Parameter(torch.zeros(inner, heads))
        self.compare = nn.Parameter(torch.randn(heads, directions) / heads**0.5)
        self.compare_context = nn.Parameter(torch.randn(inner, directions) / max(inner, 1))
        self.rise = nn.Parameter(torch.randn(2 * heads + directions, width) / (2 * heads + directions) ** 0.5)
        self.rise_context = nn.Parameter(torch.randn(inner, width) / max(inner, 1))
        self.bias = nn.Parameter(torch.randn(width))
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Parameter(torch.randn(width) / width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """`[R, L, 2K + C]` (heads z, places, context), `[R, L]` bool → `[R, L]`."""
        own, context = x[..., : 2 * self.heads], x[..., 2 * self.heads :]
        z = own[..., : self.heads]
        u = context if self.attention is None else self.attention(context, present)
        ahead = 1 - self.surpassed(z @ self.compare.abs() + u @ self.compare_context, present)
        mixed = torch.cat((own, ahead), dim=2) @ self.rise.abs() + u @ self.rise_context + self.bias
        convex, concave = mixed.tensor_split(2, dim=2)
        risen = torch.cat((nn.functional.elu(convex), -nn.functional.elu(-concave)), dim=2)
        weights = nn.functional.softplus(self.weight + u @ self.weight_context + np.log(np.e - 1))  # 1 at zero
        scores: Tensor = (weights * z).sum(dim=2) + self.dropout(risen) @ self.out.abs()
        return scores

    @staticmethod
    def surpassed(t: Tensor, present: Tensor) -> Tensor:
        """Of t `[R, L, D]` r `[R, L, D]`: the softened share of the other candidates above; 0 of one alone."""
        rivals = present.unsqueeze(1) & ~torch.eye(t.shape[1], dtype=torch.bool)
        above = torch.sigmoid(t.unsqueeze(1) - t.unsqueeze(2)) * rivals.unsqueeze(3)  # [R, i, j, D]
        return above.sum(dim=2) / rivals.sum(dim=2).clamp(min=1).unsqueeze(2)
