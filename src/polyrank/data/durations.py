"""What only duration tasks have in a schema: how they are learned, and D2Q's duration of the item."""

from collections.abc import Mapping
from typing import Any, Literal

from polyrank import config
from polyrank.errors import ConfigError

DurationHead = Literal["log_normal", "ordinal", "cread", "d2q"]


def check_duration(task: Any, features: Mapping[str, Any]) -> None:
    """Only durations have a head, and `d2q` alone an item duration, a number that is known when the ranking is made.

    Args:
        task: a `Task`.
        features: the schema's, by name.

    Raises:
        ConfigError: a key has no effect, or is missing.
    """
    for key, value in (("head", task.head), ("item_duration", task.item_duration)):
        if value and task.kind != "duration":
            raise ConfigError(
                f"task {task.name!r}: {key} is for duration tasks",
                received=f"kind = {task.kind!r}, {key} = {value!r}",
                mend=f"remove {key}, or set kind = 'duration'",
            )
    if task.item_duration and task.head != "d2q":
        raise ConfigError(
            f"task {task.name!r}: item_duration is for the head d2q",
            received=f"head = {task.head or 'log_normal'!r}, item_duration = {task.item_duration!r}",
            mend="remove item_duration, or set head = 'd2q'",
        )
    numbers = [name for name, feature in features.items() if feature.kind == "number"]
    if task.head == "d2q" and task.item_duration not in numbers:
        raise ConfigError(
            f"task {task.name!r}: the head d2q needs item_duration, the number feature that says how long the item is",
            received=task.item_duration or "none",
            mend=config.nearest(task.item_duration, numbers),
        )
