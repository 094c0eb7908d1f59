"""The one ExpertGroup that MMoE, CGC and PLE share, and their gates.

B rows, G inputs, D input width, M experts an input, H expert width, K gate logits an input, T tasks.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyrank.nn.layers import Dropout, StackedMLP

SHARED = -1  # the owner of what belongs to no single task


@dataclass(frozen=True)
class GateWeights:
    """What one gate did to a batch.

    Attributes:
        level: 1 is next to the input.
        owner: the task whose gate it is, or SHARED.
        experts: for each expert it sees: (the task that owns it or SHARED, its number there).
        weights: `[B, E]`, rows sum to 1.
    """

    level: int
    owner: int
    experts: tuple[tuple[int, int], ...]
    weights: Tensor


class ExpertGroup(nn.Module):
    """M experts on each of G inputs, and the gate logits that read the same inputs.

    An expert is a network with ReLU after every layer. The first layers of all experts and all gates of an input are
    one product, `[B, D] @ [D, M·H₁ + K]`; deeper layers are one batched product over all experts. Gates are linear
    without bias, as the MMoE and PLE papers write them, and start at zero: a uniform mixture.

    Args:
        in_width: D.
        experts: M.
        widths: the layers' widths of each expert, at least one.
        inputs: G.
        gate_logits: K, 0 for no gate.
        dropout: the share of activations dropped in training.
    """

    def __init__(
        self,
        in_width: int,
        experts: int,
        widths: tuple[int, ...],
        *,
        inputs: int = 1,
        gate_logits: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        first, *deeper = widths
        self.experts, self.first_width, self.out_width = experts, first, widths[-1]
        bound = math.sqrt(6.0 / in_width)
        weight = torch.empty(inputs, in_width, experts * first).uniform_(-bound, bound)
        gates = torch.zeros(inputs, in_width, gate_logits)
        self.weight = nn.Parameter(torch.cat([weight, gates], dim=2))
        self.bias = nn.Parameter(torch.zeros(inputs, 1, experts, first))
        self.deeper = StackedMLP(inputs * experts, first, tuple(deeper), dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run all experts.

        Args:
            x: `[G, B, D]`.

        Returns:
            Expert outputs `[B, G, M, H]` and gate logits `[B, G, K]`.
        """
        inputs, rows, _ = x.shape
        split = self.experts * self.first_width
        product = torch.bmm(x, self.weight)  # [G, B, M·H₁ + K]
        hidden, logits = product[:, :, :split], product[:, :, split:]
        hidden = hidden.reshape(inputs, rows, self.experts, self.first_width) + self.bias
        hidden = self.dropout(torch.relu(hidden))  # [G, B, M, H₁]
        if self.deeper.layers:
            stacked = hidden.transpose(1, 2).reshape(inputs * self.experts, rows, self.first_width)
            hidden = self.deeper(stacked).view(inputs, self.experts, rows, self.out_width).transpose(1, 2)
        return hidden.transpose(0, 1), logits.transpose(0, 1)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Each gate's weighted sum of experts: `[B, T, E]`, `[B, E, H]` → `[B, T, H]`."""
    return torch.bmm(weights, experts)


def mix_own(weights: Tensor, own: Tensor) -> Tensor:
    """Each gate's weighted sum of its own experts: `[B, T, M]`, `[B, T, M, H]` → `[B, T, H]`."""
    return torch.matmul(weights.unsqueeze(2), own).squeeze(2)
