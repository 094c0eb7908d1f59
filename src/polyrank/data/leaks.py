"""The leak guard: a feature that alone tells a label almost perfectly was, in a feedback log, made from that label."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse

from polyrank.data.columns import keys, list_lengths, lists, numbers
from polyrank.data.fitting import NumberSketch
from polyrank.data.labels import read_labels, read_weights
from polyrank.data.readers import Source
from polyrank.data.schema import Feature, Schema

ROWS, THRESHOLD = 200_000, 0.99
_FEWEST = 5  # of each class among the measured rows: with fewer, noise reaches the threshold by chance
_SMOOTHING = 10.0  # rows of the overall rate that a value's own rate is mixed with
_LONGEST = 20  # values of a list that are looked at; a label that leaked into a history stands at its newest end


@dataclass(frozen=True)
class Leak:
    """A feature that alone gives more than the threshold's AUC on a task.

    Attributes:
        feature: its name; `task`: the task's name.
        auc: on rows of the task's sample space, the better of both directions, 0.5 to 1.
    """

    feature: str
    task: str
    auc: float


def find_leaks(schema: Schema, source: Source, *, rows: int = ROWS, threshold: float = THRESHOLD) -> list[Leak]:
    """Features that alone rank a binary task's positives almost perfectly.

    A random half of the rows gives each value (or quantile bin, for numbers; null counts as a value) its label rate,
    mixed with the overall rate as `(positives + s·rate) / (rows + s)`, s = 10; the other half measures the AUC of these
    rates. Without the halves each row key would look like a leak. A list is scored by the mean over its values (the
    newest 20). A number is also ranked by its value as it is, missing below all.

    Args:
        schema: features and tasks; regression tasks are passed over.
        source: data with labels; its first `rows` rows are read.
        rows: how many rows at most.
        threshold: the AUC above which a feature is reported.

    Returns:
        The highest AUC first. A task with fewer than 5 measured rows in a class reports nothing.

    Raises:
        DataError: a column is missing or of the wrong type, or a value breaks a rule of its column.
    """
    schema.check(source.schema, source.name)
    binary = [index for index, task in enumerate(schema.tasks) if task.kind == "binary"]
    table = _head(source, schema.columns(labels=True), rows)
    labels, weights = (
        np.concatenate([read(schema, batch) for batch in table.to_batches()]) for read in (read_labels, read_weights)
    )
    inside = schema.sample_spaces(labels, weights)[:, binary]
    positives = inside & (labels[:, binary] == 1)
    counts = np.stack([positives, inside & ~positives], axis=2).astype(np.float64)  # [N, T, 2]: positive, negative
    measured = np.random.Generator(np.random.Philox(key=0x6C65616B)).random(len(counts)) < 0.5
    judged = (counts[measured].sum(0) >= _FEWEST).all(1)
    leaks: list[Leak] = []
    for feature in schema.features if judged.any() else ():
        array = _joined(table, feature.source)
        aucs = np.full(len(binary), 0.5)
        for scores, weights in _scores(feature, array, counts, measured):
            for column in np.flatnonzero(judged):
                auc = _auc(scores[:, column], weights[:, column, 0], weights[:, column, 1])
                aucs[column] = max(aucs[column], auc, 1 - auc)
        names = [schema.tasks[index].name for index in binary]
        leaks += [Leak(feature.name, n, float(a)) for n, a in zip(names, aucs, strict=True) if a > threshold]
    return sorted(leaks, key=lambda leak: (-leak.auc, leak.feature, leak.task))


def _head(source: Source, columns: list[str], rows: int) -> pa.Table:
    taken, left = [], rows
    for batch in source.batches(columns):
        taken.append(batch.slice(0, left))
        left -= taken[-1].num_rows
        if left <= 0:
            break
    return pa.Table.from_batches(taken)


def _joined(table: pa.Table, column: str) -> pa.Array:
    chunks = table.column(column).combine_chunks()
    return chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks)


def _scores(
    feature: Feature, array: pa.Array, counts: np.ndarray, measured: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores `[V, T]` of the feature's values (for lists: of rows), and measured rows that have each `[V, T, 2]`."""
    if feature.kind == "number":
        values = np.nan_to_num(numbers(array, feature.source), nan=-np.inf)
        levels, codes = np.unique(values, return_inverse=True)
        direct = np.repeat(levels[:, None], counts.shape[1], axis=1)
        yield direct, _by_value(_incidence(np.arange(len(codes)), codes), counts, measured)
    held = _values_of_rows(feature, array)
    rates = _rates(_by_value(held, counts, ~measured), counts[~measured].sum(0))
    if feature.kind in ("tags", "sequence"):
        yield held[measured] @ rates, counts[measured]
    else:
        yield rates, _by_value(held, counts, measured)


def _rates(by_value: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Smoothed label rates `[V, T]` from counts by value `[V, T, 2]` and in all `[T, 2]`."""
    overall = total[:, 0] / np.maximum(total.sum(1), 1)
    rates: np.ndarray = (by_value[:, :, 0] + _SMOOTHING * overall) / (by_value.sum(2) + _SMOOTHING)
    return rates


def _by_value(held: sparse.csr_array, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Counts `[N, T, 2]` of the chosen rows, summed by value: `[V, T, 2]`."""
    flat = counts[rows].reshape(int(rows.sum()), -1)
    summed: np.ndarray = (held[rows].T @ flat).reshape(held.shape[1], *counts.shape[1:])
    return summed


def _values_of_rows(feature: Feature, array: pa.Array) -> sparse.csr_array:
    """`[N, V]`: 1/n at each of the n values that a row holds; a row without values holds the value 0, "missing"."""
    if feature.kind == "number":
        values = numbers(array, feature.source)
        sketch = NumberSketch()
        sketch.add(values)
        bins = 1 + np.searchsorted(sketch.edges(feature.bins), values, side="right")
        return _incidence(np.arange(len(values)), np.where(np.isnan(values), 0, bins))
    rows = np.arange(len(array))
    if feature.kind in ("tags", "sequence"):
        bags = lists(array, feature.delimiter)
        array, lengths = bags.flatten(), list_lengths(bags)
        rows = np.repeat(rows, lengths)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        if feature.kind == "sequence":
            place = np.repeat(lengths, lengths) - 1 - place
        kept = place < min(_LONGEST, feature.max_length)
        rows, array = rows[kept], array.filter(pa.array(kept))
        empty = np.setdiff1d(np.arange(len(bags)), rows)
        rows = np.concatenate([rows, empty])
        array = pa.concat_arrays([array, pa.nulls(len(empty), array.type)])
    encoded = keys(array, feature.source).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return _incidence(rows, codes)


def _incidence(rows: np.ndarray, codes: np.ndarray) -> sparse.csr_array:
    shares = 1.0 / np.bincount(rows)[rows]
    return sparse.csr_array((shares, (rows, codes)))


def _auc(scores: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> float:
    """P(score of a positive > of a negative) + ½ P(equal), from how many of each there are at every score."""
    _, place = np.unique(scores, return_inverse=True)
    up, down = np.bincount(place, positives), np.bincount(place, negatives)
    below = np.cumsum(down) - down
    return float(up @ (below + down / 2) / (up.sum() * down.sum()))
