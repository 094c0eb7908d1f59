"""Experts and gates: groups of experts that read the same input, and levels of such groups under softmax gates.

B rows, D input width, M experts of a group, H₁ width of their first layer, H of their last, K gate logits of a group,
E experts of a level, I its gates, L = ΣK its gate logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from polyrank.nn.inputs import Inputs
from polyrank.nn.kernels import optional
from polyrank.nn.layers import Dropout, StackedMLP

fused = optional("polyrank.nn.fused")

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
    """M experts that read the same input, and the gate logits that read it too.

    An expert is a network with ReLU (and dropout) after every layer. The first layers of all experts and all gates are
    one product, `[B, D] @ [D, M·H₁ + K]`; deeper layers are one batched product over all experts. Gates are linear
    without bias, as the MMoE and PLE papers write them, and start at zero: a uniform mixture.

    Args:
        in_width: D.
        experts: M.
        widths: the layers' widths of each expert, at least one.
        gate_logits: K, 0 for no gate.
        dropout: the share of activations dropped in training.
    """

    def __init__(
        self, in_width: int, experts: int, widths: tuple[int, ...], *, gate_logits: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        first, *deeper = widths
        self.experts, self.first_width, self.out_width, self.gate_logits = experts, first, widths[-1], gate_logits
        self.hidden = experts * first
        bound = math.sqrt(6.0 / in_width)
        weight = torch.empty(in_width, self.hidden).uniform_(-bound, bound)
        self.weight = nn.Parameter(torch.cat([weight, torch.zeros(in_width, gate_logits)], dim=1))
        self.bias = nn.Parameter(torch.zeros(self.hidden))
        self.deeper = StackedMLP(experts, first, tuple(deeper), dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, D]` → expert outputs `[M, B, H]` and gate logits `[B, K]`."""
        both = x @ self.weight
        hidden = self.dropout(torch.relu(both[:, : self.hidden] + self.bias))
        experts: Tensor = self.deeper(hidden.unflatten(1, (self.experts, -1)).transpose(0, 1))
        return experts, both[:, self.hidden :]


class Level(nn.Module):
    """Groups of experts, and gates each of which mixes some experts of any group: Σ_e softmax(logits)_e · f_e(x).

    A group's gates read what its experts read. The gates' logits stand group after group, in the order of `gates`.

    Args:
        in_width: D.
        groups: for each group its experts M and its gate logits K.
        gates: for each gate the experts it mixes (numbered over all groups); empty: the level gives out its experts.
        widths: the experts' layers.
        dropout: the share of activations dropped in training.
    """

    def __init__(
        self,
        in_width: int,
        groups: Sequence[tuple[int, int]],
        gates: Sequence[Sequence[int]],
        widths: tuple[int, ...],
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            ExpertGroup(in_width, experts, widths, gate_logits=logits, dropout=dropout) for experts, logits in groups
        )
        self.gates = [list(gate) for gate in gates]
        self.starts = list(accumulate((len(gate) for gate in self.gates), initial=0))
        assert self.starts[-1] == sum(logits for _, logits in groups), "every gate logit belongs to a gate"
        self.out_width = widths[-1]

    def forward(self, inputs: Sequence[Inputs] | Tensor) -> tuple[Tensor, Tensor]:
        """Run experts and gates.

        Args:
            inputs: what each group reads: `Inputs`, or one tensor `[groups, B, D]`.

        Returns:
            Mixtures `[I, B, H]` (without gates: the experts `[E, B, H]`) and the gates' weights `[B, L]`, without
            gradient.
        """
        if fused is not None and fused.suits(self):
            mixed, weights = fused.run(self, inputs)
            return mixed, weights
        return self.plainly(inputs)

    def plainly(self, inputs: Sequence[Inputs] | Tensor) -> tuple[Tensor, Tensor]:
        """`forward` in plain torch operations."""
        read = inputs if isinstance(inputs, Tensor) else [x.written() for x in inputs]
        found = [group(x) for group, x in zip(self.groups, read, strict=True)]
        experts = torch.cat([outputs for outputs, _ in found])
        logits = torch.cat([some for _, some in found], dim=1)
        if not self.gates:
            return experts, logits.detach()
        weights = [torch.softmax(logits[:, a:z], dim=1) for a, z in zip(self.starts, self.starts[1:], strict=False)]
        mixed = [
            torch.einsum("be,ebh->bh", weight, experts[gate]) for weight, gate in zip(weights, self.gates, strict=True)
        ]
        return torch.stack(mixed), torch.cat(weights, dim=1).detach()
