"""A network for one task alone: the reference that sharing is measured against."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig


@dataclass(frozen=True)
class SingleTaskConfig(NetworkConfig):
    """The hidden layers, see `NetworkConfig`."""

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (128, 64)


class SingleTask(nn.Module):
    """h = f(x): nothing is shared, because there is nobody to share with.

    Args:
        in_width: D.
        tasks: must be 1.
        config: the knobs.

    Raises:
        ValueError: more than one task.
    """

    def __init__(self, in_width: int, tasks: int, config: SingleTaskConfig) -> None:
        super().__init__()
        if tasks != 1:
            raise ValueError(f"single_task is for one task. Received: {tasks} tasks; name one with data.tasks")
        self.network = Level(in_width, [(1, 0)], [], config.widths, **config.style)
        self.out_width = self.network.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[1, B, H]`."""
        output: Tensor = self.network([x])[0]
        return output

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none."""
        return []
