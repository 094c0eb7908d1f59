"""The schema: which columns are features, which are tasks, and on which rows each task lives."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, MinLen

from polyrank import config
from polyrank.data.columns import is_text
from polyrank.data.durations import DurationHead, check_duration
from polyrank.data.layout import FeatureKind
from polyrank.errors import ConfigError, DataError

Contradiction = Literal["trust_parent", "trust_child", "drop", "error"]
TaskKind = Literal["binary", "regression", "count", "duration"]

# What a user reads when a column's type does not suit the feature's kind.
_SUITABLE: dict[str, str] = {
    "id": "integers or strings (floats only where every value is a whole number)",
    "category": "integers, strings or booleans",
    "number": "integers, floats or booleans",
    "tags": "delimited strings, or lists of integers or strings",
    "sequence": "lists of integers or strings, newest last",
}
# What a feature of another kind has no use for.
_KNOBS: dict[str, tuple[FeatureKind, ...]] = {
    "shares": ("tags", "sequence"),
    "max_length": ("tags", "sequence"),
    "delimiter": ("tags",),
    "min_count": ("id", "category", "tags", "sequence"),
    "hash_buckets": ("id", "category", "tags", "sequence"),
    "bins": ("number",),
}
_TASK_NAME = re.compile(r"[\w-][\w.-]*")  # it becomes a part of file and column names


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
        name: what it is called here, and in the names of files and columns: letters, digits, `_`, `-` and `.`.
        column: the label's column; null (or NaN) means *label missing*: the row trains the other tasks, not this one.
        kind: `binary`; `regression` (any number); `count` (whole, 0 or more); `duration` (0 or more: a watch time).
        positive: for `binary`: the column's value that counts as 1 ("50000+."); without it the column holds 0 and 1.
        above: for `binary`, instead: a number counts as 1 where it is above this (a stay of more than 0 seconds).
        given: the task whose label must be 1 for a row to belong to this task's sample space.
        weight: a column of row weights for this task's loss; a row of weight 0 is left out of this task, in the loss
            and in the metrics, but its label still decides about the sample spaces of the tasks `given` this one.
        head: for `duration`: how it is learned: `log_normal` (the default), `ordinal`, `cread` or `d2q`.
        item_duration: for `duration` with the head `d2q`, which needs it: the `number` feature that holds how long the
            item is; its quantile bins are D2Q's groups.
    """

    name: Annotated[str, MinLen(1)]
    kind: TaskKind
    column: str = ""
    positive: str | int | float | bool | None = None
    above: float | None = None
    given: str = ""
    weight: str = ""
    head: DurationHead | None = None
    item_duration: str = ""

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
        contradiction: what becomes of a row whose label contradicts the tree of `given` relations (a purchase = 1
            without a click = 1): `trust_parent` keeps it outside the child's sample space; `trust_child` takes the
            click as made; `drop` takes both labels as missing; `error` refuses the data. It is counted and told in any
            case.
    """

    features: Annotated[tuple[Feature, ...], MinLen(1)]
    tasks: Annotated[tuple[Task, ...], MinLen(1)]
    group: str = ""
    time: str = ""
    contradiction: Contradiction = "trust_parent"

    def __post_init__(self) -> None:
        """Check what no single field can: names, references, leaks, keys that would do nothing."""
        for kind, names in (("feature", [f.name for f in self.features]), ("task", [t.name for t in self.tasks])):
            for name in names:
                if names.count(name) > 1:
                    received = f"{name!r} twice"
                    raise ConfigError(f"two {kind}s may not share a name", received=received, mend="rename one")
        self._check_leaks()
        features = {feature.name: feature for feature in self.features}
        for feature in self.features:
            _check_feature(feature, features)
        tasks = {task.name: task for task in self.tasks}
        for task in self.tasks:
            _check_task(task)
            check_duration(task, features)
            self._check_given(task, tasks)

    def _check_leaks(self) -> None:
        """No column that a task reads may serve as anything else."""
        labels = {task.source: task.name for task in self.tasks}
        for key, column in (("group", self.group), ("time", self.time)):
            if column in labels:
                raise ConfigError(
                    f"{key} may not be the label of a task",
                    received=f"{key} = {column!r}, the label of task {labels[column]!r}",
                    mend="name another column, or remove it",
                )
        read = labels | {task.weight: task.name for task in self.tasks if task.weight}
        for feature in self.features:
            if (column := feature.source) in read:
                raise ConfigError(
                    "a column that a task reads may not be a feature: the label would leak",
                    received=f"feature {feature.name!r} reads {column!r}, as task {read[column]!r} does",
                    mend="remove the feature",
                )

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

    def sample_spaces(self, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Which rows each task learns from and is judged on.

        `where[b, t]` = label t of row b is present, its weight for t is above 0, and every ancestor of t along `given`
        is present and 1, whatever the row's weight for the ancestor.

        Args:
            labels: `[B, T]`, NaN = missing.
            weights: `[B, T]` row weights; None or `[B, 0]` where no task has such.

        Returns:
            `[B, T]` bool.
        """
        where: np.ndarray = ~np.isnan(labels)
        if weights is not None and weights.shape[1]:
            where &= weights > 0
        order = self.task_names
        for index, task in enumerate(self.tasks):
            while task.given:
                parent = order.index(task.given)
                where[:, index] &= labels[:, parent] == 1
                task = self.tasks[parent]
        return where

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


def _check_feature(feature: Feature, features: Mapping[str, Feature]) -> None:
    """Its keys must have an effect, and `shares` name a vocabulary."""
    given = [field.name for field in fields_of(feature) if getattr(feature, field.name) != field.default]
    for knob in given:
        kinds = _KNOBS.get(knob, (feature.kind,))
        if feature.kind not in kinds:
            raise ConfigError(
                f"feature {feature.name!r}: {knob} is for {' and '.join(kinds)} features",
                received=f"kind = {feature.kind!r}, {knob} = {getattr(feature, knob)!r}",
                mend=f"remove {knob}, or change the kind",
            )
    if "hash_buckets" in given and "min_count" in given:
        raise ConfigError(
            f"feature {feature.name!r}: min_count is for a vocabulary, and with hash_buckets none is kept",
            received=f"hash_buckets = {feature.hash_buckets}, min_count = {feature.min_count}",
            mend="remove one of them",
        )
    if not feature.shares:
        return
    owner = features.get(feature.shares)
    if owner is None or owner.kind not in ("id", "category"):
        raise ConfigError(
            f"feature {feature.name!r}: shares must name an id or category feature",
            received=feature.shares,
            mend=config.nearest(feature.shares, (f.name for f in features.values() if f.kind in ("id", "category"))),
        )
    for knob in ("hash_buckets", "min_count"):
        if knob in given:
            raise ConfigError(
                f"feature {feature.name!r}: {knob} belongs to the feature whose vocabulary it shares",
                received=f"shares = {feature.shares!r}, {knob} = {getattr(feature, knob)}",
                mend=f"set {knob} on {feature.shares!r}",
            )


def _check_task(task: Task) -> None:
    """Its name must be one for files, and `positive` have an effect."""
    if not _TASK_NAME.fullmatch(task.name):
        raise ConfigError(
            "a task's name must be of letters, digits, '_', '-' and '.', and not begin with '.'",
            received=repr(task.name),
            mend=f"rename it, and name its column: column = {task.source!r}",
        )
    if task.above is not None and (task.kind != "binary" or task.positive is not None):
        raise ConfigError(
            f"task {task.name!r}: above is for binary tasks without positive",
            received=f"kind = {task.kind!r}, positive = {task.positive!r}, above = {task.above!r}",
            mend="remove above, or what it contradicts",
        )
    if task.kind != "binary" and task.positive is not None:
        raise ConfigError(
            f"task {task.name!r}: positive is for binary tasks",
            received=f"kind = {task.kind!r}, positive = {task.positive!r}",
            mend="remove positive, or change the kind",
        )


def load_schema(path: Path) -> Schema:
    """Read `schema.toml`.

    Raises:
        ConfigError: it is missing, not TOML, or breaks a rule.
    """
    return config.build(Schema, config.read_toml(path, "schema"), "")


def save_schema(schema: Schema, path: Path) -> None:
    """Write `schema.toml`, defaults left out."""
    table: config.Table = {key: value for key, value in (("group", schema.group), ("time", schema.time)) if value}
    if schema.contradiction != "trust_parent":
        table["contradiction"] = schema.contradiction
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
