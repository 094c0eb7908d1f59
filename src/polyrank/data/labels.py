"""Labels, row weights and groups of a chunk; their rules are checked here."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.data.columns import INTEGER, hash64, keys, missing, numbers, plain
from polyrank.data.groups import NO_GROUP
from polyrank.data.schema import Schema, Task
from polyrank.errors import DataError


def read_labels(schema: Schema, batch: pa.RecordBatch) -> np.ndarray:
    """Labels `[n, T]` float32, NaN where missing.

    Raises:
        DataError: a binary label other than 0 and 1, or an infinite one.
    """
    result = np.empty((batch.num_rows, len(schema.tasks)), np.float32)
    for index, task in enumerate(schema.tasks):
        result[:, index] = _label(task, batch.column(task.source))
    return result


def _label(task: Task, array: pa.Array) -> np.ndarray:
    array = plain(array)
    if task.kind == "binary" and task.positive is not None and not pa.types.is_null(array.type):
        try:
            positive = pa.scalar(task.positive).cast(array.type)
        except pa.ArrowException as error:
            raise DataError(
                f"task {task.name!r}: positive must be a value of its column",
                received=f"{task.positive!r} for a column of type {array.type}",
                mend="give it in the column's type",
            ) from error
        return np.where(missing(array), np.nan, numbers(pc.equal(array, positive), task.source))
    values = numbers(array, task.source)
    if task.above is not None:
        return np.where(np.isnan(values), np.nan, values > task.above)
    if task.kind == "binary":
        rule, wrong = "must be 0 or 1 (null: label missing)", ~(np.isnan(values) | (values == 0) | (values == 1))
        mend = "say which value is positive (positive = …, above = …), set kind = 'regression', or clean the column"
    else:
        rule, wrong = "must be a finite float32", np.abs(values) > np.finfo(np.float32).max
        mend = "clean the column"
        if task.kind in ("count", "duration"):
            rule, wrong, mend = f"{rule}, 0 or more", wrong | (values < 0), f"{mend}, or set kind = 'regression'"
        if task.kind == "count" and not wrong.any():
            rule, wrong = "must be a whole number", values != np.floor(values)
            wrong &= ~np.isnan(values)
    if wrong.any():
        raise DataError(
            f"the label of {task.kind} task {task.name!r} {rule}",
            received=f"column {task.source!r} holds {values[wrong][0]:g}",
            mend=mend,
        )
    return values


def _weight(task: Task, batch: pa.RecordBatch) -> np.ndarray:
    values = numbers(batch.column(task.weight), task.weight)
    wrong = ~((values >= 0) & np.isfinite(values))
    if wrong.any():
        raise DataError(
            f"row weights of task {task.name!r} must be 0 or more, on every row",
            received=f"column {task.weight!r} holds {values[wrong][0]:g}",
            mend="clean the column; weight 0 leaves a row out",
        )
    return values


def read_weights(schema: Schema, batch: pa.RecordBatch) -> np.ndarray:
    """Row weights `[n, T]` float32, 1 for a task without a weight column; `[n, 0]` where no task has one.

    Raises:
        DataError: a weight that is negative, infinite or missing.
    """
    if not any(task.weight for task in schema.tasks):
        return np.zeros((batch.num_rows, 0), np.float32)
    ones = np.ones(batch.num_rows)
    return np.stack([_weight(t, batch) if t.weight else ones for t in schema.tasks], axis=1).astype(np.float32)


def read_groups(schema: Schema, batch: pa.RecordBatch) -> np.ndarray:
    """The rows' groups `[n]` int64; see `read_keys`."""
    return read_keys(batch, schema.group)


def read_keys(batch: pa.RecordBatch, column: str) -> np.ndarray:
    """What a column of ids holds `[n]` int64: integers as they are, text by its hash; NO_GROUP where null."""
    key = keys(batch.column(column), column)
    if key.type == INTEGER:
        found: np.ndarray = key.fill_null(NO_GROUP).to_numpy(zero_copy_only=False)
        return found
    return np.where(missing(key), NO_GROUP, hash64(key).view(np.int64))
