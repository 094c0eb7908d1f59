"""Rows → the encoded matrix. Encoders are fitted on training data only, in one streaming pass; their state is JSON."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from polyrank.data.columns import INTEGER, TEXT, buffers, distinct, is_text, keys, list_lengths, lists, numbers, padded
from polyrank.data.distributions import LabelSketch
from polyrank.data.fitting import Moments, NumberSketch, ValueCounts
from polyrank.data.labels import read_groups, read_labels, read_weights
from polyrank.data.layout import Encoded, Field, Layout
from polyrank.data.leaves import Leaves
from polyrank.data.readers import Source
from polyrank.data.schema import Feature, Schema
from polyrank.data.tree import contradictions, refuse, settled, told
from polyrank.data.vocabularies import Buckets, Encoder, NumberScale, Vocabulary, restore
from polyrank.errors import DataError, RunError
from polyrank.files import read_json, writing
from polyrank.progress import Progress, Silent

_MAX_ROWS = 2**31 - 1
_CACHED_ROWS = 4_096


@dataclass(frozen=True)
class TaskStatistics:
    """A task's label over the training rows of its sample space: heads start from it, regression is scaled by it.

    Attributes:
        rows: how many; `mean`, `std`: of the label.
        quantiles: of a duration: equally spaced, from the least label to the greatest; else empty.
        grouped: where the task names an `item_duration`: the quantiles for each of its bins, 0 for missing; else empty.
    """

    rows: int
    mean: float
    std: float
    quantiles: tuple[float, ...] = ()
    grouped: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Encoders:
    """Everything that was learned from the training data in order to encode it.

    Attributes:
        leaves: trees whose leaves are further features, encoded behind all others; None for none.
    """

    schema: Schema
    encoders: Mapping[str, Encoder]
    statistics: tuple[TaskStatistics, ...]
    leaves: Leaves | None = None
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        """Lay the fields out, in the schema's order."""
        fields: list[Field] = []
        column = dense = 0
        for feature in self.schema.features:
            width = feature.max_length if feature.kind in ("tags", "sequence") else 1
            number = feature.kind == "number"
            table = feature.shares or feature.name
            fields.append(Field(feature.name, feature.kind, column, column + width, table, dense if number else -1))
            column, dense = column + width, dense + number
        tables = {name: encoder.rows for name, encoder in self.encoders.items()}
        scales = {name: encoder for name, encoder in self.encoders.items() if isinstance(encoder, NumberScale)}
        edges = {name: tuple(scale.scaled(np.asarray(scale.edges)).tolist()) for name, scale in scales.items()}
        if self.leaves is not None:
            further, their = self.leaves.fields(column)
            fields, tables = [*fields, *further], {**tables, **their}
        object.__setattr__(self, "layout", Layout(tuple(fields), tables, edges))

    @classmethod
    def fit(
        cls, schema: Schema, source: Source, progress: Progress | None = None, *, known: "Encoders | None" = None
    ) -> Self:
        """Learn vocabularies, bins, scales and label statistics in one pass over `source`, with bounded memory.

        With `known`, of a schema with the same features, vocabularies, bins and scales are taken over, and only the
        statistics of the labels are learned.

        Raises:
            DataError: a column is missing or of the wrong type, a label is not 0/1 or contradicts the tree where the
                schema forbids it, no row of a task has a label, or a binary label has one class only.
        """
        schema.check(source.schema, source.name)
        new = () if known else schema.features
        counts = {f.name: ValueCounts() for f in new if _has_vocabulary(f)}
        sketches = {f.name: NumberSketch() for f in new if f.kind == "number"}
        types = {f.name: _key_type(source.schema.field(f.source).type) for f in schema.features if f.kind != "number"}
        moments = Moments(len(schema.tasks))
        contradicting = np.zeros(len(schema.tasks), np.int64)
        durations = {index: LabelSketch() for index, task in enumerate(schema.tasks) if task.kind == "duration"}
        columns = {feature.name: feature.source for feature in schema.features}
        with (progress or Silent()).bar(f"fitting encoders on {source.name}", source.count_rows()) as bar:
            for batch in source.batches(schema.columns(labels=True)):
                for feature in new:
                    array = batch.column(feature.source)
                    if feature.kind == "number":
                        sketches[feature.name].add(numbers(array, feature.source))
                    elif (owner := feature.shares or feature.name) in counts:
                        counts[owner].add(_key_array(feature, array, types[owner]))
                labels = read_labels(schema, batch)
                contradicting += contradictions(schema, labels).sum(axis=0)
                if schema.contradiction != "error":  # else all are counted first, and refused below
                    labels = settled(schema, labels)
                where = schema.sample_spaces(labels, read_weights(schema, batch))
                labels = np.where(where, labels, np.nan)
                moments.add(labels)
                for index, sketch in durations.items():
                    item = columns.get(schema.tasks[index].item_duration)
                    sketch.add(labels[:, index], numbers(batch.column(item), item) if item else None)
                bar.advance(batch.num_rows)
        refuse(schema, contradicting)
        for sentence in told(schema, contradicting):
            (progress or Silent()).say(f"contradiction in {source.name}: {sentence}")
        encoders: dict[str, Encoder] = dict(known.encoders) if known else {}
        for feature in new:
            if feature.kind == "number":
                seen = sketches[feature.name]
                encoders[feature.name] = NumberScale(seen.edges(feature.bins), seen.mean, seen.std)
            elif feature.name in counts:
                encoders[feature.name] = Vocabulary(counts[feature.name].values(types[feature.name], feature.min_count))
            elif not feature.shares:
                encoders[feature.name] = Buckets(feature.hash_buckets, types[feature.name])
        _check_rows(encoders)
        statistics = _statistics(schema, source.name, *moments.result())
        for index, sketch in durations.items():
            scale = encoders.get(schema.tasks[index].item_duration)
            grouped = sketch.grouped(scale.edges) if isinstance(scale, NumberScale) else ()
            statistics[index] = replace(statistics[index], quantiles=sketch.quantiles(), grouped=grouped)
        return cls(schema, encoders, tuple(statistics))

    def encode(self, batch: pa.RecordBatch, *, labels: bool = True) -> Encoded:
        """Encode a chunk; without `labels` only features are read, as in scoring.

        Raises:
            DataError: a value breaks a rule of its column.
        """
        ids = np.empty((batch.num_rows, self.layout.id_columns), np.int32)
        dense = np.empty((batch.num_rows, self.layout.dense_columns), np.float32)
        columns: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []  # of the matrix, of values, of places
        for place, feature in zip(self.layout.fields, self.schema.features, strict=False):  # leaves last
            array, places = batch.column(feature.source), None
            if feature.kind != "number" or pa.types.is_integer(array.type):
                array, places = distinct(array)
            encoder = self.encoders[place.table]
            if isinstance(encoder, NumberScale):
                values = numbers(array, feature.source)
                columns.append((ids[:, place.start], encoder.ids(values), places))
                columns.append((dense[:, place.dense], encoder.scaled(values), places))
            elif feature.kind in ("tags", "sequence"):
                bags = lists(array, feature.delimiter)
                flat = encoder.ids(bags.flatten(), feature.source)
                width = place.stop - place.start
                newest_last = feature.kind == "sequence"
                rows = padded(flat, list_lengths(bags), width, newest_last=newest_last)
                columns.append((ids[:, place.start : place.stop], rows, places))
            else:
                columns.append((ids[:, place.start], encoder.ids(array, feature.source), places))
        _fill(columns, batch.num_rows)
        if self.leaves is not None:
            own = sum(place.stop - place.start for place in self.layout.fields if not place.derived)
            ids[:, own:] = self.leaves.ids(self.layout, ids[:, :own], dense)
        none = np.zeros((batch.num_rows, 0), np.float32)
        grouped = labels and bool(self.schema.group)
        return Encoded(
            ids,
            dense,
            settled(self.schema, read_labels(self.schema, batch)) if labels else none,
            read_weights(self.schema, batch) if labels else none,
            read_groups(self.schema, batch) if grouped else np.zeros(0, np.int64),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that encoding takes from the encoders; the same after `save` and `load`."""
        digest = hashlib.sha256()
        for name, encoder in self.encoders.items():
            digest.update(json.dumps(name).encode())
            if isinstance(encoder, Vocabulary):
                for buffer in buffers(encoder.values):
                    digest.update(buffer)
            else:
                digest.update("".join(encoder.json()).encode())
        if self.leaves is not None:
            digest.update("".join(self.leaves.json()).encode())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write `encoders.json`, one encoder a line."""
        with writing(directory / "encoders.json") as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.write('{"format": 1, "encoders": {')
            for place, (name, encoder) in enumerate(self.encoders.items()):
                stream.write(f"{',' if place else ''}\n{json.dumps(name)}: ")
                stream.writelines(encoder.json())
            tasks = json.dumps([asdict(statistics) for statistics in self.statistics], allow_nan=False)
            stream.write(f'\n}}, "tasks": {tasks}')
            if self.leaves is not None:
                stream.write(',\n"leaves": ')
                stream.writelines(self.leaves.json())
            stream.write("}\n")

    @classmethod
    def load(cls, directory: Path, schema: Schema) -> Self:
        """Read what `save` wrote.

        Raises:
            RunError: missing, damaged, or of another format.
        """
        state = read_json(directory / "encoders.json")
        try:
            if state["format"] != 1:
                raise ValueError(f"format {state['format']}")
            saved = state["encoders"]
            # Each is let go as soon as it is restored: values that JSON has boxed take many times their size.
            encoders = {name: restore(saved.pop(name)) for name in list(saved)}
            if set(encoders) != {f.name for f in schema.features if not f.shares}:
                raise ValueError("they are of other features than the schema's")
            if len(state["tasks"]) != len(schema.tasks):
                raise ValueError("they are of other tasks than the schema's")
            leaves = Leaves.restore(state["leaves"]) if "leaves" in state else None
            return cls(schema, encoders, tuple(_restored(of) for of in state["tasks"]), leaves)
        except (AttributeError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise RunError(
                "encoders.json must be of format 1 and whole", received=f"{directory}: {error}", mend="train again"
            ) from error


def _fill(columns: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]], rows: int) -> None:
    """Write columns side by side: each row's value, or the one at its place; as many rows at a time as cache holds."""
    for first in range(0, rows, _CACHED_ROWS):
        part = slice(first, first + _CACHED_ROWS)
        for column, values, places in columns:
            column[part] = values[part] if places is None else values.take(places[part], axis=0, mode="clip")


def _has_vocabulary(feature: Feature) -> bool:
    return feature.kind != "number" and not feature.shares and not feature.hash_buckets


def _key_type(kind: pa.DataType) -> pa.DataType:
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return TEXT if is_text(kind) else INTEGER


def _key_array(feature: Feature, array: pa.Array, key_type: pa.DataType) -> pa.Array:
    if feature.kind in ("tags", "sequence"):
        array = lists(array, feature.delimiter).flatten()
    return keys(array, feature.source, key_type)


def _check_rows(encoders: Mapping[str, Encoder]) -> None:
    total = sum(encoder.rows for encoder in encoders.values())
    if total > _MAX_ROWS:
        largest = max(encoders, key=lambda name: encoders[name].rows)
        raise DataError(
            f"all embedding rows together must stay below {_MAX_ROWS:,}",
            received=f"{total:,}, of which {encoders[largest].rows:,} for {largest!r}",
            mend=f"set hash_buckets or min_count for {largest!r}",
        )


def _restored(state: Mapping[str, Any]) -> TaskStatistics:
    quantiles, grouped = state.get("quantiles", ()), state.get("grouped", ())
    return TaskStatistics(
        state["rows"], state["mean"], state["std"], tuple(quantiles), tuple(tuple(group) for group in grouped)
    )


def _statistics(
    schema: Schema, name: str, rows: np.ndarray, means: np.ndarray, stds: np.ndarray
) -> list[TaskStatistics]:
    result = []
    for task, n, mean, std in zip(schema.tasks, rows, means, stds, strict=True):
        where = f" among the rows with {task.given} = 1" if task.given else ""
        if n == 0:
            raise DataError(
                f"task {task.name!r} must have a label on at least one training row{where}",
                received=f"{name}: every label in {task.source!r} is missing",
                mend="give data with labels, or remove the task",
            )
        if std == 0.0:
            classes = "both classes" if task.kind == "binary" else "different values"
            raise DataError(
                f"the label of task {task.name!r} must have {classes} in the training data{where}",
                received=f"{name}: all {int(n):,} labels in {task.source!r} are {mean:g}",
                mend="check `positive` and the filter that made the data, or remove the task",
            )
        result.append(TaskStatistics(int(n), float(mean), float(std)))
    return result
