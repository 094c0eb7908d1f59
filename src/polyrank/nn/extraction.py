"""Extraction levels of CGC and PLE: task-specific and shared experts under selective gates.

B rows, T tasks, M own experts a task, S shared experts, D input width, H expert width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from polyrank.nn.experts import SHARED, GateWeights, Level
from polyrank.nn.layers import Style


@dataclass(frozen=True)
class LevelShape:
    """A level's `tasks` T, `specific` experts M of each, `shared` experts S, and their layers (see `NetworkConfig`)."""

    tasks: int
    specific: int
    shared: int
    widths: tuple[int, ...]
    dropout: float = 0.0
    layer_norm: bool = False
    residual: bool = False

    @property
    def style(self) -> Style:
        """The layers but for their widths."""
        return {"dropout": self.dropout, "layer_norm": self.layer_norm, "residual": self.residual}

    @property
    def own(self) -> list[list[tuple[int, int]]]:
        """Every task's own experts, by owner and number."""
        return [[(task, number) for number in range(self.specific)] for task in range(self.tasks)]

    @property
    def common(self) -> list[tuple[int, int]]:
        """The shared experts."""
        return [(SHARED, number) for number in range(self.shared)]

    @property
    def experts(self) -> list[tuple[int, int]]:
        """All: the tasks' own experts, task after task, then the shared ones."""
        return [*chain.from_iterable(self.own), *self.common]

    def gates(self, *, shared: bool) -> list[list[tuple[int, int]]]:
        """The experts that each task's gate sees, own ones first; then, if asked for, those of the shared gate: all."""
        tasks = [own + self.common for own in self.own]
        return [*tasks, self.experts] if shared else tasks

    def named(self, level: int, weights: Tensor) -> list[GateWeights]:
        """A level's gate weights `[B, L]` with their owners."""
        found, column = [], 0
        with_shared = weights.shape[1] > sum(len(gate) for gate in self.gates(shared=False))
        for gate, experts in enumerate(self.gates(shared=with_shared)):
            owner = gate if gate < self.tasks else SHARED
            found.append(GateWeights(level, owner, tuple(experts), weights[:, column : column + len(experts)]))
            column += len(experts)
        return found


def first_level(
    in_width: int, shape: LevelShape, *, shared_gate: bool, gate_columns: Sequence[int] | None = None
) -> Level:
    """The first level: every expert and gate reads the same x, so all their first layers are one product.

    Gates read the columns `gate_columns` of it alone, if they are given.
    """
    gates = _numbered(shape, shared=shared_gate)
    experts = shape.tasks * shape.specific + shape.shared
    groups = [(experts, sum(len(gate) for gate in gates))]
    return Level(in_width, groups, gates, shape.widths, gate_columns=gate_columns, **shape.style)


def later_level(in_width: int, shape: LevelShape, *, shared_gate: bool) -> Level:
    """A level above the first: task t's experts and gate read x_t, the shared ones read x_s, which comes last."""
    gates = _numbered(shape, shared=shared_gate)
    groups = [(shape.specific, len(gate)) for gate in gates[: shape.tasks]]
    groups.append((shape.shared, len(gates[-1]) if shared_gate else 0))
    return Level(in_width, groups, gates, shape.widths, **shape.style)


def _numbered(shape: LevelShape, *, shared: bool) -> list[list[int]]:
    """The gates' experts as numbers, counted in the order of `experts`."""
    order = {expert: number for number, expert in enumerate(shape.experts)}
    return [[order[expert] for expert in gate] for gate in shape.gates(shared=shared)]
