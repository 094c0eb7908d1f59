"""Histories read with the candidate in mind: target attention (DIN), or a light transformer (BST).

B rows, L places of a history, W embedding width, U hidden units of the attention.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Interval, MinLen
from torch import Tensor, nn
from torch.nn import functional

from polyrank.nn.layers import StackedLinear

Pooling = Literal["mean", "din", "transformer"]


@dataclass(frozen=True)
class SequenceConfig:
    """`[model.sequence]`: how a `sequence` feature becomes one vector.

    Attributes:
        pooling: `mean` of its embeddings; `din`: target attention, weights from each place and the candidate; or
            `transformer`: one block over the places and the candidate. The last two are for sequences that share the
            embeddings of a feature (`shares`), which is the candidate; others stay means.
        units: `din`: hidden layers of the attention unit.
        softmax: `din`: weights that sum to 1. The paper leaves them as they are, so that their sum tells how much of
            the history suits the candidate.
        heads: `transformer`: attention heads; they divide `embedding_width`.
        feedforward: `transformer`: units of its hidden layer.
        dropout: `transformer`: the share of activations dropped.
    """

    pooling: Pooling = "mean"
    units: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (32,)
    softmax: bool = False
    heads: Annotated[int, Gt(0)] = 2
    feedforward: Annotated[int, Gt(0)] = 64
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class TargetAttention(nn.Module):
    """u = Σ_j a(v, e_j)·e_j over the places j that hold a value; zeros for an empty history.

    a is a network on [v; e_j; v − e_j; v ⊙ e_j] with PReLU (the paper's choice beside Dice, whose batch statistics
    would make a row's output depend on the rows around it) and one output. With `softmax` a's outputs pass through a
    softmax over the present places. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018;
    its text has an outer product where its code, and this, has v ⊙ e_j.

    Args:
        width: W.
        config: the knobs.
    """

    def __init__(self, width: int, config: SequenceConfig) -> None:
        super().__init__()
        first, *deeper = config.units
        self.softmax = config.softmax
        self.first = StackedLinear(1, 4 * width, first)
        self.deeper = nn.ModuleList(nn.Linear(a, b) for a, b in zip([first, *deeper], [*deeper, 1], strict=True))
        self.slopes = nn.ParameterList(torch.full((units,), 0.25) for units in config.units)

    def weights(self, target: Tensor, history: Tensor, present: Tensor) -> Tensor:
        """`[B, W]`, `[B, L, W]` and `[B, L]` bool → a, `[B, L]`, 0 where nothing is present."""
        of_target, of_place, of_difference, of_product = self.first.weight[0].chunk(4)
        assert self.first.bias is not None
        # [v; e; v − e; v ⊙ e] W without the four times wider input, and only where there is an e.
        rows = present.nonzero()[:, 0]
        places = history[present]
        hidden = (target @ (of_target + of_difference) + self.first.bias[0])[rows]
        hidden = hidden + places @ (of_place - of_difference) + (places * target[rows]) @ of_product
        for layer, slope in zip(self.deeper, self.slopes, strict=True):
            hidden = layer(functional.prelu(hidden, slope))
        scores = hidden.new_zeros(present.shape).masked_scatter(present, hidden)
        if not self.softmax:
            return scores
        # Over an empty history the softmax is uniform: no place of it counts.
        return torch.softmax(scores.float().masked_fill(~present, -1e30), dim=1) * present

    def forward(self, target: Tensor, history: Tensor, present: Tensor) -> Tensor:
        """The candidate `[B, W]`, its history `[B, L, W]` and which places hold a value `[B, L]` → `[B, W]`."""
        return torch.bmm(self.weights(target, history, present).unsqueeze(1), history).squeeze(1)


class SequenceTransformer(nn.Module):
    """One transformer block over the history and, as its last token, the candidate; the candidate's place comes out.

    Places have learned positions, counted from the newest, as the clock of BST is; normalisation stands before
    attention and feed-forward, which trains without warm-up. Zeros for an empty history. Chen et al., "Behavior
    Sequence Transformer for E-commerce Recommendation in Alibaba", DLP-KDD 2019, which passes on every place's output,
    L times wider.

    Args:
        width: W.
        length: L.
        config: the knobs.

    Raises:
        ValueError: the heads do not divide W.
    """

    def __init__(self, width: int, length: int, config: SequenceConfig) -> None:
        super().__init__()
        if width % config.heads:
            raise ValueError(f"sequence.heads must divide embedding_width {width}. Received: {config.heads}")
        self.positions = nn.Parameter(torch.empty(length + 1, width).normal_(0.0, 0.02))
        self.block = nn.TransformerEncoderLayer(
            width, config.heads, config.feedforward, config.dropout, batch_first=True, norm_first=True
        )

    def forward(self, target: Tensor, history: Tensor, present: Tensor) -> Tensor:
        """As `TargetAttention`'s."""
        length = present.sum(dim=1, keepdim=True)
        places = torch.arange(history.shape[1])
        # Values stand first, newest last: the newest has position 0, the candidate the one after all.
        age = (length - 1 - places).clamp_min(0)
        tokens = torch.cat([history + self.positions[age], target.unsqueeze(1) + self.positions[-1:]], dim=1)
        absent = torch.cat([~present, torch.zeros_like(present[:, :1])], dim=1)
        out: Tensor = self.block(tokens, src_key_padding_mask=absent)[:, -1]
        return out * (length > 0)
