"""OMoE: common experts under one gate for all tasks.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, section
4.1: what MMoE is compared with there; the mixture-of-experts layer of Shazeer et al., 2017, without sparsity.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, GatedConfig, GateWeights, Level
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.ownership import Levels


@dataclass(frozen=True)
class OMoEConfig(GatedConfig):
    """As for `mmoe`. Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        experts: E.
    """

    experts: Annotated[int, Gt(0)] = 8


class OMoE(nn.Module):
    """f(x) = Σ_e g(x)_e · f_e(x), g(x) = softmax(W x), W without bias; every task's tower reads the same f(x).

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    def __init__(self, in_width: int, tasks: int, config: OMoEConfig, columns: InputColumns | None = None) -> None:
        super().__init__()
        self.tasks, self.experts = tasks, config.experts
        groups = [(config.experts, config.experts)]
        read = config.gate_columns(columns)
        self.level = Level(in_width, groups, [range(config.experts)], config.widths, gate_columns=read, **config.style)
        self.out_width = self.level.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        mixed: Tensor = self.level([x])[0]
        return mixed.expand(self.tasks, -1, -1)

    def levels(self) -> Levels:
        """One, whose gate is everyone's."""
        return [(self.level, [SHARED])]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The one gate's weights over the E experts."""
        names = tuple((SHARED, index) for index in range(self.experts))
        return [GateWeights(1, SHARED, names, self.level([x])[1])]
