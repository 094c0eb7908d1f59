"""STEM-Net: task-specific embeddings beside shared ones; every task sees all experts, but trains only its own.

Su et al., "STEM: Unleashing the Power of Embeddings for Multi-task Recommendation", AAAI 2024.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GatedConfig, GateWeights, Level, mix
from polyrank.nn.extraction import LevelShape
from polyrank.nn.gates import Gates
from polyrank.nn.inputs import InputColumns, Inputs, by_set
from polyrank.nn.ownership import Owned, of_level, of_stack


@dataclass(frozen=True)
class STEMConfig(GatedConfig):
    """The defaults of the authors' code. Has the fields of `GatedConfig` and `NetworkConfig` too.

    Attributes:
        specific_experts: m_t, experts of each task.
        shared_experts: m_s, experts of all tasks (8 in the authors' configs for the TikTok data).
        gate_widths: the hidden layers of the gates.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (512, 256, 128)
    specific_experts: Annotated[int, Gt(0)] = 1
    shared_experts: Annotated[int, Gt(0)] = 1
    gate_widths: tuple[Annotated[int, Gt(0)], ...] = (128, 64)


class STEM(nn.Module):
    """T + 1 embeddings of every feature: x_1 … x_T, x_s. Task t's experts read x_t, the shared ones x_s.

    g_t = softmax(MLP_t(x_t + x_s)) over the experts of all tasks and the shared ones; f_t = Σ_e g_te S_te, where S_t
    holds task t's own and the shared experts as they are, and sg[e], without gradient, for the experts of other tasks:
    "all forward, task-specific backward". So a task's loss reaches its own embeddings and the shared ones alone. One
    level, as in the paper. Scaled numbers stand in every x, so that x_t + x_s has them twice. What mixes columns before
    the architecture (`model.cross`) mixes the sets too.

    Departure: an expert's last layer ends with ReLU as its others do; in the authors' code it is linear.

    Args:
        in_width: D, of all sets.
        tasks: T.
        config: the knobs.
        columns: what stands where in x, T + 1 sets.
    """

    sets: Tensor
    trained: Tensor

    def __init__(self, in_width: int, tasks: int, config: STEMConfig, columns: InputColumns) -> None:
        super().__init__()
        self.shape = LevelShape(tasks, config.specific_experts, config.shared_experts, config.widths, **config.style)
        self.register_buffer("sets", torch.tensor(columns.sets), persistent=False)
        width = self.sets.shape[1]
        groups = [(config.specific_experts, 0)] * tasks + [(config.shared_experts, 0)]
        self.level = Level(width, groups, [], config.widths, **config.style)
        self.out_width = self.level.out_width
        read = config.gate_columns(columns)
        # Where the features that gates read stand in a set, and so in x_t + x_s.
        self.read = None if read is None else [place for place, c in enumerate(columns.sets[0]) if c in set(read)]
        gate_width = width if self.read is None else len(self.read)
        self.gate = Gates(tasks, gate_width, len(self.shape.experts), config.gate_widths, dropout=config.dropout)
        own = [[owner in (task, -1) for owner, _ in self.shape.experts] for task in range(tasks)]
        self.register_buffer("trained", torch.tensor(own).float().unsqueeze(1), persistent=False)  # [T, 1, E]

    @staticmethod
    def embedding_sets(tasks: int, config: STEMConfig) -> int:
        """T + 1: the tasks', then the shared one."""
        return tasks + 1

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        inputs = by_set(x, self.sets)
        experts = self.level(inputs)[0]
        weights = self._weights(inputs)
        # The second term is 0, and carries the gradient to the experts that a task may train.
        carrier = mix(weights.detach() * self.trained, experts)
        return mix(weights, experts.detach()) + (carrier - carrier.detach())

    def _weights(self, inputs: Tensor) -> Tensor:
        """Each gate's weights over all experts, `[T, B, E]`."""
        read = inputs if self.read is None else inputs[:, :, self.read]
        return torch.softmax(self.gate(read[:-1] + read[-1]), dim=2)

    def owned(self) -> Owned:
        """Each task's experts, which no other's loss reaches, and its gate."""
        tasks = range(self.shape.tasks)
        experts = of_level(self.level, [owner for owner, _ in self.shape.experts])
        return [*experts, *of_stack(self.gate, tasks)]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """The T gates' weights over the experts of all tasks and the shared ones."""
        weights = self._weights(by_set(x, self.sets)).detach()
        return [GateWeights(1, task, tuple(self.shape.experts), each) for task, each in enumerate(weights)]
