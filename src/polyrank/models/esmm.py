"""ESMM: a network per task on shared embeddings, trained on the entire space.

Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate", SIGIR 2018.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig
from polyrank.nn.ownership import Owned, of_level


@dataclass(frozen=True)
class ESMMConfig(NetworkConfig):
    """The layers of each task's network, see `NetworkConfig`; the paper has 360, 200 and 80 units."""

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (360, 200, 80)


class ESMM(nn.Module):
    """h_t = f_t(x): nothing but x, the embeddings, is shared.

    What makes it ESMM is its loss, `space.training = "entire"`, the default with this architecture: for click and
    conversion, BCE(p, o) + BCE(p·q, o·r) over all impressions, and none on q itself. Departures from the paper: any
    tree of `given` relations instead of the one chain; the towers (`model.towers`) stand on top of the networks, so the
    paper's own shape needs `model.towers = []`.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
    """

    def __init__(self, in_width: int, tasks: int, config: ESMMConfig) -> None:
        super().__init__()
        self.networks = Level(in_width, [(tasks, 0)], [], config.widths, **config.style)
        self.out_width = self.networks.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        vectors: Tensor = self.networks([x])[0]
        return vectors

    def owned(self) -> Owned:
        """Each network."""
        return of_level(self.networks, range(self.networks.groups[0].experts))  # type: ignore[arg-type]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none."""
        return []
