"""The tree of `given` relations (exposure → click → purchase): joint labels, and labels that contradict it.

B rows, T tasks. A task without `given` is a root: its sample space is every exposure.
"""

from collections.abc import Sequence

import numpy as np

from polyrank.data.paths import ROOT, path
from polyrank.data.schema import Schema, Task
from polyrank.errors import DataError


def parents(tasks: Sequence[Task]) -> tuple[int, ...]:
    """Each task's parent as its place among `tasks`; ROOT where it has none there."""
    places = {task.name: place for place, task in enumerate(tasks)}
    return tuple(places.get(task.given, ROOT) for task in tasks)


def joint_labels(schema: Schema, labels: np.ndarray) -> np.ndarray:
    """Did the task's event and all its ancestors' happen: the product of the labels along its path.

    A factor of 0 makes the product 0 whatever else is missing: a purchase without a click did not happen, even where
    the log says nothing of purchases. It is 1 where all factors are 1, and not defined elsewhere.

    Args:
        schema: the tree.
        labels: `[B, T]` of all the schema's tasks, NaN = missing.

    Returns:
        `[B, T]` float32: 0, 1, or NaN where it is not defined; for a root its own label; NaN for tasks that are not
        binary.
    """
    above = parents(schema.tasks)
    result = np.full(labels.shape, np.nan, np.float32)
    for task, of in enumerate(schema.tasks):
        if of.kind == "binary":
            factors = labels[:, path(above, task)]
            product = np.where((factors == 0).any(axis=1), np.float32(0), factors.prod(axis=1))
            result[:, task] = product
    return result


def contradictions(schema: Schema, labels: np.ndarray) -> np.ndarray:
    """Where a label contradicts the tree: it is 1, and an ancestor's is 0 (a purchase without a click).

    Args:
        schema: the tree.
        labels: `[B, T]` as they were read, NaN = missing.

    Returns:
        `[B, T]` bool; False for roots and for tasks that are not binary.
    """
    above = parents(schema.tasks)
    result = np.zeros(labels.shape, bool)
    for task, of in enumerate(schema.tasks):
        if of.given and of.kind == "binary":
            result[:, task] = (labels[:, task] == 1) & (labels[:, path(above, task)[:-1]] == 0).any(axis=1)
    return result


def settled(schema: Schema, labels: np.ndarray) -> np.ndarray:
    """The labels as the schema's rule for contradictions has them (see `Schema.contradiction`).

    Args:
        schema: the tree and its rule.
        labels: `[B, T]` as they were read.

    Returns:
        `[B, T]`; the same array where there is nothing to change.

    Raises:
        DataError: there is a contradiction, and the rule is `error`.
    """
    if schema.contradiction == "trust_parent" or not any(task.given for task in schema.tasks):
        return labels
    wrong = contradictions(schema, labels)
    if not wrong.any():
        return labels
    refuse(schema, wrong.sum(axis=0))
    above, result = parents(schema.tasks), labels.copy()
    for task in np.flatnonzero(wrong.any(axis=0)).tolist():
        for ancestor in path(above, task)[:-1]:
            refused = wrong[:, task] & (labels[:, ancestor] == 0)
            result[refused, ancestor] = 1.0 if schema.contradiction == "trust_child" else np.nan
        if schema.contradiction == "drop":
            result[wrong[:, task], task] = np.nan
    return result


def refuse(schema: Schema, counts: np.ndarray) -> None:
    """Raise DataError if the rule is `error` and there are contradictions; `counts` is `[T]`."""
    if schema.contradiction == "error" and counts.any():
        raise DataError(
            "a label may not contradict the tree of given relations (contradiction = 'error')",
            received="; ".join(told(schema, counts)),
            mend="clean the log, correct given, or set contradiction = 'trust_parent', 'trust_child' or 'drop'",
        )


_OUTCOME = {
    "trust_parent": "they are outside the sample space of {name}",
    "trust_child": "the ancestor is taken as 1",
    "drop": "both labels are taken as missing",
    "error": "the data is refused",
}


def told(schema: Schema, counts: np.ndarray) -> list[str]:
    """Contradictions in words, one sentence for each task that has some; `counts` is `[T]`."""
    above = parents(schema.tasks)
    sentences = []
    for place, (task, count) in enumerate(zip(schema.tasks, counts.tolist(), strict=True)):
        if count:
            higher = " or a task above it" if len(path(above, place)) > 2 else ""
            sentences.append(
                f"{task.name}: {count:,} rows have {task.name} = 1 although {task.given} = 0{higher}; "
                f"{_OUTCOME[schema.contradiction].format(name=task.name)} (contradiction = {schema.contradiction!r}). "
                f"Is given = {task.given!r} right?"
            )
    return sentences
