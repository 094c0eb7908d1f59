"""The Ranker: embeddings → architecture → towers → heads; and the registry of architectures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from annotated_types import Gt, Interval
from torch import Tensor, nn

from polyrank.data.encoders import Layout, TaskStatistics
from polyrank.data.loader import Batch
from polyrank.data.schema import Task
from polyrank.models.cgc import CGC, CGCConfig
from polyrank.models.mmoe import MMoE, MMoEConfig
from polyrank.models.ple import PLE, PLEConfig
from polyrank.models.shared_bottom import SharedBottom, SharedBottomConfig
from polyrank.models.single_task import SingleTask, SingleTaskConfig
from polyrank.nn.embeddings import Columns, Embeddings
from polyrank.nn.experts import GateWeights
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.layers import Dropout
from polyrank.nn.towers import Heads, Towers, starting_biases


class Architecture(Protocol):
    """What an architecture is: `x [B, D]` → one vector per task `[T, B, H]`.

    Made as `cls(D, T, config, **facts)`, the facts being those that its entry in ARCHITECTURES asks for. It may also
    have a method `penalty() -> Tensor | None`: what it adds to the objective, over its parameters or over the last
    batch it saw in training.
    """

    out_width: int

    def __call__(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""

    def gates(self, x: Inputs) -> list[GateWeights]:
        """What its gates do to a batch; empty where it has none."""


@dataclass(frozen=True)
class Entry:
    """An architecture and its config.

    Attributes:
        asks: what else its constructor takes by keyword: "columns" (`InputColumns`), "names" (the tasks').
        sets: (tasks, config) → how many embeddings of each feature it reads.
    """

    kind: Any
    config: Any
    asks: tuple[str, ...] = ()
    sets: Callable[[int, Any], int] = lambda tasks, config: 1


ARCHITECTURES: Mapping[str, Entry] = MappingProxyType(
    {
        "single_task": Entry(SingleTask, SingleTaskConfig),
        "shared_bottom": Entry(SharedBottom, SharedBottomConfig),
        "mmoe": Entry(MMoE, MMoEConfig, asks=("columns",)),
        "cgc": Entry(CGC, CGCConfig, asks=("columns",)),
        "ple": Entry(PLE, PLEConfig, asks=("columns",)),
    }
)


@dataclass(frozen=True)
class RankerConfig:
    """What all architectures have in common.

    Attributes:
        architecture: a key of ARCHITECTURES.
        embedding_width: W.
        embedding_dropout: the share of the input's elements dropped in training.
        towers: the hidden layers of every task's tower.
        tower_dropout: the share of activations dropped after each.
    """

    architecture: str = "mmoe"
    embedding_width: Annotated[int, Gt(0)] = 8
    embedding_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    towers: tuple[Annotated[int, Gt(0)], ...] = (32,)
    tower_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class Ranker(nn.Module):
    """A batch → one logit per task. B rows, T tasks, D input width.

    x = [embeddings of single-valued features; means over bags; scaled numbers], dropped out in training; the
    architecture gives each task a vector, its tower a logit, its head a prediction.

    Args:
        tasks: the T tasks it predicts, in order.
        statistics: their label statistics.
        layout: the encoded matrix.
        config: the architecture's name and the common knobs.
        options: the architecture's own config.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        statistics: Sequence[TaskStatistics],
        layout: Layout,
        config: RankerConfig,
        options: Any,
    ) -> None:
        super().__init__()
        self.kinds = [task.kind for task in tasks]
        entry = ARCHITECTURES[config.architecture]
        sets = entry.sets(len(tasks), options)
        self.embeddings = Embeddings(_columns(layout), config.embedding_width * sets)
        in_width = self.embeddings.features * self.embeddings.width + layout.dense_columns
        self.dropout = Dropout(config.embedding_dropout)
        facts = {
            "columns": input_columns(layout, self.embeddings.order, config.embedding_width, sets),
            "names": tuple(task.name for task in tasks),
        }
        asked = {name: facts[name] for name in entry.asks}
        self.architecture: Any = entry.kind(in_width, len(tasks), options, **asked)
        means = [s.mean for s in statistics]
        self.towers = Towers(
            len(tasks),
            self.architecture.out_width,
            config.towers,
            dropout=config.tower_dropout,
            biases=starting_biases(self.kinds, means),
        )
        self.heads = Heads(self.kinds, means, [s.std for s in statistics])

    def represent(self, batch: Batch) -> Inputs:
        """The shared input `[B, D]`."""
        x: Inputs = self.embeddings(batch.ids, batch.dense, written=self.dropout.active)
        return Inputs(self.dropout(x.wide)) if self.dropout.active else x

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, T]` float32."""
        logits: Tensor = self.towers(self.architecture(self.represent(batch)))
        return logits.float()

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities, or values in the label's unit: `[B, T]` float32."""
        result: Tensor = self.heads.predict(self(batch))
        return result

    def penalty(self) -> Tensor | None:
        """What the architecture adds to the objective; None if nothing. To be asked between forward and backward."""
        ask = getattr(self.architecture, "penalty", None)
        return None if ask is None else ask()

    def gates(self, batch: Batch) -> list[GateWeights]:
        """What the architecture's gates do to a batch."""
        found: list[GateWeights] = self.architecture.gates(self.represent(batch))
        return found

    def dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Everything but the embedding table."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def parameter_count(self) -> int:
        """All parameters, the embedding table included."""
        return sum(p.numel() for p in self.parameters())


def input_columns(layout: Layout, order: Sequence[int], width: int, sets: int) -> InputColumns:
    """What stands where in x: for each feature of `order` `sets` embeddings of `width`, then all scaled numbers."""
    features: dict[str, list[int]] = {}
    by_set: list[list[int]] = [[] for _ in range(sets)]
    for place, feature in enumerate(order):
        start = place * sets * width
        features[layout.fields[feature].name] = list(range(start, start + sets * width))
        for number, columns in enumerate(by_set):
            columns += range(start + number * width, start + (number + 1) * width)
    start = len(order) * sets * width
    for field in layout.fields:
        if field.dense >= 0:
            features[field.name].append(start + field.dense)
    numbers = range(start, start + layout.dense_columns)
    return InputColumns(features, [[*columns, *numbers] for columns in by_set])


def _columns(layout: Layout) -> Columns:
    return Columns(
        [f.start for f in layout.fields],
        [f.stop for f in layout.fields],
        [f.kind in ("tags", "sequence") for f in layout.fields],
        [f.table for f in layout.fields],
        layout.tables,
    )
