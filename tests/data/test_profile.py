import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from polyrank.data import profile as module
from polyrank.data.profile import profile
from polyrank.data.readers import open_source, table_source
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.summary import Summary
from polyrank.errors import DataError

TASKS = (Task("click", "binary", "is_click"), Task("buy", "binary", given="click"), Task("watch", "regression"))
FEATURES = (
    Feature("user", "id"),
    Feature("colour", "category"),
    Feature("price", "number"),
    Feature("tags", "tags", delimiter="|"),
    Feature("history", "sequence", shares="item"),
    Feature("item", "id"),
)
TABLE = pa.table(
    {
        "is_click": [1, 1, 1, 1, 0, 0, None, 0],
        "buy": pa.array([1, 0, None, 0, 1, 0, 1, 0]),
        "watch": [8.0, 6.0, 4.0, None, 1.0, 0.0, 2.0, 1.0],
        "user": [1, 1, 1, 2, 2, 3, 4, 5],
        "colour": ["red", "red", "", None, "blue", "red", "blue", "red"],
        "price": [1.0, 3.0, float("nan"), float("inf"), None, 2.0, 2.0, 2.0],
        "tags": ["a|b", "a", "", None, "b | a", "c", "c", "c"],
        "history": [[1, 2], [], None, [2], [1], [1], [1], [7]],
        "item": [1, 2, 3, 4, 1, 2, 3, 4],
    }
)


def described(tasks=TASKS, features=FEATURES, table=TABLE, valid=None):
    source = table_source("made", table, "0")
    result = profile(Schema(tuple(features), tuple(tasks)), source, valid and table_source("later", valid, "1"))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def test_labels_inside_and_outside_of_their_sample_spaces():
    click, buy, watch = described()["tasks"]
    assert click == {
        "name": "click", "column": "is_click", "kind": "binary", "given": None, "labelled": 7, "missing": 1,
        "positives": 4, "rate": 4 / 7, "mean": None, "outside": 0, "contradictions": 0,
    }  # fmt: skip
    assert buy == {
        "name": "buy", "column": "buy", "kind": "binary", "given": "click", "labelled": 3, "missing": 1,
        "positives": 1, "rate": 1 / 3, "mean": None, "outside": 4, "contradictions": 1,
    }  # fmt: skip
    assert (watch["labelled"], watch["missing"], watch["positives"], watch["rate"]) == (7, 1, None, None)
    assert watch["mean"] == pytest.approx(22 / 7)


def test_a_contradiction_needs_a_parent_of_0_and_is_said_in_words():
    warnings = described()["warnings"]
    assert [w for w in warnings if w.startswith("buy: 1 rows have buy = 1 although click = 0")]


def test_a_chain_of_three_is_judged_by_all_ancestors():
    table = pa.table({"a": [1, 1, 0, 0], "b": [1, 0, 1, 0], "c": [1, 1, 1, None], "x": [1, 2, 3, 4]})
    tasks = [Task("a", "binary"), Task("b", "binary", given="a"), Task("c", "binary", given="b")]
    c = described(tasks, [Feature("x", "number")], table)["tasks"][2]
    assert (c["labelled"], c["outside"], c["contradictions"], c["missing"]) == (1, 3, 2, 0)


def test_rows_of_weight_0_are_outside_their_own_task_only():
    table = pa.table({"a": [1, 1, 0, None], "w": [0.0, 1, 2, 0], "b": [1, 0, 1, 1], "x": [1, 2, 3, 4]})
    tasks = [Task("a", "binary", weight="w"), Task("b", "binary", given="a")]
    a, b = described(tasks, [Feature("x", "number")], table)["tasks"]
    assert (a["labelled"], a["positives"], a["missing"], a["outside"]) == (2, 1, 0, 2)
    assert (b["labelled"], b["positives"], b["missing"], b["outside"]) == (2, 1, 0, 2)


def test_funnel_counts_pairs_and_conditions_on_rows_where_both_labels_are_known():
    funnel = described()["funnel"]
    assert funnel["tasks"] == ["click", "buy"]
    assert funnel["counts"] == [[4, 1], [1, 3]]
    # P(buy | click): of 4 clicks, 3 say whether they bought; P(click | buy): of 3 purchases, 2 say whether clicked.
    assert funnel["conditional"] == [[1.0, 1 / 3], [1 / 2, 1.0]]


def test_correlations_are_pearsons_over_rows_with_both_labels():
    values = described()["correlations"]["values"]
    labels = np.array([TABLE[n].to_pylist() for n in ("is_click", "buy", "watch")], dtype=float)
    for i in range(3):
        for j in range(3):
            both = ~np.isnan(labels[i]) & ~np.isnan(labels[j])
            expected = np.corrcoef(labels[i, both], labels[j, both])[0, 1]
            assert values[i][j] == pytest.approx(expected, abs=1e-12)


def test_correlations_of_large_labels_keep_their_digits():
    generator = np.random.default_rng(0)
    watch = (5e6 + 3 * generator.random(1000)).astype(np.float32)  # a spread of some ten float32 steps
    click = (watch > watch.mean()).astype(int)
    table = pa.table({"is_click": click, "watch": watch, "x": range(1000)})
    result = described([TASKS[0], TASKS[2]], [Feature("x", "number")], table)["correlations"]["values"]
    assert result[0][1] == pytest.approx(np.corrcoef(click, watch.astype(float))[0, 1], abs=1e-9)


def test_one_class_missing_and_constant_labels_are_null_and_warned_of_not_refused():
    buy, watch = pa.array([None, None, 1.0]), [0.1, 0.1, 0.1]
    table = pa.table({"is_click": [0, 0, 0], "buy": buy, "watch": watch, "like": pa.nulls(3), "x": [1, 2, 3]})
    tasks = [*TASKS, Task("like", "binary")]
    result = described(tasks, [Feature("x", "number")], table)
    assert result["correlations"]["values"] == [[None] * 4] * 4
    assert result["funnel"]["conditional"] == [[None, None, None], [0.0, 1.0, None], [None, None, None]]
    assert result["tasks"][1]["rate"] is None
    warnings = "\n".join(result["warnings"])
    assert "click: all 3 labels are 0" in warnings
    assert "buy: no row of its sample space has a label" in warnings
    assert "like: no row of its sample space has a label" in warnings


def test_rare_and_often_missing_labels_are_warned_of():
    click = [1] * 3 + [0] * 4997 + [None] * 5001
    result = described([TASKS[0]], [Feature("x", "number")], pa.table({"is_click": click, "x": range(10_001)}))
    assert "click: only 3 of 5,000 labels (0.060%) are positive." in result["warnings"]
    assert "click: the label is missing on 50.0% of the rows of its sample space." in result["warnings"]


def test_features():
    user, colour, price, tags, history, item = described()["features"]
    assert user["top"] == [["1", 3 / 8], ["2", 2 / 8], ["3", 1 / 8], ["4", 1 / 8], ["5", 1 / 8]]
    assert (user["type"], user["distinct"], user["distinct_is_lower_bound"]) == ("int64", 5, False)
    assert (user["mean"], user["min"], user["max"], user["mean_length"]) == (None, None, None, None)
    # An empty text is a value, as it is to the encoders.
    assert (colour["missing"], colour["distinct"]) == (1 / 8, 3)
    assert (price["missing"], price["mean"], price["min"], price["max"]) == (2 / 8, 2.0, 1.0, 3.0)
    assert price["top"][0] == ["2", 3 / 6]
    assert (tags["missing"], tags["distinct"], tags["mean_length"]) == (2 / 8, 3, 1.0)
    assert tags["top"] == [["a", 3 / 8], ["c", 3 / 8], ["b", 2 / 8]]
    assert (history["missing"], history["distinct"], history["mean_length"]) == (2 / 8, 3, 7 / 8)
    assert item["out_of_vocabulary"] is None


def test_out_of_vocabulary_knows_shared_vocabularies_min_count_and_other_types():
    valid = pa.table(
        {
            "user": ["1", "9", "x", None],
            "colour": ["red", "", "green", None],
            "price": [100.0, 1.0, 1.0, 1.0],
            "tags": ["a|z|b", None, "", "zz"],
            "history": [[3], [7, 8], None, []],
            "item": [7, 4, 9, 9],
        }
    )
    features = [
        *FEATURES,
        Feature("user_again", "id", "user", min_count=3),
        Feature("hashed", "id", "user", hash_buckets=9),
    ]
    result = described(features=features, valid=valid)
    unseen = {f["name"]: f["out_of_vocabulary"] for f in result["features"]}
    assert result["valid_rows"] == 4
    assert unseen == {
        "user": 2 / 3,  # 9 and x
        "colour": 1 / 3,  # an empty text was seen
        "price": None,
        "tags": 2 / 4,
        "history": 1 / 3,  # 3 is known as an item, 7 from histories, 8 not at all
        "item": 2 / 4,  # 7 is known from histories
        "user_again": 2 / 3,  # only user 1 was seen three times
        "hashed": 2 / 3,
    }
    assert "user: 66.7% of the validation values were never seen in training." in result["warnings"]


def test_too_many_values_are_a_lower_bound_without_out_of_vocabulary(monkeypatch):
    monkeypatch.setattr(module, "Summary", lambda limit: Summary(min(limit, 100)))
    table = pa.table({"is_click": [0, 1] * 600, "x": [*range(1199), 0], "c": [1, 2] * 600})
    result = described([TASKS[0]], [Feature("x", "id"), Feature("c", "category")], table, table)
    x, c = result["features"]
    assert (x["distinct"], x["distinct_is_lower_bound"], x["out_of_vocabulary"]) == (1199, True, None)
    assert c["out_of_vocabulary"] == 0.0
    assert any(warning.startswith("x: more than") for warning in result["warnings"])


def test_leaks_row_keys_and_empty_columns_are_warned_of():
    rows = 2000
    click = np.arange(rows) % 3 == 0
    columns = {
        "is_click": click,
        "key": [f"r{i}" for i in range(rows)],
        "copy": click,
        "void": [None] * (rows - 1) + [1],
    }
    features = [Feature("key", "id"), Feature("copy", "category"), Feature("void", "number")]
    result = described([TASKS[0]], features, pa.table(columns))
    assert result["leaks"] == [{"feature": "copy", "task": "click", "auc": 1.0}]
    starts = [
        "copy alone gives click an AUC of 1.0000",
        "key: almost every row has its own value",
        "void: only 0.05% of the",
    ]
    for start in starts:
        assert any(warning.startswith(start) for warning in result["warnings"])
    assert len(result["warnings"]) == 3


def test_clean_data_has_no_warnings():
    generator = np.random.default_rng(1)
    table = pa.table({"is_click": generator.integers(0, 2, 500), "x": generator.integers(0, 9, 500)})
    assert described([TASKS[0]], [Feature("x", "category")], table, table)["warnings"] == []


def test_the_same_from_csv_as_from_parquet_and_in_chunks(tmp_path):
    table = TABLE.drop_columns(["history"])
    features = [f for f in FEATURES if f.name != "history"]
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    schema = Schema(tuple(features), TASKS)
    parquet, csv = (profile(schema, open_source(tmp_path / f"a.{end}")) for end in ("parquet", "csv"))
    assert parquet["source"].endswith("a.parquet")
    assert parquet["tasks"] == csv["tasks"]
    assert parquet["funnel"] == csv["funnel"]
    plain = described(features=features)
    assert [f["top"] for f in parquet["features"]] == [f["top"] for f in plain["features"]]


def test_dictionary_columns_and_one_row():
    table = pa.table({"is_click": [1], "x": pa.array(["a"]).dictionary_encode(), "n": pa.nulls(1), "s": pa.nulls(1)})
    features = [Feature("x", "category"), Feature("n", "number"), Feature("s", "tags")]
    result = described([TASKS[0]], features, table, table)
    assert result["features"][0]["top"] == [["a", 1.0]]
    assert [f["out_of_vocabulary"] for f in result["features"]] == [0.0, None, None]
    assert result["features"][1]["mean"] is None


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(DataError, match="'colour'"):
        described(table=TABLE.drop_columns(["colour"]))
    with pytest.raises(DataError, match="later must have the column 'item'"):
        described(valid=TABLE.drop_columns(["item"]))
