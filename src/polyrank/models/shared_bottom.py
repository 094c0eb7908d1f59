"""Shared-Bottom, hard parameter sharing: one trunk for all tasks.

Caruana, "Multitask Learning", Machine Learning 1997.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig
from polyrank.nn.ownership import Levels


@dataclass(frozen=True)
class SharedBottomConfig(NetworkConfig):
    """The trunk's layers, see `NetworkConfig`."""

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (256, 128)


class SharedBottom(nn.Module):
    """h = f(x), the same h for every task's tower.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
    """

    def __init__(self, in_width: int, tasks: int, config: SharedBottomConfig) -> None:
        super().__init__()
        self.tasks = tasks
        self.trunk = Level(in_width, [(1, 0)], [], config.widths, **config.style)
        self.out_width = self.trunk.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        shared: Tensor = self.trunk([x])[0]
        return shared.expand(self.tasks, -1, -1)

    def levels(self) -> Levels:
        """The trunk: all tasks read its output."""
        return [(self.trunk, ())]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none."""
        return []
