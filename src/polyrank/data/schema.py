"""The schema: which columns are features, which are tasks, and on which rows each task lives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, MinLen

from polyrank import config
from polyrank.data.columns import is_text
from polyrank.errors import ConfigError, DataError

FeatureKind = Literal["id", "category", "number", "tags", "sequence"]
TaskKind = Literal["binary", "regression"]

# What a user reads when a column's type does not suit the feature's kind.
_SUITABLE: dict[str, str] = {
    "id": "integers or strings (floats only where every value is a whole number)",
    "category": "integers, strings or booleans",
    "number": "integers, floats or booleans",
    "tags": "delimited strings, or lists of integers or strings",
    "sequence": "lists of integers or strings, newest last",
}


@dataclass(frozen=True)
class Feature:
    """One input column.

    Attributes:
        name: what it is called here.
        kind: `id` (open-ended, many values), `category` (few values), `number`, `tags` (an unordered bag: a delimited
            string or a list), `sequence` (a list of ids, newest last).
        column: the column in the data; the name where not given.
        shares: for `tags` and `sequence`: the `id` or `category` feature whose vocabulary and embeddings it uses.
        max_length: for `tags` and `sequence`: how many values are kept (a sequence keeps its newest).
        delimiter: for `tags` in strings: what stands between two tags.
        min_count: a value seen fewer times in the training data is out of vocabulary.
        hash_buckets: above 0, values are hashed into so many buckets and no vocabulary is kept: for open-ended ids.
            Two values may then share a bucket.
        bins: for `number`: how many quantile bins, about (a very frequent value gets its own).
    """

    name: Annotated[str, MinLen(1)]
    kind: FeatureKind
    column: str = ""
    shares: str = ""
    max_length: Annotated[int, Gt(0)] = 50
    delimiter: Annotated[str, MinLen(1)] = ","
    min_count: Annotated[int, Ge(1)] = 1
    hash_buckets: Annotated[int, Ge(0)] = 0
    bins: Annotated[int, Ge(2)] = 64

    @property
    def source(self) -> str:
        """The column it is read from."""
        return self.column or self.name


@dataclass(frozen=True)
class Task:
    """One goal, with its label and its sample space.

    Attributes:
        name: what it is called here.
        column: the label's column; null (or NaN) means *label missing*: the row trains the other tasks, not this one.
        kind: `binary` or `regression`.
        positive: for `binary`: the column's value that counts as 1 ("50000+."); without it the column holds 0 and 1.
        given: the task whose label must be 1 for a row to belong to this task's sample space.
        weight: a column of row weights for this task's loss; a row of weight 0 counts as one whose label is missing.
    """

    name: Annotated[str, MinLen(1)]
    kind: TaskKind
    column: str = ""
    positive: str | int | float | bool | None = None
    given: str = ""
    weight: str = ""

    @property
    def source(self) -> str:
        """The column it is read from."""
        return self.column or self.name


@dataclass(frozen=True)
class Schema:
    """Columns, features, tasks and sample spaces: the one description of the data.

    Attributes:
        features: at least one.
        tasks: at least one; their order is the order of every `[.., T]` axis.
        group: the column for per-group metrics (the user, the request).
        time: the clock, for splits by time.
    """

    features: Annotated[tuple[Feature, ...], MinLen(1)]
    tasks: Annotated[tuple[Task, ...], MinLen(1)]
    group: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        """Check what no single field can: names, references, leaks."""
        features = {feature.name: feature for feature in self.features}
        tasks = {task.name: task for task in self.tasks}
        for kind, items in (("feature", self.features), ("task", self.tasks)):
            names = [item.name for item in items]
            for name in names:
                if names.count(name) > 1:
                    received = f"{name!r} twice"
                    raise ConfigError(f"two {kind}s may not share a name", received=received, mend="rename one")
        labels = {task.source: task.name for task in self.tasks} | {t.weight: t.name for t in self.tasks if t.weight}
        for feature in self.features:
            column = feature.source
            if column in labels:
                raise ConfigError(
                    "a column that a task reads may not be a feature: the label would leak",
                    received=f"feature {feature.name!r} reads {column!r}, as task {labels[column]!r} does",
                    mend="remove the feature",
                )
            if feature.shares:
                owner = features.get(feature.shares)
                if owner is None or owner.kind not in ("id", "category"):
                    owners = (f.name for f in self.features if f.kind in ("id", "category"))
                    raise ConfigError(
                        f"feature {feature.name!r}: shares must name an id or category feature",
                        received=feature.shares,
                        mend=config.nearest(feature.shares, owners),
                    )
                if feature.kind not in ("tags", "sequence"):
                    raise ConfigError(
                        "only tags and sequence features share a vocabulary",
                        received=f"{feature.name!r} is {feature.kind} and shares {feature.shares!r}",
                        mend="remove shares, or change the kind",
                    )
        for task in self.tasks:
            self._check_given(task, tasks)

    def _check_given(self, task: Task, tasks: dict[str, Task]) -> None:
        seen = [task.name]
        while task.given:
            parent = tasks.get(task.given)
            if parent is None:
                raise ConfigError(
                    f"task {task.name!r}: given must name a task",
                    received=task.given,
                    mend=config.nearest(task.given, tasks),
                )
            if parent.kind != "binary":
                raise ConfigError(
                    f"task {task.name!r}: given must name a binary task",
                    received=f"{parent.name!r} is {parent.kind}",
                    mend="name a binary task, or remove given",
                )
            if parent.name in seen:
                raise ConfigError(
                    "given may not run in a circle", received=" → ".join([*seen, parent.name]), mend="remove one given"
                )
            seen.append(parent.name)
            task = parent

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks' names, in order."""
        return tuple(task.name for task in self.tasks)

    def sample_spaces(self, labels: np.ndarray) -> np.ndarray:
        """Which rows each task learns from and is judged on.

        `where[b, t]` = label t of row b is present, and every ancestor of t along `given` is present and 1.

        Args:
            labels: `[B, T]`, NaN = missing.

        Returns:
            `[B, T]` bool.
        """
        where: np.ndarray = ~np.isnan(labels)
        order = self.task_names
        for index, task in enumerate(self.tasks):
            while task.given:
                parent = order.index(task.given)
                where[:, index] &= labels[:, parent] == 1
                task = self.tasks[parent]
        return where

    def keep_tasks(self, names: Sequence[str]) -> "Schema":
        """The same data with some of the tasks only; a task whose parent is left out keeps its own label's rows.

        Raises:
            ConfigError: a name that is not a task.
        """
        for name in names:
            if name not in self.task_names:
                raise ConfigError(
                    "tasks must be in the schema", received=name, mend=config.nearest(name, self.task_names)
                )
        kept = tuple(
            replace(task, given=task.given if task.given in names else "") for task in self.tasks if task.name in names
        )
        return replace(self, tasks=kept)

    def columns(self, *, labels: bool) -> list[str]:
        """The columns to read, each once; with `labels` also those of labels, weights, group and time."""
        names = [feature.source for feature in self.features]
        if labels:
            names += [task.source for task in self.tasks] + [task.weight for task in self.tasks]
            names += [self.group, self.time]
        return list(dict.fromkeys(name for name in names if name))

    def check(self, data: pa.Schema, name: str, *, labels: bool = True) -> None:
        """Check that the data has every column in a suitable type.

        Raises:
            DataError: a column is missing or of another type.
        """
        for column in self.columns(labels=labels):
            if column not in data.names:
                raise DataError(
                    f"{name} must have the column {column!r} that the schema names",
                    received=f"{len(data.names)} columns without it",
                    mend=config.nearest(column, data.names),
                )
            if data.names.count(column) > 1:
                raise DataError(
                    f"{name} must have the column {column!r} once",
                    received=f"{data.names.count(column)} columns of that name",
                    mend="rename the others",
                )
        for feature in self.features:
            kind = data.field(feature.source).type
            if not _suits(feature.kind, kind):
                raise DataError(
                    f"{name}: a {feature.kind} feature needs {_SUITABLE[feature.kind]}",
                    received=f"column {feature.source!r} of type {kind}",
                    mend="correct its kind in the schema, or the column's type",
                )
        for task in self.tasks if labels else ():
            kind = data.field(task.source).type
            if not _numeric(kind) and (task.kind != "binary" or task.positive is None) and not pa.types.is_null(kind):
                raise DataError(
                    f"{name}: the label of task {task.name!r} must be a number",
                    received=f"column {task.source!r} of type {kind}",
                    mend='say which value is positive (positive = "yes"), or give a numeric column',
                )
        if labels and self.group and not _suits("id", kind := data.field(self.group).type):
            raise DataError(
                f"{name}: the group must be {_SUITABLE['id']}",
                received=f"column {self.group!r} of type {kind}",
                mend="name another column, or convert it",
            )


def load_schema(path: Path) -> Schema:
    """Read `schema.toml`.

    Raises:
        ConfigError: it is missing, not TOML, or breaks a rule.
    """
    return config.build(Schema, config.read_toml(path), "")


def save_schema(schema: Schema, path: Path) -> None:
    """Write `schema.toml`, defaults left out."""
    table: config.Table = {key: value for key, value in (("group", schema.group), ("time", schema.time)) if value}
    table |= {"features": [_sparse(f) for f in schema.features], "tasks": [_sparse(t) for t in schema.tasks]}
    config.write_toml(path, table)


def _sparse(item: Feature | Task) -> dict[str, object]:
    """A feature's or task's fields that differ from their defaults."""
    defaults = type(item)("?", item.kind)  # type: ignore[arg-type]  # both take (name, kind)
    table = config.to_table(item)
    plain = config.to_table(defaults)
    return {key: value for key, value in table.items() if key in ("name", "kind") or value != plain.get(key)}


def _numeric(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _listed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _suits(feature: FeatureKind, kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return True
    if feature == "number":
        return _numeric(kind)
    if feature in ("id", "category"):
        return _numeric(kind) or is_text(kind)
    inner = kind.value_type if _listed(kind) else None
    if inner is None:
        return feature == "tags" and is_text(kind)
    return bool(pa.types.is_integer(inner) or is_text(inner) or pa.types.is_null(inner))


def positions(schema: Schema, names: Iterable[str]) -> list[int]:
    """Where the named tasks stand on the `T` axis."""
    return [schema.task_names.index(name) for name in names]
