"""Tree leaves: never from trees that saw the row's label, and encoded alike at any time."""

import json

import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.encoders import Encoders
from polyrank.data.layout import Encoded
from polyrank.data.leaves import Leaves, LeavesConfig, _folds
from polyrank.data.readers import table_source
from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import DataError, RunError
from polyrank.progress import Silent

SCHEMA = Schema(
    (Feature("item", "id"), Feature("age", "number")), (Task("y", "binary"), Task("w", "regression", given="y"))
)
CONFIG = LeavesConfig(trees=5, leaves=4, folds=3, bag=2)


def log(rows=600, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.normal(size=rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-3 * age))).astype(int)
    return pa.table({"item": rng.integers(0, 30, rows), "age": age, "y": y, "w": age + rng.normal(size=rows)})


def encoded(encoders, table):
    return encoders.encode(pa.RecordBatch.from_pydict({n: table[n].combine_chunks() for n in table.column_names}))


@pytest.fixture(scope="module")
def plain():
    return Encoders.fit(SCHEMA, table_source("train", log(), ""))


def grown(plain, table=None, config=CONFIG):
    rows = encoded(plain, log() if table is None else table)
    return Leaves.grow(config, SCHEMA, plain.layout, rows, 1, Silent())


@pytest.fixture(scope="module")
def encoders(plain):
    return Encoders(SCHEMA, plain.encoders, plain.statistics, grown(plain))


def test_leaves_are_bags_behind_the_other_features(plain, encoders):
    further = encoders.layout.fields[2:]
    assert [(f.name, f.start, f.stop) for f in further] == [
        ("leaves of y 1", 2, 4), ("leaves of y 3", 4, 6), ("leaves of y 5", 6, 7),
        ("leaves of w 1", 7, 9), ("leaves of w 3", 9, 11), ("leaves of w 5", 11, 12),
    ]  # fmt: skip
    assert all(f.kind == "tags" and f.derived for f in further)
    assert encoders.layout.tables["leaves of y 1"] == 1 + 2 * 3 * 4
    rows = encoded(encoders, log())
    assert rows.ids.shape == (600, 12)
    np.testing.assert_array_equal(rows.ids[:, :2], encoded(plain, log()).ids)
    for field in further:
        block = rows.ids[:, field.start : field.stop]
        assert block.min() >= 0
        assert block.max() < encoders.layout.tables[field.table]


def test_ids_say_tree_fold_and_leaf(encoders):
    rows = encoded(encoders, log())
    folds = _folds(rows.ids[:, :2], rows.dense, 3)
    codes = rows.ids[:, 2:7].astype(int) - 1  # the trees of y
    assert (codes // 12 == np.array([0, 1, 0, 1, 0])).all()  # the place in its bag
    assert (codes // 4 % 3 == folds[:, None]).all()
    leaves = [booster.predict(np.stack([rows.ids[:, 0], rows.dense[:, 0]], axis=1), pred_leaf=True)
              for booster in (of_fold[0] for of_fold in encoders.leaves.boosters)]  # fmt: skip
    expected = np.stack(leaves)[folds, np.arange(600)]
    np.testing.assert_array_equal(codes % 4, expected)


def test_a_rows_own_label_does_not_reach_its_leaves(plain, encoders):
    """Turn the labels of one fold around: the rows of that fold are encoded as before, the others are not."""
    before = encoded(encoders, log())
    folds = _folds(before.ids[:, :2], before.dense, 3)
    table = log()
    turned = np.where(folds == 1, 1 - table["y"].to_numpy(), table["y"].to_numpy())
    other = table.set_column(2, "y", pa.array(turned))
    after = encoded(Encoders(SCHEMA, plain.encoders, plain.statistics, grown(plain, other)), log())
    same = (after.ids[:, 2:7] == before.ids[:, 2:7]).all(axis=1)
    assert same[folds == 1].all()
    assert not same[folds != 1].all()


def test_folds_follow_features_alone_and_are_even(plain):
    rows = encoded(plain, log(6_000))
    folds = _folds(rows.ids, rows.dense, 3)
    assert np.bincount(folds) == pytest.approx([2_000] * 3, rel=0.1)
    order = np.random.default_rng(0).permutation(6_000)
    np.testing.assert_array_equal(_folds(rows.ids[order], rows.dense[order], 3), folds[order])


def test_rows_are_encoded_alike_alone_and_in_any_chunk(encoders):
    whole = encoded(encoders, log())
    for row in (0, 7, 599):
        np.testing.assert_array_equal(encoded(encoders, log().slice(row, 1)).ids[0], whole.ids[row])
    assert encoded(encoders, log().slice(0, 0)).ids.shape == (0, 12)


def test_survives_a_file(encoders, tmp_path):
    encoders.save(tmp_path)
    again = Encoders.load(tmp_path, SCHEMA)
    assert again.layout == encoders.layout
    assert again.digest == encoders.digest
    np.testing.assert_array_equal(encoded(again, log(seed=1)).ids, encoded(encoders, log(seed=1)).ids)


def test_damaged_trees_are_refused(encoders, tmp_path):
    encoders.save(tmp_path)
    state = json.loads((tmp_path / "encoders.json").read_text())
    state["leaves"]["models"][0][0] = "no tree"
    (tmp_path / "encoders.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match=r"encoders.json must be of format 1 and whole"):
        Encoders.load(tmp_path, SCHEMA)


def test_other_trees_are_another_encoding(plain, encoders):
    other = Encoders(SCHEMA, plain.encoders, plain.statistics, grown(plain, config=LeavesConfig(5, 4, 0.3, 3, 2)))
    assert len({plain.digest, encoders.digest, other.digest}) == 3


def test_boosting_that_ends_early_leaves_places_empty(plain):
    few = log(90)  # 60 rows outside a fold, of w half of them: a tree of 20 rows a leaf soon has no split
    leaves = Leaves.grow(CONFIG, SCHEMA, plain.layout, encoded(plain, few), 1, Silent())
    rows = encoded(Encoders(SCHEMA, plain.encoders, plain.statistics, leaves), few)
    trees = [[booster.num_trees() for booster in of_fold] for of_fold in leaves.boosters]
    assert min(map(min, trees)) < CONFIG.trees
    assert (rows.ids[:, 2:] == 0).any()


def test_a_task_without_both_classes_is_refused(plain):
    table = log(40)
    rows = encoded(plain, table)
    labels = rows.labels.copy()
    labels[:, 0] = 1.0
    with pytest.raises(DataError, match=r"trees need training rows of task 'y' .* of both classes"):
        Leaves.grow(
            CONFIG, SCHEMA, plain.layout, Encoded(rows.ids, rows.dense, labels, rows.weights, rows.groups), 1, Silent()
        )
