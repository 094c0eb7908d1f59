"""A tree as the place of each node's parent, and the paths in it."""

from collections.abc import Sequence

ROOT = -1  # the parent of a task that has none


def path(parents: Sequence[int], task: int) -> list[int]:
    """The ancestors of a task, from its root down to its parent, and the task itself last."""
    found = [task]
    while (above := parents[found[-1]]) != ROOT:
        found.append(above)
    return found[::-1]


def chained(parents: Sequence[int] | None, tasks: int) -> list[int]:
    """The tree; where no task has a parent, or none is told, the chain of the tasks' order."""
    if parents is None or set(parents) == {ROOT}:
        return [*range(ROOT, tasks - 1)]
    return list(parents)


def downward(parents: Sequence[int]) -> list[int]:
    """The tasks that have a parent, nearest to the root first: each stands after its parent."""
    below = [task for task, parent in enumerate(parents) if parent != ROOT]
    return sorted(below, key=lambda task: len(path(parents, task)))
