"""Values → ids and scaled numbers. Fitted on training data only, in one streaming pass; the state is JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.data.columns import (
    INTEGER,
    TEXT,
    hash64,
    is_text,
    keys,
    list_lengths,
    lists,
    missing,
    numbers,
    padded,
)
from polyrank.data.fitting import Moments, NumberSketch, ValueCounts
from polyrank.data.labels import read_groups, read_labels, read_weights
from polyrank.data.readers import Source
from polyrank.data.schema import Feature, FeatureKind, Schema
from polyrank.errors import DataError, RunError
from polyrank.files import read_json, write_json
from polyrank.progress import Progress, Silent

MISSING, UNKNOWN, FIRST = 0, 1, 2  # the ids every vocabulary begins with: null (or padding), out of vocabulary, values
_MAX_ROWS = 2**31 - 1
_KEY_TYPES = {"int64": INTEGER, "large_string": TEXT}


@dataclass(frozen=True)
class Vocabulary:
    """Known values, most frequent first; value number i gets id i + 2. Null gets 0, an unseen value 1.

    Values are found by binary search among their sorted hashes and then compared, so that a look-up costs nothing per
    known value, and a value whose hash is another's is unknown, never that other one.
    """

    values: pa.Array
    _order: np.ndarray = field(init=False, repr=False, compare=False)
    _hashes: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the hashes."""
        hashes = hash64(self.values)
        order = np.argsort(hashes, kind="stable")
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_hashes", hashes[order])

    @property
    def rows(self) -> int:
        """Embedding rows it needs."""
        return len(self.values) + FIRST

    def ids(self, array: pa.Array, column: str) -> np.ndarray:
        """`[n]` int32 ids of `n` values."""
        result = np.full(len(array), UNKNOWN, np.int32)
        if len(self.values):
            key = keys(array, column, self.values.type)
            place = np.searchsorted(self._hashes, hash64(key))
            found = self._order[np.minimum(place, len(self.values) - 1)]
            same = np.asarray(pc.equal(self.values.take(pa.array(found)), key).fill_null(False), bool)
            result[same] = found[same] + FIRST
        result[missing(array)] = MISSING
        return result

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {"kind": "vocabulary", "type": str(self.values.type), "values": self.values.to_pylist()}


@dataclass(frozen=True)
class Buckets:
    """Hashing for open-ended ids: id = 2 + hash(value) mod buckets; two values may share a bucket.

    Null gets 0; a text that is no integer, where the ids are integers, 1.
    """

    buckets: int
    key_type: pa.DataType

    @property
    def rows(self) -> int:
        """Embedding rows it needs."""
        return self.buckets + FIRST

    def ids(self, array: pa.Array, column: str) -> np.ndarray:
        """`[n]` int32 ids of `n` values."""
        key = keys(array, column, self.key_type)
        result = (hash64(key) % np.uint64(self.buckets)).astype(np.int32) + FIRST
        result[missing(key)] = UNKNOWN
        result[missing(array)] = MISSING
        return result

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {"kind": "buckets", "type": str(self.key_type), "buckets": self.buckets}


@dataclass(frozen=True)
class NumberScale:
    """A number's quantile bin and its scaled value.

    bin = 1 + #{edges ≤ x}; scaled = clip((s(x) − mean) / std, ±10) with s(x) = sign(x)·log(1 + |x|); both 0 where x is
    missing. The bins carry the shape, the scaled value the order within a bin.
    """

    edges: tuple[float, ...]
    mean: float
    std: float

    @property
    def rows(self) -> int:
        """Embedding rows it needs: missing, and a row per bin."""
        return len(self.edges) + 2

    def ids(self, values: np.ndarray) -> np.ndarray:
        """`[n]` int32 bins of `n` float64 values."""
        bins = 1 + np.searchsorted(np.asarray(self.edges), values, side="right")
        return np.where(np.isnan(values), MISSING, bins).astype(np.int32)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """`[n]` float32 scaled values."""
        z = (np.sign(values) * np.log1p(np.abs(values)) - self.mean) / (self.std or 1.0)
        scaled: np.ndarray = np.nan_to_num(np.clip(z, -10.0, 10.0), nan=0.0).astype(np.float32)
        return scaled

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {"kind": "number", **asdict(self)}


Encoder = Vocabulary | Buckets | NumberScale


@dataclass(frozen=True)
class TaskStatistics:
    """A task's label over the training rows of its sample space: heads start from it, regression is scaled by it."""

    rows: int
    mean: float
    std: float


@dataclass(frozen=True)
class Field:
    """Where a feature lies in the encoded matrix.

    Attributes:
        start: first id column; `stop`: one past the last (a bag or sequence has `max_length` columns).
        table: the feature whose embedding rows it uses: itself, or the one it shares with.
        dense: the column of its scaled value, −1 where it has none.
    """

    name: str
    kind: FeatureKind
    start: int
    stop: int
    table: str
    dense: int = -1


@dataclass(frozen=True)
class Layout:
    """The encoded matrix: its fields, and the embedding rows of each table."""

    fields: tuple[Field, ...]
    tables: Mapping[str, int]

    @property
    def id_columns(self) -> int:
        """Width of the id matrix."""
        return max((f.stop for f in self.fields), default=0)

    @property
    def dense_columns(self) -> int:
        """Width of the matrix of scaled values."""
        return sum(f.dense >= 0 for f in self.fields)


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: ids `[n, F]` int32, dense `[n, D]` float32; where read: labels, weights `[n, T]`, groups `[n]`."""

    ids: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Encoders:
    """Everything that was learned from the training data in order to encode it."""

    schema: Schema
    encoders: Mapping[str, Encoder]
    statistics: tuple[TaskStatistics, ...]
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
        object.__setattr__(self, "layout", Layout(tuple(fields), {n: e.rows for n, e in self.encoders.items()}))

    @classmethod
    def fit(cls, schema: Schema, source: Source, progress: Progress | None = None) -> Self:
        """Learn vocabularies, bins, scales and label statistics in one pass over `source`, with bounded memory.

        Raises:
            DataError: a column is missing or of the wrong type, a label is not 0/1, no row of a task has a label, or a
                binary label has one class only.
        """
        schema.check(source.schema, source.name)
        counts = {f.name: ValueCounts() for f in schema.features if _has_vocabulary(f)}
        sketches = {f.name: NumberSketch() for f in schema.features if f.kind == "number"}
        types = {f.name: _key_type(source.schema.field(f.source).type) for f in schema.features if f.kind != "number"}
        moments = Moments(len(schema.tasks))
        with (progress or Silent()).bar(f"fitting encoders on {source.name}", source.count_rows()) as bar:
            for batch in source.batches(schema.columns(labels=True)):
                for feature in schema.features:
                    array = batch.column(feature.source)
                    if feature.kind == "number":
                        sketches[feature.name].add(numbers(array, feature.source))
                    elif (owner := feature.shares or feature.name) in counts:
                        counts[owner].add(_key_array(feature, array, types[owner]))
                labels = read_labels(schema, batch)
                moments.add(np.where(schema.sample_spaces(labels), labels, np.nan))
                bar.advance(batch.num_rows)
        encoders: dict[str, Encoder] = {}
        for feature in schema.features:
            if feature.kind == "number":
                sketch = sketches[feature.name]
                encoders[feature.name] = NumberScale(sketch.edges(feature.bins), sketch.mean, sketch.std)
            elif feature.name in counts:
                encoders[feature.name] = Vocabulary(counts[feature.name].values(types[feature.name], feature.min_count))
            elif not feature.shares:
                encoders[feature.name] = Buckets(feature.hash_buckets, types[feature.name])
        _check_rows(encoders)
        return cls(schema, encoders, _statistics(schema, source.name, *moments.result()))

    def encode(self, batch: pa.RecordBatch, *, labels: bool = True) -> Encoded:
        """Encode a chunk; without `labels` only features are read, as in scoring.

        Raises:
            DataError: a value breaks a rule of its column.
        """
        ids = np.zeros((batch.num_rows, self.layout.id_columns), np.int32)
        dense = np.zeros((batch.num_rows, self.layout.dense_columns), np.float32)
        for place, feature in zip(self.layout.fields, self.schema.features, strict=True):
            array = batch.column(feature.source)
            encoder = self.encoders[place.table]
            if isinstance(encoder, NumberScale):
                values = numbers(array, feature.source)
                ids[:, place.start] = encoder.ids(values)
                dense[:, place.dense] = encoder.scaled(values)
            elif feature.kind in ("tags", "sequence"):
                bags = lists(array, feature.delimiter)
                flat = encoder.ids(bags.flatten(), feature.source)
                width = place.stop - place.start
                newest_last = feature.kind == "sequence"
                ids[:, place.start : place.stop] = padded(flat, list_lengths(bags), width, newest_last=newest_last)
            else:
                ids[:, place.start] = encoder.ids(array, feature.source)
        none = np.zeros((batch.num_rows, 0), np.float32)
        weighted = labels and any(task.weight for task in self.schema.tasks)
        grouped = labels and bool(self.schema.group)
        return Encoded(
            ids,
            dense,
            read_labels(self.schema, batch) if labels else none,
            read_weights(self.schema, batch) if weighted else none,
            read_groups(self.schema, batch) if grouped else np.zeros(0, np.int64),
        )

    def save(self, directory: Path) -> None:
        """Write `encoders.json`."""
        state = {name: encoder.state() for name, encoder in self.encoders.items()}
        tasks = [asdict(statistics) for statistics in self.statistics]
        write_json(directory / "encoders.json", {"format": 1, "encoders": state, "tasks": tasks})

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
            encoders = {name: _restore(saved) for name, saved in state["encoders"].items()}
            if set(encoders) != {f.name for f in schema.features if not f.shares}:
                raise ValueError("they are of other features than the schema's")
            if len(state["tasks"]) != len(schema.tasks):
                raise ValueError("they are of other tasks than the schema's")
            return cls(schema, encoders, tuple(TaskStatistics(**saved) for saved in state["tasks"]))
        except (AttributeError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise RunError(
                "encoders.json must be of format 1 and whole", received=f"{directory}: {error}", mend="train again"
            ) from error


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


def _statistics(
    schema: Schema, name: str, rows: np.ndarray, means: np.ndarray, stds: np.ndarray
) -> tuple[TaskStatistics, ...]:
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
    return tuple(result)


def _restore(state: Mapping[str, Any]) -> Encoder:
    if state["kind"] == "number":
        return NumberScale(tuple(state["edges"]), state["mean"], state["std"])
    key_type = _KEY_TYPES[state["type"]]
    if state["kind"] == "buckets":
        return Buckets(state["buckets"], key_type)
    return Vocabulary(pa.array(state["values"], key_type))
