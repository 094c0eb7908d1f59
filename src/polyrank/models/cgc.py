"""CGC, customised gate control: PLE's single level (Tang et al., RecSys 2020, section 4.1)."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from polyrank.nn.experts import GatedConfig, GateWeights
from polyrank.nn.extraction import LevelShape, first_level
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.ownership import Levels


@dataclass(frozen=True)
class CGCConfig(GatedConfig):
    """The paper tunes the number of experts.

    Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        specific_experts: m_t, experts of each task.
        shared_experts: m_s, experts of all tasks.
    """

    specific_experts: Annotated[int, Gt(0)] = 2
    shared_experts: Annotated[int, Gt(0)] = 2


class CGC(nn.Module):
    """g_t(x) = w_t(x) S_t(x), w_t(x) = softmax(W_t x), W_t of size (m_t + m_s) × D without bias.

    S_t stacks task t's own m_t experts and the m_s shared ones: an own expert is trained by its task alone. No shared
    gate exists.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    def __init__(self, in_width: int, tasks: int, config: CGCConfig, columns: InputColumns | None = None) -> None:
        super().__init__()
        experts = config.specific_experts, config.shared_experts
        self.shape = LevelShape(tasks, *experts, config.widths, **config.style)
        self.level = first_level(in_width, self.shape, shared_gate=False, gate_columns=config.gate_columns(columns))
        self.out_width = config.widths[-1]

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        mixed: Tensor = self.level([x])[0]
        return mixed

    def levels(self) -> Levels:
        """One, with a gate for each task."""
        return [(self.level, range(self.shape.tasks))]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The T gates' weights over own and shared experts."""
        return self.shape.named(1, self.level([x])[1])
