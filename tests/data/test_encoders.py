import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.encoders import Encoders
from polyrank.data.groups import NO_GROUP
from polyrank.data.readers import Source, table_source
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.vocabularies import Vocabulary
from polyrank.errors import DataError, RunError

NAN = np.nan
Y = Task("y", "binary")
LARGE = [2**24, 2**24 + 1, 2**31 + 5, 2**31 + 6, 2**53, 2**53 + 1, 2**63 - 1, -1, 0]


def _fit(features: list[Feature], columns: dict[str, Any], tasks: list[Task] | None = None) -> Encoders:
    table = pa.table(columns)
    if tasks is None:
        table = table.append_column("y", pa.array([i % 2 for i in range(table.num_rows)]))
    return Encoders.fit(Schema(tuple(features), tuple(tasks or [Y])), table_source("train", table, ""))


def _ids(encoders: Encoders, **columns: Any) -> list[Any]:
    batch = pa.RecordBatch.from_pydict(columns)
    ids = encoders.encode(batch, labels=False).ids
    return list(ids[:, 0].tolist() if ids.shape[1] == 1 else ids.tolist())


def test_null_unseen_and_known_values_by_hand() -> None:
    encoders = _fit([Feature("a", "id")], {"a": [30, 10, 10, None, 20, 20]})

    assert encoders.layout.tables == {"a": 5}
    assert _ids(encoders, a=[10, 20, 30, 99, None]) == [2, 3, 4, 1, 0]
    assert _ids(encoders, a=pa.array([], pa.int64())) == []


def test_large_ids_never_collide() -> None:
    encoders = _fit([Feature("a", "id")], {"a": LARGE})

    ids = _ids(encoders, a=LARGE)

    assert sorted(ids) == list(range(2, 2 + len(LARGE)))
    unseen = [v + d for v in LARGE for d in (-2, 2) if abs(v + d) < 2**63 and v + d not in LARGE]
    assert set(_ids(encoders, a=unseen)) == {1}


def test_ids_from_float_columns_with_nulls() -> None:
    encoders = _fit([Feature("a", "id")], {"a": [2.0**24, 2.0**24 + 1, NAN, None, 2.0**31 + 5]})

    assert encoders.encoders["a"].rows == 5
    assert _ids(encoders, a=[2**24, 2**24 + 1, 2**31 + 5, 0]) == [2, 3, 4, 1]
    assert _ids(encoders, a=pa.array([NAN, None, 2.0**24 + 1])) == [0, 0, 3]
    with pytest.raises(DataError, match="float is exact below 16,777,216"):
        _fit([Feature("a", "id")], {"a": pa.array([1.0, 2.0**25], pa.float32())})


def test_unsigned_ids_above_int63_stay_apart() -> None:
    values = pa.array([2**63, 2**63 + 1, 2**64 - 1, 5], pa.uint64())
    encoders = _fit([Feature("a", "id")], {"a": values})

    assert sorted(_ids(encoders, a=values)) == [2, 3, 4, 5]


def test_types_may_drift_between_training_and_scoring() -> None:
    snowflake = 1_234_567_890_123_456_789
    integers = _fit([Feature("a", "id")], {"a": [7, snowflake]})
    texts = _fit([Feature("a", "id")], {"a": ["7", "x", str(snowflake)]})

    assert _ids(integers, a=["7", "x", "007", str(snowflake), None]) == [2, 1, 1, 3, 0]
    assert _ids(integers, a=[7.0, NAN]) == [2, 0]
    assert _ids(integers, a=pa.nulls(1)) == [0]
    assert _ids(texts, a=[snowflake, 7, 8, None]) == [2, 3, 1, 0]
    assert _ids(texts, a=pa.array([7.0, None])) == [3, 0]


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_text(type_: pa.DataType) -> None:
    def column(values: list[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).cast(type_)

    encoders = _fit([Feature("a", "category")], {"a": column(["b", "Δ", "b", None, ""])})

    assert _ids(encoders, a=column(["b", "", "Δ", "c", None])) == [2, 3, 4, 1, 0]


def test_nulls_hidden_in_a_dictionary_are_missing() -> None:
    encoders = _fit([Feature("a", "category")], {"a": ["x", "y"]})

    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["x", None]))
    assert _ids(encoders, a=hidden) == [2, 0, 0]


def test_min_count_leaves_rare_values_out() -> None:
    encoders = _fit([Feature("a", "id", min_count=2)], {"a": ["x", "x", "y", None, None, None]})

    assert encoders.layout.tables == {"a": 3}
    assert _ids(encoders, a=["x", "y", None]) == [2, 1, 0]
    nothing = _fit([Feature("a", "id", min_count=9)], {"a": ["x", "x"]})
    assert _ids(nothing, a=["x", None]) == [1, 0]


def test_buckets() -> None:
    encoders = _fit([Feature("a", "id", hash_buckets=100)], {"a": [1, 2, None]})
    values = [0, 1, 2**24, 2**24 + 1, 2**40]

    expected = [37, 67, 34, 92, 43]  # 2 + SplitMix64 mod 100, by the reference in test_columns.py
    assert _ids(encoders, a=values) == expected
    assert _ids(encoders, a=[str(v) for v in values]) == expected
    assert _ids(encoders, a=["x", None]) == [1, 0]  # no integer: unknown; only null is missing
    assert encoders.layout.tables == {"a": 102}


def test_all_tables_together_must_fit_int32() -> None:
    with pytest.raises(DataError, match=r"2,147,483,647[\s\S]*for 'a'[\s\S]*hash_buckets"):
        _fit([Feature("a", "id", hash_buckets=2**31 - 2), Feature("b", "id")], {"a": [1, 2], "b": [1, 2]})


def test_a_constant_or_missing_number_is_harmless() -> None:
    encoders = _fit(
        [Feature("a", "number"), Feature("b", "number")], {"a": [0.1] * 5, "b": pa.array([None] * 5, pa.float64())}
    )
    batch = pa.RecordBatch.from_pydict({"a": [0.1, 0.2, None], "b": [3.0, None, NAN]})

    encoded = encoders.encode(batch, labels=False)

    assert encoded.ids.tolist() == [[1, 1], [1, 0], [0, 0]]
    np.testing.assert_allclose(encoded.dense[:, 0], [0, np.log1p(0.2) - np.log1p(0.1), 0], rtol=1e-6)


def test_tags_keep_the_first_and_sequences_the_newest() -> None:
    encoders = _fit(
        [Feature("t", "tags", max_length=2), Feature("s", "sequence", max_length=2)],
        {"t": ["a,a,a", "b,b,c"], "s": [[1, 1, 1, 2, 2], [3]]},
    )

    ids = _ids(encoders, t=[" a ,b,c", "", None, "c,,b,a", "x"], s=[[1, 2, 3], [], None, [3, 9, None], [2]])

    assert [row[:2] for row in ids] == [[2, 3], [0, 0], [0, 0], [4, 3], [1, 0]]
    assert [row[2:] for row in ids] == [[3, 4], [0, 0], [0, 0], [4, 1], [3, 0]]


def test_shared_features_count_into_one_vocabulary() -> None:
    encoders = _fit(
        [Feature("s", "sequence", shares="a"), Feature("a", "id"), Feature("t", "tags", shares="a")],
        {"a": [1, 2, 1], "s": [[2, 2, 2], [3], None], "t": ["4, 3", None, "x"]},
    )

    assert dict(encoders.layout.tables) == {"a": 6}
    assert encoders.encoders["a"].values.to_pylist() == [2, 1, 3, 4]
    assert [f.table for f in encoders.layout.fields] == ["a"] * 3
    ids = encoders.encode(pa.RecordBatch.from_pydict({"a": [4], "s": [[1, 2]], "t": ["2,x"]}), labels=False).ids
    assert ids[0, [0, 1, 50, 51, 52]].tolist() == [3, 2, 5, 2, 1]


def test_shared_buckets_agree() -> None:
    encoders = _fit(
        [Feature("a", "id", hash_buckets=50), Feature("s", "sequence", shares="a", max_length=1)],
        {"a": [1, 2], "s": [[1], [2]]},
    )

    assert dict(encoders.layout.tables) == {"a": 52}
    assert all(a == s for a, s in _ids(encoders, a=[1, 2, 999], s=[[1], [2], [999]]))


def test_layout() -> None:
    features = [Feature("s", "tags", max_length=3), Feature("n", "number"), Feature("a", "id"), Feature("m", "number")]
    layout = _fit(features, {"s": ["x", "y"], "n": [1, 2], "a": [1, 2], "m": [1.0, 2]}).layout

    assert [(f.start, f.stop, f.dense) for f in layout.fields] == [(0, 3, -1), (3, 4, 0), (4, 5, -1), (5, 6, 1)]
    assert (layout.id_columns, layout.dense_columns) == (6, 2)


def test_fit_does_not_depend_on_the_chunks(
    feedback_table: Callable[..., pa.Table], feedback_schema: Callable[[], Schema], tmp_path: Path
) -> None:
    table = feedback_table(3000)
    states = []
    for name, rows in (("whole", 3000), ("tens", 10), ("odd", 997)):
        parts = [table.slice(first, rows) for first in range(0, 3000, rows)]
        source = table_source("log", pa.concat_tables(parts), "")
        assert sum(1 for _ in source.batches(["user_id"])) == len(parts)
        (tmp_path / name).mkdir()
        Encoders.fit(feedback_schema(), source).save(tmp_path / name)
        states.append((tmp_path / name / "encoders.json").read_text())

    assert states[0] == states[1] == states[2]


def test_encoding_does_not_depend_on_the_chunks(fitted: Callable[..., tuple[Encoders, Source]]) -> None:
    encoders, source = fitted(300)
    columns = encoders.schema.columns(labels=True)

    whole = [encoders.encode(batch) for batch in source.batches(columns)]
    parts = [encoders.encode(batch) for batch in source.batches(columns, 7)]

    assert (len(whole), len(parts)) == (1, 43)
    for part in ("ids", "dense", "labels", "weights", "groups"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, part) for p in parts]), getattr(whole[0], part))


def test_saved_and_loaded_encoders_are_equal(fitted: Callable[..., tuple[Encoders, Source]], tmp_path: Path) -> None:
    encoders, source = fitted()
    encoders.save(tmp_path)

    loaded = Encoders.load(tmp_path, encoders.schema)

    assert loaded == encoders
    (tmp_path / "again").mkdir()
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "encoders.json").read_text() == (tmp_path / "encoders.json").read_text()
    for batch in source.batches(encoders.schema.columns(labels=True)):
        one, two = encoders.encode(batch), loaded.encode(batch)
        for part in ("ids", "dense", "labels", "groups"):
            np.testing.assert_array_equal(getattr(one, part), getattr(two, part))


def test_the_digest_is_of_all_that_encodes(tmp_path: Path) -> None:
    features = [
        Feature("a", "id"),
        Feature("b", "category"),
        Feature("h", "id", hash_buckets=9),
        Feature("n", "number"),
    ]
    columns: dict[str, Any] = {
        "a": [1, 2, 1, 3],
        "b": ["x", "y", "Δ", ""],
        "h": [1, 2, 3, 4],
        "n": [0.1, 0.2, 0.3, 7.0],
    }
    encoders = _fit(features, columns)
    encoders.save(tmp_path)

    assert Encoders.load(tmp_path, encoders.schema).digest == _fit(features, columns).digest == encoders.digest
    others = [
        _fit(features, columns | {"a": [1, 2, 2, 3]}),  # the same ids in another order
        _fit(features, columns | {"a": [1, 2, 1, 4]}),
        _fit(features, columns | {"b": ["xy", "", "Δ", "Δ"]}),
        _fit([*features[:2], Feature("h", "id", hash_buckets=8), features[3]], columns),
        _fit(features, columns | {"n": [0.1, 0.2, 0.3, 8.0]}),
        _fit([features[0], Feature("c", "category", column="b"), *features[2:]], columns),
    ]
    assert len({encoders.digest, *(other.digest for other in others)}) == 7


def test_the_file_is_compact_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = _fit([Feature("a", "id"), Feature("b", "category")], {"a": range(100, 200), "b": ['"', "\n"] * 50})
    encoders.save(tmp_path)
    text = (tmp_path / "encoders.json").read_text()

    assert text.count("\n") == 4  # one encoder a line
    assert ",".join(map(str, range(100, 200))) in text
    assert json.loads(text)["encoders"]["b"] == {"kind": "vocabulary", "type": "large_string", "values": ["\n", '"']}
    monkeypatch.setattr("polyrank.data.vocabularies._CHUNK", 7)
    encoders.save(tmp_path)
    assert (tmp_path / "encoders.json").read_text() == text


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"format": 2},
        lambda s: {k: v for k, v in s.items() if k != "encoders"},
        lambda s: s | {"encoders": []},
        lambda s: s | {"encoders": {k: v for k, v in s["encoders"].items() if k != "price"}},
        lambda s: s | {"encoders": s["encoders"] | {"price": {"kind": "number"}}},
        lambda s: (
            s | {"encoders": s["encoders"] | {"category": {"kind": "vocabulary", "type": "int64", "values": ["x"]}}}
        ),
        lambda s: s | {"tasks": s["tasks"][:1]},
        lambda s: s | {"tasks": [{"rows": 1}]},
        lambda s: [s],
    ],
)
def test_damaged_encoders_are_a_run_error(
    fitted: Callable[..., tuple[Encoders, Source]], tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    encoders, _ = fitted()
    encoders.save(tmp_path)
    state = json.loads((tmp_path / "encoders.json").read_text())
    (tmp_path / "encoders.json").write_text(json.dumps(change(state)))

    with pytest.raises(RunError, match=r"encoders\.json must be of format 1"):
        Encoders.load(tmp_path, encoders.schema)


def test_encoded_weights_are_one_where_a_task_has_none() -> None:
    encoders = _fit(
        [Feature("a", "id")],
        {"a": [1, 2, 3], "y": [0, 1, 1], "z": [1.0, 2, 3], "w": [2.0, 0, 1]},
        [Y, Task("z", "regression", weight="w")],
    )
    batch = pa.RecordBatch.from_pydict({"a": [1, 2], "y": [0, 1], "z": [1.0, 2], "w": [2.0, 0]})

    encoded = encoders.encode(batch)

    assert encoded.weights.tolist() == [[1, 2], [1, 0]]
    np.testing.assert_array_equal(encoded.labels, [[0, 1], [1, 2]])
    assert encoded.groups.shape == (0,)
    scoring = encoders.encode(batch.select(["a"]), labels=False)
    assert (scoring.labels.shape, scoring.weights.shape, scoring.groups.shape) == ((2, 0), (2, 0), (0,))


def test_groups_keep_rows_together_and_apart() -> None:
    def groups(column: Any) -> list[int]:
        schema = Schema((Feature("a", "id"),), (Y,), group="g")
        table = pa.table({"a": [1, 2, 3, 4], "y": [0, 1, 0, 1], "g": column})
        encoders = Encoders.fit(schema, table_source("t", table, ""))
        encoded = encoders.encode(table.to_batches()[0])
        assert encoded.groups.dtype == np.int64
        values: list[int] = encoded.groups.tolist()
        return values

    assert groups([2**53, 2**53 + 1, -1, None]) == [2**53, 2**53 + 1, -1, NO_GROUP]
    assert groups([1.0, NAN, None, 0.0]) == [1, NO_GROUP, NO_GROUP, 0]
    assert groups(pa.nulls(4)) == [NO_GROUP] * 4
    one, two, three, four = groups(["u1", "u2", "u1", None])
    assert one == three
    assert len({one, two, four}) == 3
    assert four == NO_GROUP


def test_statistics_leave_rows_of_weight_0_out_of_their_own_task_only() -> None:
    encoders = _fit(
        [Feature("a", "id")],
        {"a": [1] * 5, "click": [1, 1, 0, 0, 1], "w": [0, 1, 3, 0, 1], "watch": [2.0, 6.0, 100.0, 100.0, None]},
        [Task("click", "binary", weight="w"), Task("watch", "regression", given="click")],
    )

    click, watch = encoders.statistics
    assert (click.rows, click.mean) == (3, pytest.approx(2 / 3))
    assert (watch.rows, watch.mean, watch.std) == (2, 4, 2)


def test_statistics_are_of_the_sample_space() -> None:
    encoders = _fit(
        [Feature("a", "id")],
        {"a": [1] * 5, "click": [1, 1, 0, None, 1], "watch": [2.0, 6.0, 100.0, 100.0, None]},
        [Task("click", "binary"), Task("watch", "regression", given="click")],
    )

    click, watch = encoders.statistics
    assert (click.rows, click.mean) == (4, 0.75)
    assert click.std == pytest.approx(np.sqrt(0.1875))
    assert (watch.rows, watch.mean, watch.std) == (2, 4, 2)


def test_a_duration_s_distribution_is_of_the_sample_space_and_by_the_bins_of_the_encoder() -> None:
    rng = np.random.default_rng(0)
    length = np.where(rng.random(900) < 0.2, NAN, rng.integers(1, 9, 900) * 10.0)
    click = rng.integers(0, 2, 900)
    watch = np.where(click, np.nan_to_num(length) + rng.random(900), 1e6).astype(np.float32)
    encoders = _fit(
        [Feature("length", "number", bins=4)],
        {"length": length, "click": click, "watch": watch},
        [Task("click", "binary"), Task("watch", "duration", given="click", head="d2q", item_duration="length")],
    )

    click_, watch_ = encoders.statistics
    assert (click_.quantiles, click_.grouped) == ((), ())
    assert watch_.quantiles[0] == watch[click == 1].min()
    assert watch_.quantiles[-1] == watch[click == 1].max()
    bins = encoders.encode(pa.RecordBatch.from_pydict({"length": length}), labels=False).ids[:, 0]
    assert len(watch_.grouped) == encoders.layout.tables["length"] > 3
    for group, quantiles in enumerate(watch_.grouped):
        inside = watch[(bins == group) & (click == 1)]
        assert (quantiles[0], quantiles[-1]) == (inside.min(), inside.max())


@pytest.mark.parametrize(
    ("tasks", "columns", "message"),
    [
        ([Y], {"y": [1, 1, None]}, r"both classes[\s\S]*all 2 labels in 'y' are 1"),
        ([Y], {"y": pa.nulls(3)}, r"at least one training row[\s\S]*every label in 'y' is missing"),
        ([Task("y", "binary", positive="yse")], {"y": ["yes", "no", "no"]}, "all 3 labels in 'y' are 0"),
        ([Task("y", "regression")], {"y": [0.1] * 3}, "different values"),
        ([Task("y", "duration")], {"y": [0.0] * 3}, "different values"),
        ([Task("y", "count")], {"y": [0, 0, None]}, "different values"),
        ([Y, Task("z", "binary", given="y")], {"y": [0, 1, None], "z": [1, None, 1]}, "among the rows with y = 1"),
        ([Y, Task("z", "binary", given="y")], {"y": [0, 1, 1], "z": [0, 1, 1]}, "both classes .* with y = 1"),
        ([Task("y", "binary", weight="w")], {"y": [0, 1, 1], "w": [1, 0, 0]}, "both classes"),
        ([Y], {"is_y": [0, 1, 1]}, r"train must have the column 'y'"),
    ],
)
def test_labels_that_teach_nothing(tasks: list[Task], columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _fit([Feature("a", "id")], {"a": [1, 2, 3], **columns}, tasks)


def test_log_of_traps_is_encoded_as_looked_up_row_by_row(fitted: Callable[..., tuple[Encoders, Source]]) -> None:
    """The whole encoding against a plain Python reading of the same table."""
    encoders, source = fitted(150, seed=3)
    batch = next(source.batches(encoders.schema.columns(labels=True)))
    encoded = encoders.encode(batch)
    rows = batch.to_pylist()
    place = {
        name: {value: i + 2 for i, value in enumerate(encoder.values.to_pylist())}
        for name, encoder in encoders.encoders.items()
        if isinstance(encoder, Vocabulary)
    }

    def id_of(name: str, value: Any) -> int:
        return 0 if value is None else place[name][value]

    for row, ids, labels in zip(rows, encoded.ids.tolist(), encoded.labels.tolist(), strict=True):
        tags = [place["tags"][tag.strip()] for tag in (row["tags"] or "").split(",") if tag.strip()][:3]
        history = [place["video_id"][video] for video in row["history"] or []][-4:]
        expected = [id_of(name, row[name]) for name in ("user_id", "video_id", "category")]
        assert ids[:3] == expected
        assert (ids[3] == 0) == (row["price"] is None or np.isnan(row["price"]))
        assert ids[4:7] == tags + [0] * (3 - len(tags))
        assert ids[7:] == history + [0] * (4 - len(history))
        np.testing.assert_array_equal(
            labels, [row["is_click"], NAN if row["is_like"] is None else row["is_like"], row["play_time"]]
        )
    assert np.isfinite(encoded.dense).all()


@pytest.mark.parametrize("rows", [1, 7, 4_096, 4_097, 9_000])
def test_repeated_values_are_encoded_as_each_row_by_itself(
    rows: int, feedback_table: Callable[..., pa.Table], feedback_schema: Callable[[], Schema]
) -> None:
    """Whether values are looked up by row or once each, and however they arrive."""
    whole = _fit_log(feedback_table(400, seed=1), feedback_schema())
    few = feedback_table(60, seed=2).drop_columns(["price"])
    places = np.random.default_rng(0).integers(0, 60, rows)
    batch = few.take(pa.array(places)).combine_chunks()
    batch = batch.append_column("price", pa.array(np.random.default_rng(1).integers(-9, 9, rows), pa.int32()))
    batch = batch.set_column(0, "user_id", batch["user_id"].cast(pa.string()))
    texts = ["user_id", "category", "tags"]
    coded = batch
    for name in texts:
        coded = coded.set_column(coded.column_names.index(name), name, coded[name].combine_chunks().dictionary_encode())

    found, again = (whole.encode(t.to_batches()[0], labels=False) for t in (batch, coded))

    by_row = [whole.encode(batch.slice(row, 1).to_batches()[0], labels=False) for row in range(min(rows, 200))]
    np.testing.assert_array_equal(found.ids, again.ids)
    np.testing.assert_array_equal(found.dense, again.dense)
    np.testing.assert_array_equal(found.ids[:200], np.concatenate([one.ids for one in by_row]))
    np.testing.assert_array_equal(found.dense[:200], np.concatenate([one.dense for one in by_row]))
    assert found.ids.flags.c_contiguous


def _fit_log(table: pa.Table, schema: Schema) -> Encoders:
    return Encoders.fit(schema, table_source("train", table, ""))
