"""DBMTL: the head of a task reads the features of the tasks it depends on, as in a Bayesian network.

Wang et al., "DBMTL: Deep Bayesian Multi-Target Learning for Recommender Systems", arXiv 1902.09154 (2019). The paper's
text was not read; formula and sizes are those of EasyRec.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from polyrank.data.paths import chained, downward
from polyrank.nn.experts import SHARED, GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.layers import NetworkConfig, StackedMLP
from polyrank.nn.ownership import Owned, of_stack


@dataclass(frozen=True)
class DBMTLConfig(NetworkConfig):
    """The shared bottom's layers, see `NetworkConfig`.

    EasyRec's sample, for logs of billions, has 1024, 512, 256 at the bottom, 256, 128, 64, 32 a task and 32 a relation.

    Attributes:
        task_widths: the layers of each task's network on the bottom.
        relation_widths: the layers of each task's network on its own features and its parent's.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (256, 128)
    task_widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (64, 32)
    relation_widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (32,)


class DBMTL(nn.Module):
    """P(y_1 … y_T | x) = Π_t P(y_t | y_π(t), x), with features r in place of the events:

        b = f(x),  h_t = g_t(b),  r_t = h_t for a root, else r_t = m_t([h_t; r_π(t)])

    f, g and m are networks with ReLU. What depends on what is told by `given`; where no task has a parent, the tasks'
    order is the chain. Gradients flow from a task into its parent's features, as in EasyRec.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        parents: `[T]` the tree; None for the chain of the tasks' order.

    Raises:
        ValueError: the last task layer and the last relation layer are not equally wide, although both feed the towers.
    """  # noqa: D415

    def __init__(self, in_width: int, tasks: int, config: DBMTLConfig, parents: Sequence[int] | None = None) -> None:
        super().__init__()
        self.out_width = width = config.task_widths[-1]
        if config.relation_widths[-1] != width:
            raise ValueError(
                "the last of relation_widths must equal the last of task_widths. "
                f"Received: {config.relation_widths[-1]} and {width}"
            )
        self.bottom = Level(in_width, [(1, 0)], [], config.widths, **config.style)
        self.networks = StackedMLP(tasks, self.bottom.out_width, config.task_widths, **config.style)
        self.parents = chained(parents, tasks)
        self.order = downward(self.parents)
        self.relations = nn.ModuleList(
            StackedMLP(1, 2 * width, config.relation_widths, **config.style) for _ in self.order
        )

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        bottom: Tensor = self.bottom([x])[0]
        features = list(self.networks(bottom.expand(len(self.parents), -1, -1)).unbind())
        for task, relation in zip(self.order, self.relations, strict=True):
            both = torch.cat([features[task], features[self.parents[task]]], dim=1)
            features[task] = relation(both[None])[0]
        return torch.stack(features)

    def owned(self) -> Owned:
        """The networks and relations of tasks that are no one's parent."""
        owners = [SHARED if task in self.parents else task for task in range(len(self.parents))]
        found = of_stack(self.networks, owners)
        for task, relation in zip(self.order, self.relations, strict=True):
            found += of_stack(relation, [owners[task]])
        return found

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none."""
        return []
