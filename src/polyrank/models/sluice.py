"""Sluice networks: cross-stitch on halves of layers, and a learned mixture of layers.

Ruder, Bingel, Augenstein, Søgaard, "Latent Multi-task Architecture Learning", AAAI 2019.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, TaskNetworks
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig, StackedLinear
from polyrank.nn.ownership import Owned, of_stack


@dataclass(frozen=True)
class SluiceConfig(NetworkConfig):
    """The authors' code has the penalty off. Has the fields of `NetworkConfig` too: the layers of each task's network.

    Attributes:
        own: what α starts with for a half itself; the rest of 1 goes to the other halves in equal parts.
        strength: λ, of the halves' orthogonality; 0 for none.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (64, 64)
    own: Annotated[float, Interval(ge=0, le=1)] = 0.95
    strength: Annotated[float, Ge(0)] = 0.0


class Sluice(nn.Module):
    """Layer l of each task gives two halves G; the 2T halves are mixed, G̃ = α^l G, and layer l + 1 reads its two.

    Task t's vector is Σ_l β_tl x̃_t^l over all layers. The objective's penalty is λ Σ_t Σ_l ‖(W_t1^l)ᵀ W_t2^l‖²_F, W_t1
    and W_t2 the weights that give the two halves, as in the authors' code: they should not learn the same. α starts
    near the identity (the authors' code writes its 0.95 where they are on the diagonal for no T, which is taken for a
    slip; and 0.05 in all other places, here what is left of 1 is shared out), β at 1/L as theirs does by default.
    Layers are dense with ReLU; the paper's are bidirectional LSTMs over words.

    β mixes layers as wide as the last one; another width is brought to it by a linear map of the task's own, which the
    paper, whose layers are all alike, does not need.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.

    Raises:
        ValueError: a width that cannot be halved.
    """

    def __init__(self, in_width: int, tasks: int, config: SluiceConfig) -> None:
        super().__init__()
        if any(width % 2 for width in config.widths):
            raise ValueError(f"sluice halves every layer: widths must be even. Received: {list(config.widths)}")
        self.strength = config.strength
        self.networks = TaskNetworks(in_width, tasks, config.widths, **config.style)
        self.out_width = self.networks.out_width
        layers, halves = len(config.widths), 2 * tasks
        start = torch.full((halves, halves), (1.0 - config.own) / (halves - 1)).fill_diagonal_(config.own)
        self.alphas = nn.ParameterList(start.clone() for _ in range(layers))
        self.betas = nn.Parameter(torch.full((tasks, layers), 1.0 / layers))
        self.widen = nn.ModuleDict(
            {
                str(layer): StackedLinear(tasks, width, self.out_width, bias=False)
                for layer, width in enumerate(config.widths)
                if width != self.out_width
            }
        )

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        found: list[Tensor] = []

        def between(layer: int, outputs: Tensor) -> Tensor:
            mixed = self._stitch(layer, outputs)
            found.append(self.widen[str(layer)](mixed) if str(layer) in self.widen else mixed)
            return mixed

        self.networks(x, between)
        return torch.einsum("tl,ltbh->tbh", self.betas, torch.stack(found))

    def _stitch(self, layer: int, outputs: Tensor) -> Tensor:
        """`[T, B, H]` → `[T, B, H]`: α on the halves (task 1's first, task 1's second, task 2's first, …)."""
        tasks, rows, width = outputs.shape
        halves = outputs.view(tasks, rows, 2, width // 2).transpose(1, 2).reshape(2 * tasks, rows, -1)
        mixed = torch.einsum("qp,pbh->qbh", self.alphas[layer], halves)
        return mixed.view(tasks, 2, rows, -1).transpose(1, 2).reshape(tasks, rows, width)

    def owned(self) -> Owned:
        """The last α, β and what widens layers; what stands below the last α all tasks read."""
        tasks = torch.arange(len(self.betas))
        last = (self.alphas[-1], tasks.repeat_interleave(2)[:, None])
        return [last, (self.betas, tasks[:, None]), *of_stack(self.widen, range(len(tasks)))]

    def penalty(self) -> Tensor | None:
        """λ times the halves' overlap; None where λ is 0."""
        if not self.strength:
            return None
        overlaps = []
        for weights in self.networks.matrices():  # [T, in, H]
            first, second = weights.chunk(2, dim=2)
            overlaps.append(torch.bmm(first.transpose(1, 2), second).square().sum())
        return self.strength * torch.stack(overlaps).sum()

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none: α and β are no mixtures, and the same for every row."""
        return []
