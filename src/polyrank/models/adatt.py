"""AdaTT: every task's gate sees the experts of all tasks, and its own once more by a residual, level by level.

Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations", KDD 2023.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GatedConfig, GateWeights, Level, mix
from polyrank.nn.extraction import LevelShape
from polyrank.nn.gates import Gates
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.ownership import Owned, of_stack


@dataclass(frozen=True)
class AdaTTConfig(GatedConfig):
    """The paper has two levels of one-layer experts, 256 and 128 wide; here all levels are alike.

    Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        levels: fusion levels L.
        specific_experts: m_t, native experts of each task at each level.
        shared_experts: m_s, experts of no task at each level; 0 for AdaTT-sp.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (128,)
    levels: Annotated[int, Gt(0)] = 2
    specific_experts: Annotated[int, Gt(0)] = 2
    shared_experts: Annotated[int, Ge(0)] = 1


class AdaTT(nn.Module):
    """f_t⁰ = x; f_t^l = Σ_e softmax(W_t^l f_t^{l−1})_e E_e + Σ_i v_ti^l E_ti.

    E are the level's experts, those of task t on f_t^{l−1}; the gate sees all of them, W without bias. The second sum
    is the native residual over the task's own experts, v not a mixture and the same for every row, started in ±1/√m_t;
    a unit of one expert has v = 1. Shared experts are a further unit that fuses as a task does, but on the last level,
    where nothing would read it, it only lends its experts.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for `gate_features` alone.
    """

    def __init__(self, in_width: int, tasks: int, config: AdaTTConfig, columns: InputColumns | None = None) -> None:
        super().__init__()
        shape = LevelShape(tasks, config.specific_experts, config.shared_experts, config.widths, **config.style)
        self.shape, self.out_width = shape, config.widths[-1]
        self.read = config.gate_columns(columns)
        units = [*range(tasks), *([-1] if config.shared_experts else [])]
        counts = [config.specific_experts] * tasks + [config.shared_experts] * (len(units) - tasks)
        self.fusions, self.selectors, self.natives = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number in range(config.levels):
            fused = units if number < config.levels - 1 else units[:tasks]
            groups = [(len(shape.experts), 0)] if number == 0 else [(count, 0) for count in counts]
            width = in_width if number == 0 else self.out_width
            read = len(self.read) if number == 0 and self.read is not None else width
            self.fusions.append(Level(width, groups, [], config.widths, **config.style))
            self.selectors.append(Gates(len(fused), read, len(shape.experts)))
            self.natives.append(Native(fused, shape))

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        return self._run(x)[0]

    def _run(self, x: Inputs) -> tuple[Tensor, list[Tensor]]:
        """The tasks' vectors, and each level's gate weights `[U, B, E]`."""
        found: list[Tensor] = []
        states: Tensor | None = None
        for level, selectors, native in zip(self.fusions, self.selectors, self.natives, strict=True):
            experts: Tensor = level([x] if states is None else states)[0]
            read = self._gate_input(x) if states is None else states
            weights = torch.softmax(selectors(read), dim=2)
            found.append(weights)
            states = mix(weights + native(), experts)
        assert states is not None
        return states, found

    def _gate_input(self, x: Inputs) -> Tensor:
        written = x.written()
        return written if self.read is None else written[:, self.read]

    def owned(self) -> Owned:
        """Each task's fusion at the last level; what stands below all tasks read."""
        native: Any = self.natives[-1]
        found = of_stack(self.selectors[-1], range(self.shape.tasks))
        return found if native.v is None else [*found, (native.v, native.rows)]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """Every level's gates, without the native residual."""
        _, found = self._run(x)
        owners = [*range(self.shape.tasks), -1]
        experts = tuple(self.shape.experts)
        return [
            GateWeights(number, owner, experts, each.detach())
            for number, weights in enumerate(found, start=1)
            for owner, each in zip(owners, weights, strict=False)
        ]


class Native(nn.Module):
    """v as a `[U, 1, E]` addition to the gates' weights: nothing for experts that are not a unit's own.

    Args:
        units: whose (a task, or −1 for the shared unit).
        shape: the level.
    """

    fixed: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, units: list[int], shape: LevelShape) -> None:
        super().__init__()
        counts = [shape.shared if unit < 0 else shape.specific for unit in units]
        own = [[owner == unit for owner, _ in shape.experts] for unit in units]
        where = torch.tensor(own)
        alone = torch.tensor(counts) == 1
        self.register_buffer("fixed", (where & alone[:, None]).float(), persistent=False)
        rows, columns = (where & ~alone[:, None]).nonzero(as_tuple=True)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        bounds = torch.tensor([1.0 / math.sqrt(counts[row]) for row in rows.tolist()])
        self.v = nn.Parameter((2 * torch.rand(len(rows)) - 1) * bounds) if len(rows) else None

    def forward(self) -> Tensor:
        """`[U, 1, E]`."""
        if self.v is None:
            return self.fixed.unsqueeze(1)
        return self.fixed.index_put((self.rows, self.columns), self.v).unsqueeze(1)
