"""One extraction level of CGC and PLE: task-specific and shared experts under selective gates.

B rows, T tasks, M own experts a task, S shared experts, D input width, H expert width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, ExpertGroup, GateWeights, mix, mix_own


@dataclass(frozen=True)
class LevelShape:
    """A level's `tasks` T, `specific` experts M of each, `shared` experts S, their layers' `widths`, and `dropout`."""

    tasks: int
    specific: int
    shared: int
    widths: tuple[int, ...]
    dropout: float = 0.0


@dataclass(frozen=True)
class States:
    """What a level hands on: `tasks` `[B, T, H]`, and `shared` `[B, H]`, None from the last level."""

    tasks: Tensor
    shared: Tensor | None


@dataclass(frozen=True)
class LevelWeights:
    """A level's gate weights: `tasks` `[B, T, M + S]` (own experts first), `shared` `[B, T·M + S]` or None."""

    tasks: Tensor
    shared: Tensor | None


class _Extraction(nn.Module):
    """What the first level and the later ones have in common: how gates combine experts, and what they are called."""

    def __init__(self, shape: LevelShape) -> None:
        super().__init__()
        self.tasks, self.specific, self.shared = shape.tasks, shape.specific, shape.shared

    def combine(
        self, own: Tensor, shared: Tensor, logits: Tensor, shared_logits: Tensor | None
    ) -> tuple[States, LevelWeights]:
        """Mix.

        Args:
            own: `[B, T, M, H]`.
            shared: `[B, S, H]`.
            logits: `[B, T, M + S]` of the task gates.
            shared_logits: `[B, T·M + S]` of the shared gate, or None.
        """
        weights = torch.softmax(logits, dim=2)
        mixed = mix_own(weights[:, :, : self.specific], own) + mix(weights[:, :, self.specific :], shared)
        if shared_logits is None:
            return States(mixed, None), LevelWeights(weights, None)
        over_all = torch.softmax(shared_logits, dim=1)
        split = self.tasks * self.specific
        all_own = own.reshape(len(own), split, -1)
        handed_on = mix(over_all[:, None, :split], all_own) + mix(over_all[:, None, split:], shared)
        return States(mixed, handed_on[:, 0]), LevelWeights(weights, over_all)

    def named(self, level: int, weights: LevelWeights) -> list[GateWeights]:
        """Gate weights with their owners."""
        shared = tuple((SHARED, index) for index in range(self.shared))
        own = [tuple((task, index) for index in range(self.specific)) for task in range(self.tasks)]
        found = [GateWeights(level, task, own[task] + shared, weights.tasks[:, task]) for task in range(self.tasks)]
        if weights.shared is not None:
            everyone = tuple(expert for experts in own for expert in experts) + shared
            found.append(GateWeights(level, SHARED, everyone, weights.shared))
        return found


class FirstExtraction(_Extraction):
    """The first level: every expert and gate reads the same x, so their first layers are one product.

    Args:
        in_width: D.
        shape: T, M, S and the experts' layers.
        shared_gate: whether a level follows that reads the shared state.
    """

    def __init__(self, in_width: int, shape: LevelShape, *, shared_gate: bool) -> None:
        super().__init__(shape)
        everyone = shape.tasks * shape.specific + shape.shared
        logits = shape.tasks * (shape.specific + shape.shared) + (everyone if shared_gate else 0)
        self.group = ExpertGroup(in_width, everyone, shape.widths, gate_logits=logits, dropout=shape.dropout)

    def forward(self, x: Tensor) -> tuple[States, LevelWeights]:
        """`[B, D]` → the level's states and gate weights."""
        experts, logits = self.group(x.unsqueeze(0))
        experts, logits = experts[:, 0], logits[:, 0]  # [B, T·M + S, H], [B, K]
        split, gates = self.tasks * self.specific, self.tasks * (self.specific + self.shared)
        own = experts[:, :split].unflatten(1, (self.tasks, self.specific))
        task_logits = logits[:, :gates].unflatten(1, (self.tasks, self.specific + self.shared))
        return self.combine(
            own, experts[:, split:], task_logits, logits[:, gates:] if logits.shape[1] > gates else None
        )


class LaterExtraction(_Extraction):
    """A level above the first: task t's experts and gate read x_t, the shared ones read x_s.

    Args: as for FirstExtraction.
    """

    def __init__(self, in_width: int, shape: LevelShape, *, shared_gate: bool) -> None:
        super().__init__(shape)
        tasks, specific, shared, widths, dropout = (
            shape.tasks,
            shape.specific,
            shape.shared,
            shape.widths,
            shape.dropout,
        )
        own_logits = specific + shared
        all_logits = tasks * specific + shared if shared_gate else 0
        self.own = ExpertGroup(in_width, specific, widths, inputs=tasks, gate_logits=own_logits, dropout=dropout)
        self.common = ExpertGroup(in_width, shared, widths, gate_logits=all_logits, dropout=dropout)

    def forward(self, states: States) -> tuple[States, LevelWeights]:
        """The states of the level below → this level's states and gate weights."""
        assert states.shared is not None, "a level above the first needs the shared state of the level below"
        own, logits = self.own(states.tasks.transpose(0, 1))
        shared, shared_logits = self.common(states.shared.unsqueeze(0))
        return self.combine(own, shared[:, 0], logits, shared_logits[:, 0] if shared_logits.shape[2] else None)
