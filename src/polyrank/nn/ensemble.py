"""An ensemble in one model: k members that share everything but a scaling of the input and their towers.

Gorishniy, Kotelnikov & Babenko, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling", ICLR 2025
(its TabM-mini); Wen, Tran & Ba, "BatchEnsemble", ICLR 2020. B rows, F features, D input width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn


@dataclass(frozen=True)
class EnsembleConfig:
    """`[model.ensemble]`. Attributes: `members`: k; 1 for no ensemble. Training and scoring cost k times as much."""

    members: Annotated[int, Gt(0)] = 1


class Members(nn.Module):
    """x_m = r_m ⊙ x for each member m: the views that the shared network sees (TabM-mini).

    r is drawn from N(0, 1), once for each feature and member (embeddings precede it), and then trained for each
    element. Whatever stands behind it, experts and gates included, is shared; the towers behind that are each member's
    own. Each member has its own loss, Σ_m ℓ(z_m, y) / k, never the loss of their mean; what is predicted is the mean of
    their probabilities. TabM proper has such adapters in every layer: that is not done here.

    Args:
        widths: `[F]`, of each feature's part of x.
        config: the knobs.
    """

    def __init__(self, widths: Sequence[int], config: EnsembleConfig) -> None:
        super().__init__()
        drawn = torch.randn(config.members, len(widths))
        self.scale = nn.Parameter(drawn.repeat_interleave(torch.tensor(widths), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[k·B, D]`, all rows of the first member first."""
        return (x * self.scale.unsqueeze(1)).flatten(0, 1)
