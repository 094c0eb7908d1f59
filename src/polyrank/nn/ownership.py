"""Whose is what in an architecture: which parameters, or parts of them, belong to one task, and which to all.

An architecture of levels says it by `levels()`: its levels from the input up, each with the owner of each of its gates
(a task's number, or SHARED). Then an expert belongs to a task if only that task's gates see it, and to all otherwise.
The last level hands a vector per task to the towers. Any other says it by `owned()`: what only one task's vector
depends on. B rows, T tasks, S shared experts of the last level, L its gate logits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, Level, TaskNetworks

Levels = Sequence[tuple[Level, Sequence[int]]]
Owned = list[tuple[nn.Parameter, Tensor]]
"""Parameters, each with the owner of every slice of it: int64 of a shape that broadcasts against the parameter's."""
NONE = -1  # the column of a gate that does not see an expert


def expert_owners(level: Level, gates: Sequence[int]) -> list[int]:
    """The owner of each expert."""
    count = sum(group.experts for group in level.groups)  # type: ignore[misc]
    seen: list[set[int]] = [set() for _ in range(count)]
    for owner, members in zip(gates, level.gates, strict=True):
        for expert in members:
            seen[expert].add(owner)
    return [owners.pop() if len(owners) == 1 else SHARED for owners in seen]


def owned_slices(architecture: nn.Module) -> Owned:
    """The parameters of an architecture that belong to single tasks at least in part."""
    said: Any = architecture
    if hasattr(said, "levels"):
        found = [part for level, gates in said.levels() for part in of_level(level, *_owners(level, gates))]
    else:
        found = said.owned() if hasattr(said, "owned") else []
    return [(parameter, owners) for parameter, owners in found if (owners != SHARED).any()]


def of_level(level: Level, experts: Sequence[int], logits: Sequence[int] = ()) -> Owned:
    """All parameters of a level, by the owners of its experts and of its gate logits."""
    found, (experts, logits) = [], (list(experts), list(logits))
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
                owners = _leading(own, parameter)
            found.append((parameter, owners))
    return found


def of_stack(module: nn.Module, owners: Sequence[int]) -> Owned:
    """All parameters of what is stacked `[G, …]`, by the owners of its G parts."""
    return [(parameter, _leading(torch.tensor(owners), parameter)) for parameter in module.parameters()]


def of_networks(networks: TaskNetworks, tasks: int) -> Owned:
    """Networks that are a task's own each."""
    return [*of_level(networks.first, range(tasks)), *of_stack(networks.later, range(tasks))]


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


def _owners(level: Level, gates: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of the experts, and of the gate logits."""
    logits = [owner for owner, members in zip(gates, level.gates, strict=True) for _ in members]
    return expert_owners(level, gates), logits


def _leading(owners: Tensor, parameter: nn.Parameter) -> Tensor:
    return owners.view(-1, *[1] * (parameter.dim() - 1))
