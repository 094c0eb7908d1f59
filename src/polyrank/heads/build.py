"""The heads of a schema's tasks, with the constants that were learned from the training labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from polyrank.data.encoders import TaskStatistics
from polyrank.data.layout import Layout
from polyrank.data.schema import Task
from polyrank.heads.cread import Cread, CreadConfig
from polyrank.heads.d2q import D2Q
from polyrank.heads.heads import Heads, WideHead
from polyrank.heads.log_normal import LogNormal
from polyrank.heads.ordinal import Ordinal, OrdinalConfig


@dataclass(frozen=True)
class HeadsConfig:
    """The knobs of duration heads that have any. Attributes: `ordinal`, `cread`: by head."""

    ordinal: OrdinalConfig = field(default_factory=OrdinalConfig)
    cread: CreadConfig = field(default_factory=CreadConfig)


DURATION_HEADS: Mapping[str, Callable[[TaskStatistics, HeadsConfig], WideHead]] = MappingProxyType(
    {
        "log_normal": lambda labels, config: LogNormal(labels.quantiles),
        "ordinal": lambda labels, config: Ordinal(labels.quantiles, config.ordinal),
        "cread": lambda labels, config: Cread(labels.quantiles, labels.std, config.cread),
        "d2q": lambda labels, config: D2Q(labels.grouped),
    }
)


def build_heads(
    tasks: Sequence[Task], statistics: Sequence[TaskStatistics], layout: Layout, config: HeadsConfig
) -> Heads:
    """The tasks' heads, in order.

    Args:
        tasks: T.
        statistics: their labels over the training rows.
        layout: the encoded matrix: where the duration of items stands in it.
        config: the knobs.
    """
    wide = {
        place: DURATION_HEADS[task.head or "log_normal"](statistics[place], config)
        for place, task in enumerate(tasks)
        if task.kind == "duration"
    }
    starts = {field.name: field.start for field in layout.fields}
    columns = {place: starts[task.item_duration] for place, task in enumerate(tasks) if task.item_duration}
    return Heads([t.kind for t in tasks], [s.mean for s in statistics], [s.std for s in statistics], wide, columns)
