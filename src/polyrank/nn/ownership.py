"""Whose is what in an architecture of levels: which parameters, or parts of them, belong to one task, and which to all.

An architecture says it by `levels()`: its levels from the input up, each with the owner of each of its gates (a task's
number, or SHARED). Then an expert belongs to a task if only that task's gates see it, and to all otherwise. The last
level hands a vector per task to the towers. B rows, T tasks, S shared experts of the last level, L its gate logits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, Level

Levels = Sequence[tuple[Level, Sequence[int]]]
NONE = -1  # the column of a gate that does not see an expert


def expert_owners(level: Level, gates: Sequence[int]) -> list[int]:
    """The owner of each expert."""
    count = sum(group.experts for group in level.groups)  # type: ignore[misc]
    seen: list[set[int]] = [set() for _ in range(count)]
    for owner, members in zip(gates, level.gates, strict=True):
        for expert in members:
            seen[expert].add(owner)
    return [owners.pop() if len(owners) == 1 else SHARED for owners in seen]


def owned_slices(levels: Levels) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that belong to single tasks at least in part: each with the owner of every slice of it.

    The owners are int64 of a shape that broadcasts against the parameter's.
    """
    found = []
    for level, gates in levels:
        experts, logits = expert_owners(level, gates), _logit_owners(level, gates)
        groups: Any = level.groups
        for group in groups:
            own, experts = torch.tensor(experts[: group.experts]), experts[group.experts :]
            read, logits = torch.tensor(logits[: group.gate_logits]), logits[group.gate_logits :]
            hidden = own.repeat_interleave(group.first_width)
            for name, parameter in group.named_parameters():
                if name == "weight":  # [D, M·H₁ + K]
                    owners = torch.cat([hidden, read.to(torch.int64)])
                elif name == "bias":  # [M·H₁]
                    owners = hidden
                else:  # [M, …]
                    owners = own.view(-1, *[1] * (parameter.dim() - 1))
                if (owners != SHARED).any():
                    found.append((parameter, owners))
    return found


def reading(levels: Levels, tasks: int) -> Tensor | None:
    """How the tasks' vectors are mixed from the last level's shared experts: `[T, S]` columns of its gate weights.

    NONE where a task's gate does not see an expert; S = 0 where all tasks read the level's output itself. None where
    tasks do not read common experts in one of these ways.
    """
    if not levels:
        return None
    level, gates = levels[-1]
    if all(owner == SHARED for owner in gates):
        return torch.zeros(tasks, 0, dtype=torch.int64) if len(level.gates) <= 1 else None
    if list(gates) != list(range(tasks)):
        return None
    shared = [expert for expert, owner in enumerate(expert_owners(level, gates)) if owner == SHARED]
    columns = [
        [start + members.index(expert) if expert in members else NONE for expert in shared]
        for start, members in zip(level.starts, level.gates, strict=False)
    ]
    return torch.tensor(columns, dtype=torch.int64) if shared else None


def _logit_owners(level: Level, gates: Sequence[int]) -> list[int]:
    return [owner for owner, members in zip(gates, level.gates, strict=True) for _ in members]
