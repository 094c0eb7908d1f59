"""A tree as the place of each node's parent, and the paths in it."""

from collections.abc import Sequence

ROOT = -1  # the parent of a task that has none


def path(parents: Sequence[int], task: int) -> list[int]:
    """The ancestors of a task, from its root down to its parent, and the task itself last."""
    found = [task]
    while (above := parents[found[-1]]) != ROOT:
        found.append(above)
    return found[::-1]
