"""Feature-wise gates: how much each feature counts for this row.

Huang, Zhang & Zhang, "FiBiNET: Combining Feature Importance and Bilinear feature Interaction for Click-Through Rate
Prediction", RecSys 2019, section 3.2 (SENET). B rows, F features, D input width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureGateConfig:
    """`[model.feature_gate]`. Attributes: `on`: whether features are gated; `reduction`: r, the squeeze of SENET."""

    on: bool = False
    reduction: Annotated[int, Gt(0)] = 3


class FeatureGate(nn.Module):
    """x_f ← g_f·x_f, g = 2σ(W₂ ReLU(W₁ s) + b₂), s_f the mean of x_f, W₁ of F/r units.

    The paper ends in a ReLU, which can shut a feature for good; 2σ lies in (0, 2) and, with W₂ at zero, starts as the
    identity, as the gates of PEPNet do.

    Args:
        widths: `[F]`, of each feature's part of x.
        config: the knobs.
    """

    spread: Tensor
    means: Tensor

    def __init__(self, widths: Sequence[int], config: FeatureGateConfig) -> None:
        super().__init__()
        count = len(widths)
        self.squeeze = nn.Linear(count, max(1, count // config.reduction))
        self.excite = nn.Linear(self.squeeze.out_features, count)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)
        owner = torch.arange(count).repeat_interleave(torch.tensor(widths))
        self.register_buffer("spread", owner, persistent=False)
        means = torch.zeros(len(owner), count)
        means[torch.arange(len(owner)), owner] = 1.0 / torch.tensor(widths, dtype=torch.float32)[owner]
        self.register_buffer("means", means, persistent=False)

    def weights(self, x: Tensor) -> Tensor:
        """`[B, D]` → g `[B, F]`."""
        return 2.0 * torch.sigmoid(self.excite(torch.relu(self.squeeze(x @ self.means))))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` → `[B, D]`."""
        return x * self.weights(x)[:, self.spread]
