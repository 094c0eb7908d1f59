from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from polyrank.config import build, to_table
from polyrank.data.schema import Feature, Schema, Task, load_schema, save_schema
from polyrank.errors import ConfigError, DataError

NAN = np.nan
A = Feature("a", "id")
Y = Task("y", "binary")


def _chain() -> Schema:
    return Schema((A,), (Y, Task("like", "binary", given="y"), Task("share", "regression", given="like")))


def test_sample_spaces_follow_the_chain() -> None:
    labels = np.array(
        [[1, 1, 5], [1, 0, 5], [0, 1, 5], [NAN, 1, 5], [1, NAN, 5], [1, 1, NAN], [0, NAN, 0], [NAN, NAN, NAN]]
    )

    where = _chain().sample_spaces(labels)

    expected = [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(where, np.array(expected, bool))


def test_sample_spaces_do_not_depend_on_the_order_of_tasks() -> None:
    schema = Schema((A,), (Task("share", "regression", given="like"), Task("like", "binary", given="y"), Y))

    where = schema.sample_spaces(np.array([[5.0, 1, 1], [5, 1, 0], [5, 0, 1]]))

    np.testing.assert_array_equal(where, [[True, True, True], [False, False, True], [False, True, True]])


def test_a_row_of_weight_0_leaves_its_own_sample_space_alone() -> None:
    labels = np.array([[1.0, 1, 5], [1, 1, 5], [1, 1, 5], [0, 1, 5]])
    weights = np.array([[0.0, 1, 1], [1, 0, 1], [2, 0.5, 0], [0, 1, 1]])

    where = _chain().sample_spaces(labels, weights)

    np.testing.assert_array_equal(where, np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]], bool))
    without = _chain().sample_spaces(labels)
    np.testing.assert_array_equal(without, _chain().sample_spaces(labels, np.ones_like(labels)))
    np.testing.assert_array_equal(without, _chain().sample_spaces(labels, np.zeros((4, 0))))


@pytest.mark.parametrize(
    ("features", "tasks", "message"),
    [
        ([A, Feature("a", "number")], [Y], "two features may not share a name"),
        ([A], [Y, Y], "two tasks may not share a name"),
        ([Feature("b", "id", column="y")], [Y], r"label would leak[\s\S]*feature 'b' reads 'y', as task 'y'"),
        ([Feature("w", "number")], [Task("y", "binary", weight="w")], "label would leak"),
        ([A], [Task("y", "binary", given="y")], r"circle[\s\S]*y → y"),
        (
            [A],
            [Task("p", "binary", given="q"), Task("q", "binary", given="r"), Task("r", "binary", given="q")],
            r"circle[\s\S]*p → q → r → q",
        ),
        ([A], [Y, Task("z", "binary", given="yy")], r"given must name a task[\s\S]*did you mean 'y'"),
        ([A], [Task("t", "regression"), Task("z", "binary", given="t")], "given must name a binary task"),
        ([A, Feature("s", "sequence", shares="b")], [Y], r"shares must name[\s\S]*one of: a"),
        ([Feature("n", "number"), Feature("s", "sequence", shares="n")], [Y], "shares must name an id or category"),
        ([A, Feature("b", "id", shares="a")], [Y], r"'b': shares is for tags and sequence features[\s\S]*kind = 'id'"),
        ([Feature("s", "sequence", shares="s")], [Y], "shares must name an id or category"),
    ],
)
def test_rules_across_fields(features: list[Feature], tasks: list[Task], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schema(tuple(features), tuple(tasks))


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Feature("b", "category", bins=8), r"'b': bins is for number features[\s\S]*kind = 'category', bins = 8"),
        (Feature("b", "id", max_length=9), "max_length is for tags and sequence features"),
        (Feature("b", "sequence", delimiter="|"), "delimiter is for tags features"),
        (Feature("b", "number", hash_buckets=9), "hash_buckets is for id and category and tags and sequence features"),
        (Feature("b", "number", min_count=2), "min_count is for id"),
        (Feature("b", "tags", shares="a", min_count=2), r"min_count belongs to[\s\S]*set min_count on 'a'"),
        (Feature("b", "sequence", shares="a", hash_buckets=9), r"hash_buckets belongs to[\s\S]*on 'a'"),
        (Feature("b", "id", hash_buckets=9, min_count=2), r"min_count is for a vocabulary[\s\S]*remove one of them"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(feature: Feature, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schema((A, feature), (Y,))


def test_keys_that_do_something() -> None:
    features = (
        Feature("n", "number", bins=8, max_length=50),  # as the default is, so it cannot be told whether it was set
        Feature("i", "id", min_count=2),
        Feature("c", "category", hash_buckets=9),
        Feature("t", "tags", max_length=9, delimiter="|", hash_buckets=9),
        Feature("s", "sequence", max_length=9, min_count=2),
        Feature("o", "sequence", shares="i", max_length=9),
    )

    assert Schema(features, (Y,)).features == features


@pytest.mark.parametrize("key", ["group", "time"])
def test_a_label_is_neither_the_group_nor_the_clock(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} may not be the label[\s\S]*'is_y', the label of task 'y'"):
        Schema((A,), (Task("y", "binary", column="is_y"),), **{key: "is_y"})


def test_positive_is_for_binary_tasks() -> None:
    with pytest.raises(ConfigError, match="task 'y': positive is for binary tasks"):
        Schema((A,), (Task("y", "regression", positive=0),))


def test_a_duration_s_keys_survive_a_file(tmp_path: Path) -> None:
    tasks = (Task("t", "duration", head="d2q", item_duration="length"), Task("u", "duration"), Task("n", "count"))
    schema = Schema((A, Feature("length", "number")), tasks)
    save_schema(schema, tmp_path / "schema.toml")

    assert load_schema(tmp_path / "schema.toml") == schema


@pytest.mark.parametrize("name", ["../../x", "a/b", ".hidden", "..", "two words", "a\n", "a\x00", "a:b", 'a"', "c\\d"])
def test_names_of_tasks_that_are_none_for_files(name: str) -> None:
    with pytest.raises(ConfigError, match=r"a task's name must be of letters[\s\S]*column ="):
        Schema((A,), (Task(name, "binary"),))


@pytest.mark.parametrize("name", ["click", "is_click", "click-7d", "v1.2", "-", "_", "点击", "Käufe"])
def test_names_of_tasks(name: str) -> None:
    assert Schema((A,), (Task(name, "binary"),)).task_names == (name,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"features": [{"name": "a", "kidn": "id"}]}, r"features\[0\][\s\S]*did you mean 'kind'"),
        ({"features": [{"name": "a", "kind": "ids"}]}, r"features\[0\].kind: input should be 'id', 'category'"),
        ({"features": []}, "features: "),
        ({"features": [{"name": "a", "kind": "number", "bins": 1}]}, "greater than or equal to 2"),
        ({"tasks": [{"name": "y", "kind": "multiclass"}]}, "'binary', 'regression', 'count' or 'duration'"),
        ({"gruop": "a"}, r"the file has no key 'gruop'[\s\S]*did you mean 'group'"),
    ],
)
def test_rules_of_one_field(table: dict[str, Any], message: str) -> None:
    whole = {"features": [{"name": "a", "kind": "id"}], "tasks": [{"name": "y", "kind": "binary"}]}

    with pytest.raises(ConfigError, match=message):
        build(Schema, whole | table, "")


def test_round_trip_through_a_file(tmp_path: Path, feedback_schema: Callable[[], Schema]) -> None:
    odd = Schema(
        (Feature("a", "id", hash_buckets=10), Feature("t", "tags", shares="a", delimiter="|", column='odd "name"')),
        (
            Task("t1", "binary", positive="50000+."),
            Task("t2", "binary", positive=1, given="t1"),
            Task("t3", "binary", positive=True, weight="w"),
            Task("t4", "binary", positive=1.5),
        ),
    )
    for schema in (feedback_schema(), odd):
        save_schema(schema, tmp_path / "schema.toml")

        loaded = load_schema(tmp_path / "schema.toml")
        assert loaded == schema
        assert [type(t.positive) for t in loaded.tasks] == [type(t.positive) for t in schema.tasks]
        assert build(Schema, to_table(schema), "") == schema
    assert "max_length" not in (tmp_path / "schema.toml").read_text()


def test_columns_are_read_once() -> None:
    schema = Schema((A, Feature("b", "number", column="a")), (Task("y", "binary", weight="w"),), group="a", time="t")

    assert schema.columns(labels=False) == ["a"]
    assert schema.columns(labels=True) == ["a", "y", "w", "t"]


I64, F64, TEXT = pa.int64(), pa.float64(), pa.string()


@pytest.mark.parametrize(
    ("kind", "suitable", "unsuitable"),
    [
        (
            "id",
            [I64, pa.uint64(), F64, TEXT, pa.large_string(), pa.string_view(), pa.null()],
            [pa.list_(I64), pa.date32()],
        ),
        ("category", [pa.bool_(), TEXT, pa.dictionary(pa.int8(), TEXT)], [pa.list_(TEXT), pa.timestamp("ms")]),
        ("number", [I64, pa.float32(), pa.bool_(), pa.decimal128(5, 2)], [TEXT, pa.list_(F64)]),
        ("tags", [TEXT, pa.list_(TEXT), pa.large_list(I64), pa.list_(I64, 2)], [I64, pa.list_(F64)]),
        ("sequence", [pa.list_(I64), pa.large_list(TEXT), pa.list_(pa.null())], [TEXT, I64, pa.list_(pa.list_(I64))]),
    ],
)
def test_suitable_types(kind: Any, suitable: list[pa.DataType], unsuitable: list[pa.DataType]) -> None:
    schema = Schema((Feature("a", kind),), (Y,))

    for type_ in suitable:
        schema.check(pa.schema([("a", type_), ("y", I64)]), "log")
    for type_ in unsuitable:
        with pytest.raises(DataError, match=f"log: a {kind} feature needs"):
            schema.check(pa.schema([("a", type_), ("y", I64)]), "log")


def test_check_of_columns() -> None:
    schema = Schema((A,), (Task("y", "binary", column="is_click"),), group="user")
    whole = [("a", I64), ("is_click", I64), ("user", TEXT)]

    schema.check(pa.schema(whole), "log")
    schema.check(pa.schema(whole[:1]), "log", labels=False)
    with pytest.raises(DataError, match=r"log must have the column 'is_click'[\s\S]*did you mean 'isclick'"):
        schema.check(pa.schema([("a", I64), ("isclick", I64)]), "log")
    with pytest.raises(DataError, match="must have the column 'a' once"):
        schema.check(pa.schema([*whole, ("a", I64)]), "log")
    with pytest.raises(DataError, match=r"the label of task 'y' must be a number[\s\S]*type string"):
        schema.check(pa.schema([("a", I64), ("is_click", TEXT), ("user", TEXT)]), "log")
    with pytest.raises(DataError, match=r"the group must be[\s\S]*'user' of type list"):
        schema.check(pa.schema([*whole[:2], ("user", pa.list_(I64))]), "log")
