"""The names a formula may use: what a task's predictions are, which columns there are, what a search may choose."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from polyrank.data.schema import Task
from polyrank.errors import ConfigError

HeadKind: TypeAlias = Literal["probability", "amount", "number"]
RANGES: Final[Mapping[HeadKind, tuple[float, float]]] = {
    "probability": (0.0, 1.0),
    "amount": (0.0, math.inf),  # a duration, a count, a price
    "number": (-math.inf, math.inf),
}


@dataclass(frozen=True)
class Parameter:
    """A number of a formula that a search may choose.

    Attributes:
        value: where the search starts, and what the formula has without one.
        low: smallest value tried.
        high: largest value tried.
        log: tried evenly in its logarithm: right for weights, which matter by their ratios.
    """

    value: float
    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        """Check the bounds."""
        bounds = (self.value, self.low, self.high)
        if not all(map(math.isfinite, bounds)) or not self.low <= self.value <= self.high or self.low == self.high:
            raise ConfigError(
                "a parameter needs low ≤ value ≤ high, and low < high",
                received=f"low {self.low}, value {self.value}, high {self.high}",
                mend="write a plain number in the formula for one that is fixed",
            )
        if self.log and self.low <= 0:
            raise ConfigError(
                "a parameter on a log scale must be above 0",
                received=f"low = {self.low}",
                mend="raise low, or set log = false",
            )


@dataclass(frozen=True)
class Scope:
    """The names a formula may use.

    Attributes:
        heads: the tasks, with what their predictions are.
        context: other columns; any real numbers.
        parameters: what a search may choose.
    """

    heads: Mapping[str, HeadKind]
    context: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A name means one thing."""
        every = [*self.heads, *self.context, *self.parameters]
        for name in every:
            if every.count(name) > 1:
                raise ConfigError(
                    "a name in a formula must be one of a task, a column and a parameter",
                    received=f"{name!r} is two of them",
                    mend="rename the parameter, or leave the column out",
                )


def head_kind(task: Task) -> HeadKind:
    """What a task's predictions are."""
    return {"binary": "probability", "regression": "number"}.get(task.kind, "amount")  # type: ignore[return-value]
