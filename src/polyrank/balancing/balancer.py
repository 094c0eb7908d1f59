"""The Balancer protocol: task losses → one gradient; and the registry of balancers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor

from polyrank.balancing.weights import Static, StaticConfig


class Balancer(Protocol):
    """Sees losses, never the model or a config file. Made as `cls(task names, config)`.

    `state_dict` and `load_state_dict` carry what it remembers, so that a resumed run equals an uninterrupted one.
    """

    def backward(self, losses: Tensor, present: Tensor) -> Tensor:
        """Accumulate one gradient for the whole model.

        Args:
            losses: `[T]`, attached to the graph.
            present: `[T]` bool: the batch had a row for the task.

        Returns:
            `[T]` the weights that were used, detached.
        """

    def state_dict(self) -> dict[str, Any]:
        """What must be saved."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What was saved."""


@dataclass(frozen=True)
class Entry:
    """A balancer and its config."""

    kind: Any
    config: Any


BALANCERS: Mapping[str, Entry] = MappingProxyType({"static": Entry(Static, StaticConfig)})


def build_balancer(method: str, tasks: Sequence[str], config: Any) -> Balancer:
    """Make the balancer `method` for tasks of these names."""
    balancer: Balancer = BALANCERS[method].kind(tasks, config)
    return balancer
