"""MMoE: common experts, a gate per task.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, GatedConfig, GateWeights, Level
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.ownership import Levels


@dataclass(frozen=True)
class MMoEConfig(GatedConfig):
    """The paper's synthetic study uses 8 one-layer experts of 16 units; these are wider, for real logs.

    Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        experts: E.
    """

    experts: Annotated[int, Gt(0)] = 8


class MMoE(nn.Module):
    """f_t(x) = Σ_e g_t(x)_e · f_e(x), g_t(x) = softmax(W_t x) (section 4.2), W_t without bias.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    def __init__(self, in_width: int, tasks: int, config: MMoEConfig, columns: InputColumns | None = None) -> None:
        super().__init__()
        self.tasks, self.experts = tasks, config.experts
        everyone = range(config.experts)
        groups = [(config.experts, tasks * config.experts)]
        read = config.gate_columns(columns)
        self.level = Level(in_width, groups, [everyone] * tasks, config.widths, gate_columns=read, **config.style)
        self.out_width = self.level.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        mixed: Tensor = self.level([x])[0]
        return mixed

    def levels(self) -> Levels:
        """One, with a gate for each task."""
        return [(self.level, range(self.tasks))]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The T gates' weights over the E experts."""
        weights = self.level([x])[1].unflatten(1, (self.tasks, self.experts))
        names = tuple((SHARED, index) for index in range(self.experts))
        return [GateWeights(1, task, names, weights[:, task]) for task in range(self.tasks)]
