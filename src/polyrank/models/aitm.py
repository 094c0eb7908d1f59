"""AITM: each task attends over its own vector and what its predecessor in the funnel hands on.

Xi et al., "Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task Learning in
Targeted Display Advertising", KDD 2021.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.data.paths import chained, downward
from polyrank.nn.experts import SHARED, GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import Dropout, NetworkConfig, StackedLinear
from polyrank.nn.ownership import Owned, of_level, of_stack


@dataclass(frozen=True)
class AITMConfig(NetworkConfig):
    """The layers of each task's network, see `NetworkConfig`.

    The official code has 128, 64 and 32 units, and drops 0.1, 0.3 and 0.3 of them; here one rate is for all layers.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (128, 64, 32)


class AITM(nn.Module):
    """q_t = f_t(x) [B, k]. A root passes on z_t = q_t; below it, with z of its parent,

        p = ReLU(z_π(t) A_t + a_t)                      the information transfer
        U = [q_t; p]                                    two tokens
        w_u = softmax over the tokens of ⟨u W_K, u W_Q⟩ / √k,  z_t = Σ_u w_u · u W_V

    Each token meets itself, not the other; W_V, W_K and W_Q [k, k] are those of all tasks, as in the official code.
    What comes before what is told by `given`; where no task has a parent, the tasks' order is the chain.

    The paper's loss is `space.training = "direct"`, the default with this architecture: z_t gives the probability of
    the joint event over all impressions, and the calibrator keeps it below the predecessor's. It needs `given`.
    Departures: no batch normalisation in the transfer; the towers (`model.towers`) stand between z_t and the logit, so
    the paper's own shape needs `model.towers = []`.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        parents: `[T]` the tree; None for the chain of the tasks' order.
    """  # noqa: D415

    def __init__(self, in_width: int, tasks: int, config: AITMConfig, parents: Sequence[int] | None = None) -> None:
        super().__init__()
        self.networks = Level(in_width, [(tasks, 0)], [], config.widths, **config.style)
        self.out_width = width = config.widths[-1]
        self.parents = chained(parents, tasks)
        self.order = downward(self.parents)
        self.transfers = nn.ModuleList(StackedLinear(1, width, width) for _ in self.order)
        self.dropout = Dropout(config.dropout)
        self.attention = StackedLinear(3, width, width, bias=False) if self.order else None

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, k]`."""
        vectors = list(self.networks([x])[0].unbind())
        for task, transfer in zip(self.order, self.transfers, strict=True):
            handed = self.dropout(torch.relu(transfer(vectors[self.parents[task]][None])))
            vectors[task] = self.attend(torch.cat([vectors[task][None], handed]))
        return torch.stack(vectors)

    def attend(self, tokens: Tensor) -> Tensor:
        """Two tokens `[2, B, k]` → their attended sum `[B, k]`."""
        assert self.attention is not None
        rows = tokens.flatten(0, 1).expand(3, -1, -1)
        values, keys, queries = self.attention(rows).unflatten(1, tokens.shape[:2]).unbind()
        weights = torch.softmax((keys * queries).sum(dim=2) / math.sqrt(self.out_width), dim=0)
        attended: Tensor = (weights[:, :, None] * values).sum(dim=0)
        return attended

    def owned(self) -> Owned:
        """The networks and transfers of tasks that are no one's parent; the attention, if there is one such alone."""
        owners = [SHARED if task in self.parents else task for task in range(len(self.parents))]
        found = of_level(self.networks, owners)
        for task, transfer in zip(self.order, self.transfers, strict=True):
            found += of_stack(transfer, [owners[task]])
        if self.attention is not None and len(self.order) == 1:
            found += of_stack(self.attention, [owners[self.order[0]]] * 3)
        return found

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none: the attention weighs a task's own vector against a predecessor's, not experts."""
        return []
