"""Ranker × data → ScoreTable → metrics, each task on its own rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from polyrank.data.loader import Batch, Loader
from polyrank.data.paths import path
from polyrank.data.schema import Schema, Task, TaskKind
from polyrank.data.tree import joint_labels, parents
from polyrank.metrics.amounts import count_metrics, duration_metrics
from polyrank.metrics.ranking import auc, xauc
from polyrank.metrics.summary import Metrics, binary_metrics, regression_metrics
from polyrank.models.ranker import Ranker
from polyrank.progress import Bar


@dataclass(frozen=True)
class ScoreTable:
    """Predictions beside the truth, row by row. N rows, T tasks.

    Attributes:
        tasks: the T tasks.
        predictions: `[N, T]` float32, probabilities or values in the label's unit.
        labels: `[N, T]` float32; meaningful where `where` is True.
        where: `[N, T]` bool: the task's own rows (its sample space, label present).
        groups: `[N]` int64, NO_GROUP where a row has none; None where the schema has no group.
        joint_labels: `[N, T]` float32: did the event and all its ancestors' happen, NaN where that is not defined or
            the row's weight is 0 (see `polyrank.data.tree`); None where no task of the schema has a parent.
    """

    tasks: tuple[Task, ...]
    predictions: np.ndarray
    labels: np.ndarray
    where: np.ndarray
    groups: np.ndarray | None
    joint_labels: np.ndarray | None = None

    def rows(self, task: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Predictions, labels and groups of a task's own rows."""
        mask = self.where[:, task]
        groups = None if self.groups is None else self.groups[mask]
        return self.predictions[mask, task], self.labels[mask, task], groups


def predict(ranker: Ranker, batches: Iterable[Batch], tasks: int, bar: Bar | None = None) -> np.ndarray:
    """Predictions `[N, T]` float32 in the batches' order."""
    ranker.eval()
    parts = [np.zeros((0, tasks), np.float32)]
    with torch.inference_mode():
        for batch in batches:
            parts.append(ranker.predict(batch).numpy())
            if bar is not None:
                bar.advance(batch.rows)
    return np.concatenate(parts)


def score_table(ranker: Ranker, loader: Loader, bar: Bar | None = None) -> ScoreTable:
    """Predict every row of the loader's data, and set labels, sample spaces and groups beside."""
    tasks = tuple(loader.schema.tasks[index] for index in loader.task_positions)
    predictions = predict(ranker, loader.in_order(), len(tasks), bar)
    data = loader.data
    return with_truth(loader.schema, tasks, predictions, data.labels, data.groups, data.weights)


def with_truth(
    schema: Schema,
    tasks: Sequence[Task],
    predictions: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray | None = None,
) -> ScoreTable:
    """A score table from predictions for some of the schema's tasks, and labels, groups and row weights of all."""
    columns = [schema.tasks.index(task) for task in tasks]
    where = schema.sample_spaces(labels, weights)[:, columns]
    joint = None
    if any(task.given for task in schema.tasks):
        joint = joint_labels(schema, labels)
        if weights is not None and weights.shape[1]:
            joint[weights == 0] = np.nan
        joint = joint[:, columns]
    return ScoreTable(tuple(tasks), predictions, labels[:, columns], where, groups if len(groups) else None, joint)


def joint_places(tasks: Sequence[Task]) -> dict[int, list[int]]:
    """Which tasks have a joint probability, and the path that it is the product over.

    These are the binary tasks with a parent, where all ancestors are among `tasks` too; places are those in `tasks`.
    """
    return {place: steps for place, steps in given_places(tasks).items() if tasks[place].kind == "binary"}


def given_places(tasks: Sequence[Task]) -> dict[int, list[int]]:
    """Which tasks of any kind have a parent, with all ancestors among `tasks`, and the path from the first to them."""
    above = parents(tasks)
    every = {place: path(above, place) for place, task in enumerate(tasks) if task.given}
    return {place: steps for place, steps in every.items() if not tasks[steps[0]].given}


def joint_probabilities(tasks: Sequence[Task], predictions: np.ndarray) -> dict[str, np.ndarray]:
    """p(t and all its ancestors | x) on every row, by task: the product of the conditional ones along the path.

    Args:
        tasks: the T tasks.
        predictions: `[N, T]`.

    Returns:
        `[N]` float32 each.
    """
    return {tasks[place].name: predictions[:, steps].prod(axis=1) for place, steps in joint_places(tasks).items()}


def joint_metrics(table: ScoreTable, *, replicates: int = 200) -> dict[str, dict[str, Any]]:
    """Metrics of the joint probabilities over all rows where the joint label is defined, JSON-ready."""
    result: dict[str, dict[str, Any]] = {}
    places = {task.name: place for place, task in enumerate(table.tasks)}
    for name, probabilities in joint_probabilities(table.tasks, table.predictions).items():
        assert table.joint_labels is not None, "a task with a parent has joint labels"
        labels = table.joint_labels[:, places[name]]
        rows = ~np.isnan(labels)
        groups = None if table.groups is None else table.groups[rows]
        result[name] = binary_metrics(probabilities[rows], labels[rows], groups, replicates=replicates)
    return result


def task_metrics(table: ScoreTable, *, replicates: int = 200) -> dict[str, dict[str, Any]]:
    """Every task's metrics on its own rows, JSON-ready (see `MEASURES`)."""
    return {
        task.name: MEASURES[task.kind](*table.rows(index), replicates=replicates)
        for index, task in enumerate(table.tasks)
    }


MEASURES: Mapping[TaskKind, Callable[..., Metrics]] = MappingProxyType(
    {
        "binary": binary_metrics,
        "regression": regression_metrics,
        "count": count_metrics,
        "duration": duration_metrics,
    }
)
PRIMARY: Mapping[TaskKind, str] = MappingProxyType({kind: "auc" if kind == "binary" else "xauc" for kind in MEASURES})


def primary_metrics(table: ScoreTable) -> dict[str, float]:
    """Each task's ranking metric alone (AUC or XAUC), nan where it is undefined: what validation looks at."""
    values = {}
    for index, task in enumerate(table.tasks):
        predictions, labels, _ = table.rows(index)
        values[task.name] = (auc if task.kind == "binary" else xauc)(predictions, labels)
    return values
