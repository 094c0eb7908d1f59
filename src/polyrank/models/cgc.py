"""CGC, customised gate control: PLE's single level (Tang et al., RecSys 2020, section 4.1)."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Interval, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights
from polyrank.nn.extraction import LevelShape, first_level
from polyrank.nn.inputs import Inputs


@dataclass(frozen=True)
class CGCConfig:
    """The paper tunes the number of experts.

    Attributes:
        specific_experts: m_t, experts of each task.
        shared_experts: m_s, experts of all tasks.
        widths: each expert's layers.
        dropout: the share of activations dropped after each layer.
    """

    specific_experts: Annotated[int, Gt(0)] = 2
    shared_experts: Annotated[int, Gt(0)] = 2
    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (64,)
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class CGC(nn.Module):
    """g_t(x) = w_t(x) S_t(x), w_t(x) = softmax(W_t x), W_t of size (m_t + m_s) × D without bias.

    S_t stacks task t's own m_t experts and the m_s shared ones: an own expert is trained by its task alone. No shared
    gate exists.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
    """

    def __init__(self, in_width: int, tasks: int, config: CGCConfig) -> None:
        super().__init__()
        self.shape = LevelShape(tasks, config.specific_experts, config.shared_experts, config.widths, config.dropout)
        self.level = first_level(in_width, self.shape, shared_gate=False)
        self.out_width = config.widths[-1]

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        mixed: Tensor = self.level([x])[0]
        return mixed

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The T gates' weights over own and shared experts."""
        return self.shape.named(1, self.level([x])[1])
