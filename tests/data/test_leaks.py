import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.leaks import Leak, _auc, find_leaks
from polyrank.data.readers import table_source
from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import DataError

ROWS = 4000


Y = (Task("y", "binary"),)


def leaks(features, columns, label, tasks=Y, **arguments):
    table = pa.table({"y": label} | columns)
    return find_leaks(Schema(tuple(features), tuple(tasks)), table_source("made", table, "0"), **arguments)


@pytest.fixture
def generator():
    return np.random.default_rng(5)


@pytest.fixture
def label(generator):
    return (generator.random(ROWS) < 0.2).astype(np.int64)


def test_auc_is_that_of_all_pairs():
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    positives, negatives = np.array([1.0, 2, 0, 3]), np.array([2.0, 0, 1, 1])
    high, low = np.repeat(scores, positives.astype(int)), np.repeat(scores, negatives.astype(int))
    pairs = [(p > n) + 0.5 * (p == n) for p in high for n in low]
    assert _auc(scores, positives, negatives) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_a_number_leaks_in_either_direction(generator, label):
    noise = generator.random(ROWS)
    columns = {"up": label + noise / 2, "down": -label + noise / 2, "noise": noise}
    found = leaks([Feature(name, "number") for name in columns], columns, label)
    assert found == [Leak("down", "y", 1.0), Leak("up", "y", 1.0)]


def test_a_number_leaks_from_both_ends_of_its_range(generator, label):
    signs = np.where(generator.random(ROWS) < 0.5, -1.0, 1.0)
    assert [leak.feature for leak in leaks([Feature("x", "number")], {"x": signs * (1 + 5 * label)}, label)] == ["x"]


def test_rows_of_weight_0_are_not_looked_at(generator, label):
    """The feature is the label where the weight is above 0, and noise elsewhere."""
    weight = generator.random(ROWS) < 0.5
    columns = {"x": np.where(weight, label, generator.integers(0, 2, ROWS)), "w": weight.astype(float)}
    weighted = (Task("y", "binary", weight="w"),)
    assert [leak.feature for leak in leaks([Feature("x", "category")], columns, label, weighted)] == ["x"]
    assert leaks([Feature("x", "category")], columns, label) == []


def test_a_number_leaks_by_being_missing(label):
    paid = pa.array([3.0 + i % 7 if y else None for i, y in enumerate(label)])
    assert [leak.feature for leak in leaks([Feature("paid", "number")], {"paid": paid}, label)] == ["paid"]


def test_a_category_leaks_and_noise_does_not(generator, label):
    columns = {
        "status": pa.array([("sold", "shipped")[i % 2] if y else None for i, y in enumerate(label)]),
        "colour": pa.array(generator.choice(["red", "green", None], ROWS).tolist()),
    }
    found = leaks([Feature("status", "category"), Feature("colour", "category")], columns, label)
    assert found == [Leak("status", "y", 1.0)]


def test_a_row_key_does_not_look_like_a_leak(label):
    columns = {"key": [f"row {i}" for i in range(ROWS)], "number": np.arange(ROWS)}
    assert leaks([Feature("key", "id"), Feature("number", "id")], columns, label, threshold=0.6) == []


def test_a_list_leaks_by_one_of_its_values(generator, label):
    bags = generator.integers(1, 30, (ROWS, 3)).tolist()
    leaking = [[*bag, 99] if y else bag for bag, y in zip(bags, label, strict=True)]
    texts = [",".join(map(str, bag)) for bag in leaking]
    columns = {"history": leaking, "tags": texts, "clean": bags, "empty": [[] if y else [1] for y in label]}
    kinds = {"history": "sequence", "tags": "tags", "clean": "sequence", "empty": "tags"}
    found = leaks([Feature(name, kind) for name, kind in kinds.items()], columns, label)
    assert {leak.feature for leak in found} == {"history", "tags", "empty"}


def test_only_rows_of_the_sample_space_count(generator, label):
    bought = label * (generator.random(ROWS) < 0.5)
    tasks = [Task("y", "binary"), Task("bought", "binary", given="y")]
    # It copies the click: among all rows it tells bought well, among clicked ones not at all.
    columns = {"bought": bought, "copy": label, "noise": generator.random(ROWS)}
    features = [Feature("copy", "category"), Feature("noise", "number")]
    assert leaks(features, columns, label, tasks) == [Leak("copy", "y", 1.0)]
    free = [Task("y", "binary"), Task("bought", "binary")]
    assert [leak.task for leak in leaks(features, columns, label, free, threshold=0.9)] == ["y", "bought"]


def test_missing_labels_regression_and_one_class_are_passed_over(generator, label):
    half = pa.array([None if i % 2 else int(y) for i, y in enumerate(label)])
    tasks = [Task("y", "binary"), Task("half", "binary"), Task("zero", "binary"), Task("watch", "regression")]
    columns = {"half": half, "zero": np.zeros(ROWS), "watch": generator.random(ROWS), "copy": label}
    found = leaks([Feature("copy", "category")], columns, label, tasks)
    assert [(leak.feature, leak.task) for leak in found] == [("copy", "half"), ("copy", "y")]


def test_a_handful_of_positives_raises_no_alarm():
    label = np.zeros(ROWS, np.int64)
    label[:4] = 1
    assert leaks([Feature("x", "number")], {"x": np.arange(ROWS, 0, -1.0)}, label) == []


def test_only_the_first_rows_are_read(label):
    x = np.where(np.arange(ROWS) < 2000, label, 0)
    assert [leak.auc for leak in leaks([Feature("x", "category")], {"x": x}, label, rows=2000)] == [1.0]
    assert leaks([Feature("x", "category")], {"x": x}, label) == []


def test_one_row_and_null_columns():
    assert leaks([Feature("x", "category"), Feature("n", "number")], {"x": pa.nulls(1), "n": pa.nulls(1)}, [1]) == []


def test_a_category_that_is_no_whole_number_is_refused(label):
    with pytest.raises(DataError, match="whole numbers"):
        leaks([Feature("x", "category")], {"x": label + 0.5}, label)
