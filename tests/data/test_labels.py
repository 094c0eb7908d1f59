from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.labels import read_labels, read_weights
from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import ConfigError, DataError

NAN = np.nan
Y = Task("y", "binary")


def _labels(task: Task, column: Any, **others: Any) -> list[float]:
    schema = Schema((Feature("a", "id"),), (task,))
    return list(read_labels(schema, pa.RecordBatch.from_pydict({task.source: column, **others}))[:, 0].tolist())


@pytest.mark.parametrize(
    ("positive", "column"),
    [
        (None, [1, 0, None]),
        (None, [1.0, 0.0, NAN]),
        (None, [True, False, None]),
        (None, pa.array([1, 0, None], pa.int8()).dictionary_encode()),
        ("yes", ["yes", "no", None]),
        ("yes", pa.array(["yes", "no", None], pa.string_view())),
        ("yes", pa.array(["yes", "no", None]).dictionary_encode()),
        (2, [2, 1, None]),
        ("2", [2, 1, None]),
        (2, ["2", "1", None]),
        (4.5, [4.5, 3.0, NAN]),
        (0.1, pa.array([0.1, 0.2, None], pa.float32())),
        (True, [True, False, None]),
        (False, [False, True, None]),
    ],
)
def test_binary_labels(positive: Any, column: Any) -> None:
    np.testing.assert_array_equal(_labels(Task("y", "binary", positive=positive), column), [1, 0, NAN])


def test_a_column_without_labels_is_missing_everywhere() -> None:
    for task in (Y, Task("y", "binary", positive="yes"), Task("y", "regression")):
        np.testing.assert_array_equal(_labels(task, pa.nulls(2)), [NAN, NAN])


@pytest.mark.parametrize("column", [[7, 1, None], [0.5, 0.0, NAN], [1, -3, None]])
def test_labels_above_a_value(column: Any) -> None:
    above = 1.0 if column[0] == 7 else 0.0
    np.testing.assert_array_equal(_labels(Task("y", "binary", above=above), column), [1, 0, NAN])


@pytest.mark.parametrize("task", [Task("y", "regression", above=0.0), Task("y", "binary", positive=1, above=0.0)])
def test_above_is_for_binary_tasks_without_positive(task: Task) -> None:
    with pytest.raises(ConfigError, match="above is for binary tasks without positive"):
        _labels(task, [1])


def test_counts_and_durations() -> None:
    np.testing.assert_array_equal(_labels(Task("y", "count"), [0, None, 7]), [0, NAN, 7])
    np.testing.assert_array_equal(_labels(Task("y", "duration"), [0.0, NAN, 2.5]), [0, NAN, 2.5])


@pytest.mark.parametrize(
    ("task", "column", "message"),
    [
        (Y, [0, 1, 2], r"must be 0 or 1[\s\S]*column 'y' holds[\s\S]*2"),
        (Y, [0.5], "must be 0 or 1"),
        (Y, [np.inf], "must be 0 or 1"),
        (Task("y", "regression"), [1.0, -np.inf], "must be a finite float32"),
        (Task("y", "regression"), [1e39], "must be a finite float32"),
        (Task("y", "count"), [3.0, None, -1.0], r"must be a finite float32, 0 or more[\s\S]*set kind = 'regression'"),
        (Task("y", "count"), [3.0, None, 2.5], r"must be a whole number[\s\S]*2\.5"),
        (Task("y", "duration"), [0.0, -0.5], "0 or more"),
        (Task("y", "duration"), [np.inf], "must be a finite float32"),
        (Task("y", "binary", positive="yes"), [1, 0], "positive must be a value of its column"),
        (Task("y", "binary", positive=1.5), [1, 0], "positive must be a value of its column"),
    ],
)
def test_wrong_labels(task: Task, column: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _labels(task, column)


def test_weights() -> None:
    task = Task("y", "binary", weight="w")

    schema = Schema((Feature("a", "id"),), (Task("x", "binary"), task))

    def weights(column: Any) -> np.ndarray:
        return read_weights(schema, pa.RecordBatch.from_pydict({"w": column}))

    np.testing.assert_array_equal(weights([0, 0.5, 2]), [[1, 0], [1, 0.5], [1, 2]])
    np.testing.assert_array_equal(_labels(task, [1, 1, 0], w=[0, 0.5, 2]), [1, 1, 0])
    for bad in (-1.0, NAN, None, np.inf):
        with pytest.raises(DataError, match=r"row weights of task 'y' must be 0 or more[\s\S]*'w' holds"):
            weights(pa.array([1.0, bad]))
    with pytest.raises(DataError, match="column 'w' must hold numbers"):
        weights(["a", "b"])
