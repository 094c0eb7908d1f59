"""Cross-stitch networks: a network for each task, their activations mixed after every layer.

Misra, Shrivastava, Gupta, Hebert, "Cross-stitch Networks for Multi-task Learning", CVPR 2016.
"""

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Gt, Interval, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, TaskNetworks
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig
from polyrank.nn.ownership import Owned, of_stack


@dataclass(frozen=True)
class CrossStitchConfig(NetworkConfig):
    """Has the fields of `NetworkConfig` too: the layers of each task's network.

    Attributes:
        own: what a unit starts with for the task itself; the rest of 1 goes to the others in equal parts.
        per_channel: a unit for every channel of a layer, as the paper has them for feature maps; else one a layer.
        rate: how many times faster than other parameters the units move.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (128, 64)
    own: Annotated[float, Interval(ge=0, le=1)] = 0.9
    per_channel: bool = False
    rate: Annotated[float, Gt(0)] = 10.0


class CrossStitch(nn.Module):
    """x̃_t^l = Σ_s A^l_ts x_s^l; layer l + 1 of task t, and in the end its tower, reads x̃_t^l.

    A^l is `[T, T]`, or `[T, T, H]` with a unit for every channel; it does not depend on the row. The paper trains units
    with two to three orders of magnitude the learning rate of the rest, by SGD. Under Adam, whose steps do not depend
    on the gradient's size, that would throw them about: here A = A₀ + rate · Δ with Δ the parameter, which Adam moves
    `rate` times as fast, and `rate` is 10.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
    """

    start: Tensor

    def __init__(self, in_width: int, tasks: int, config: CrossStitchConfig) -> None:
        super().__init__()
        self.rate = config.rate
        self.networks = TaskNetworks(in_width, tasks, config.widths, **config.style)
        self.out_width = self.networks.out_width
        start = torch.full((tasks, tasks), (1.0 - config.own) / max(1, tasks - 1))
        start.fill_diagonal_(config.own if tasks > 1 else 1.0)
        self.register_buffer("start", start.unsqueeze(2), persistent=False)
        self.moved = nn.ParameterList(
            torch.zeros(tasks, tasks, width if config.per_channel else 1) for width in config.widths
        )

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        return cast("Tensor", self.networks(x, self._stitch))

    def units(self, layer: int) -> Tensor:
        """A of a layer (from 0), `[T, T, H]` or `[T, T, 1]`."""
        units: Tensor = self.start + self.rate * self.moved[layer]
        return units

    def _stitch(self, layer: int, x: Tensor) -> Tensor:
        units = self.units(layer)
        if units.shape[2] == 1:
            return torch.einsum("ts,sbh->tbh", units[:, :, 0], x)
        return torch.einsum("tsh,sbh->tbh", units, x)

    def owned(self) -> Owned:
        """The last units, a row of them each; what stands below them all tasks may read."""
        return of_stack(self.moved[-1:], range(len(self.start)))

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none: its units are no mixture, and the same for every row."""
        return []
