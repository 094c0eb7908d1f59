"""PLE: shared and task-specific experts, separated level by level.

Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
Recommendations", RecSys 2020.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, GatedConfig, GateWeights, Level
from polyrank.nn.extraction import LevelShape, first_level, later_level
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.ownership import Levels


@dataclass(frozen=True)
class PLEConfig(GatedConfig):
    """The paper tunes the number of experts and uses two levels of one-layer experts.

    Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        levels: extraction levels N; 1 is CGC.
        specific_experts: m_t, experts of each task at each level.
        shared_experts: m_s, experts of all tasks at each level.
    """

    levels: Annotated[int, Gt(0)] = 2
    specific_experts: Annotated[int, Gt(0)] = 2
    shared_experts: Annotated[int, Gt(0)] = 2


class PLE(nn.Module):
    """Levels j = 1 … N of customised gates (equations 6 and 7).

    x_t⁰ = x_s⁰ = x. Task t's gate at level j reads x_t^{j−1} and mixes t's own experts (on x_t^{j−1}) with the shared
    ones (on x_s^{j−1}) into x_t^j. The shared gate reads x_s^{j−1} and mixes all experts of the level into x_s^j. The
    last level has no shared gate, since nothing reads x_s^N: N·T + N − 1 gates in all, softmax without bias.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    def __init__(self, in_width: int, tasks: int, config: PLEConfig, columns: InputColumns | None = None) -> None:
        super().__init__()
        experts = config.specific_experts, config.shared_experts
        self.shape = LevelShape(tasks, *experts, config.widths, **config.style)
        last, width = config.levels, config.widths[-1]
        read = config.gate_columns(columns)
        self.first = first_level(in_width, self.shape, shared_gate=last > 1, gate_columns=read)
        self.out_width = width
        self.later: Any = nn.ModuleList(
            later_level(width, self.shape, shared_gate=level < last) for level in range(2, last + 1)
        )

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        states: Tensor = self.first([x])[0]
        for level in self.later:
            states, _ = level(states)
        return states

    def levels(self) -> Levels:
        """All. What a task's gate below the last but one level gives reaches all tasks, through a later shared gate."""
        owners = range(self.shape.tasks)
        every: list[Level] = [self.first, *self.later]
        lower = [(level, [SHARED] * len(level.gates)) for level in every[:-2]]
        return [*lower, *((level, [*owners, SHARED]) for level in every[-2:-1]), (every[-1], owners)]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The gates of every level, first the tasks' own, then the shared one."""
        states, weights = self.first([x])
        found = self.shape.named(1, weights)
        for number, level in enumerate(self.later, start=2):
            states, weights = level(states)
            found += self.shape.named(number, weights)
        return found
