import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from polyrank.config import read_toml
from polyrank.data.encoders import Encoders
from polyrank.data.infer import _expected, infer_schema
from polyrank.data.readers import open_source, table_source
from polyrank.data.schema import Feature, Task, load_schema
from polyrank.data.summary import Summary
from polyrank.errors import ConfigError, DataError

ROWS = 3000


@pytest.fixture(scope="module")
def feed():
    """A short-video log: nested labels, watch times, attributes, ranges, tags, histories, a clock and its copies."""
    g = np.random.default_rng(7)
    click = g.random(ROWS) < 0.4
    video = g.integers(0, 1500, ROWS)
    history = [g.choice(1500, g.integers(0, 31)).tolist() for _ in range(ROWS)]
    moments = 1_650_812_741_436 + np.sort(g.integers(0, 86_400_000, ROWS))
    return pa.table(
        {
            "user_id": g.integers(0, 400, ROWS).astype(np.int32),
            "video_id": video,
            "time_ms": moments,
            "tab": g.integers(0, 15, ROWS),
            "is_click": click.astype(int),
            "long_view": (click & (g.random(ROWS) < 0.6)).astype(int),
            "is_like": pa.array([int(x) if x < 2 else None for x in g.integers(0, 3, ROWS)]),
            "is_hate": np.zeros(ROWS, int),
            "play_time_ms": g.integers(0, 10**5, ROWS),
            "is_video_author": g.integers(0, 2, ROWS),
            "is_lowactive_period": np.zeros(ROWS, int),
            "fans_num": g.integers(0, 5000, ROWS),
            "fans_num_range": g.choice(["[10,100)", "(150,250]", "[1k,5k)", "0"], ROWS),
            "onehot_feat4": pa.array([float(x) if x else None for x in g.integers(0, 12, ROWS)]),
            "score": g.random(ROWS),
            "tag": g.choice(["39", "12,6", "6,39", "12", "6", "12,39", None], ROWS).tolist(),
            "genres": g.choice(["Drama|War", "Drama", "War|Drama", "War", "Drama|War|Love", "Love"], ROWS),
            "watched_videos": history,
            "topics": [[int(x)] for x in g.integers(0, 5, ROWS)],
            "upload_dt": g.choice(["2022-04-09", "2022-04-10"], ROWS),
            "hour": g.integers(0, 24, ROWS),
            "day": ["2022-04-24"] * 2000 + ["2022-04-25"] * 1000,
            "request_id": [f"q{i // 3}" for i in range(ROWS)],
            "log_key": [f"k{i}" for i in range(ROWS)],
            "embedding": [[0.1, 0.2]] * ROWS,
            "nothing": pa.nulls(ROWS),
            "nested": pa.array([{"a": 1}] * ROWS),
        }
    )


@pytest.fixture(scope="module")
def shop():
    """An impression log of a shop: camel case, text answers, revenue, row weights, days only."""
    g = np.random.default_rng(8)
    cart = g.random(ROWS) < 0.2
    paid = cart & (g.random(ROWS) < 0.5)
    return pa.table(
        {
            "customerId": [f"c{x}" for x in g.integers(0, 900, ROWS)],
            "sku": g.integers(10**6, 10**6 + 1800, ROWS),
            "clicked": np.where(g.random(ROWS) < 0.5, "yes", "no"),
            "addToCart": cart,
            "purchased": paid.astype(float),
            "revenue": paid * g.random(ROWS),
            "sample_weight": g.random(ROWS),
            "avg_rating": g.random(ROWS) * 5,
            "last_click": g.integers(0, 2, ROWS),
            "segment_label": g.choice(["gold", "gold", "blue"], ROWS),
            "city": g.choice(["Graz", "Linz", ""], ROWS),
            "date": np.datetime64("2024-05-01") + np.arange(ROWS) // 100,
            "wage_per_hour": g.integers(0, 24, ROWS),
        }
    )


def infer(table, directory, **arguments):
    text = infer_schema(table_source("made", table, "0"), **arguments)
    path = directory / "schema.toml"
    path.write_text(text, encoding="utf-8")
    return text, path


def beside(text, name):
    """The comments of a feature or task."""
    table = next(part for part in text.split("\n\n") if f'\nname = "{name}"' in part)
    return "\n".join(line for line in table.splitlines() if line.startswith("#"))


def test_a_feed_is_read_as_a_person_would(feed, tmp_path):
    _, path = infer(feed, tmp_path)
    schema = load_schema(path)
    schema.check(feed.schema, "feed")
    assert (schema.group, schema.time) == ("user_id", "time_ms")
    assert schema.tasks == (
        Task("click", "binary", "is_click"),
        Task("long_view", "binary"),
        Task("like", "binary", "is_like"),
    )
    assert schema.features == (
        Feature("user_id", "id"),
        Feature("video_id", "id"),
        Feature("tab", "category"),
        Feature("is_video_author", "category"),
        Feature("fans_num", "number"),
        Feature("fans_num_range", "category"),
        Feature("onehot_feat4", "category"),
        Feature("score", "number"),
        Feature("tag", "tags", max_length=2),
        Feature("genres", "tags", delimiter="|", max_length=3),
        Feature("upload_dt", "category"),
        Feature("hour", "category"),
        Feature("watched_videos", "sequence", shares="video_id", max_length=30),
        Feature("topics", "tags", max_length=5),
    )
    Encoders.fit(schema, table_source("feed", feed, "0"))


def test_what_is_left_out_says_why(feed, tmp_path):
    text, _ = infer(feed, tmp_path)
    left_out = dict(line[4:].split(": ", 1) for line in text.split("# Left out:\n")[1].splitlines())
    assert {name: reason.split(":")[0].split(" (")[0] for name, reason in left_out.items()} == {
        "is_lowactive_period": "constant",
        "day": "a copy of the clock",
        "request_id": "it names what does not come again",
        "log_key": "a row key",
        "embedding": "list<item",
        "nothing": "no value",
        "nested": "struct<a",
    }


def test_outcomes_that_are_not_sure_are_commented_out(feed, shop, tmp_path):
    text, _ = infer(feed, tmp_path)
    assert '# [[tasks]]\n# name = "play_time_ms"\n# kind = "duration"' in text
    assert 'every label seen is 0\n# [[tasks]]\n# name = "hate"\n# column = "is_hate"' in text
    text, _ = infer(shop, tmp_path)
    assert '# [[tasks]]\n# name = "revenue"\n# kind = "regression"' in text
    assert '# name = "segment_label"\n# kind = "binary"\n# positive = "blue"' in text


def test_a_shop_is_read_as_a_person_would(shop, tmp_path):
    text, path = infer(shop, tmp_path)
    schema = load_schema(path)
    assert (schema.group, schema.time) == ("customerId", "date")
    assert schema.tasks == (
        Task("clicked", "binary", positive="yes"),
        Task("addToCart", "binary"),
        Task("purchased", "binary"),
    )
    assert {f.name: f.kind for f in schema.features} == {
        "customerId": "id",
        "sku": "id",
        "avg_rating": "number",
        "last_click": "category",
        "city": "category",
        "wage_per_hour": "number",
    }
    assert '#   sample_weight: a row weight; set weight = "sample_weight" on the tasks' in text
    Encoders.fit(schema, table_source("shop", shop, "0"))


def test_a_nested_label_names_its_parent_as_a_comment(feed, shop, tmp_path):
    text, _ = infer(feed, tmp_path)
    assert "# given = \"click\"   # 100.0% of its positives have 'click' = 1" in beside(text, "long_view")
    assert "given" not in beside(text, "click")
    assert "given" not in beside(text, "like")
    assert "given" not in beside(infer(shop, tmp_path)[0], "addToCart")
    text, path = infer(shop, tmp_path)
    # What is commented out is right when the comment sign goes.
    path.write_text(text.replace('# given = "addToCart"', 'given = "addToCart"'))
    assert load_schema(path).tasks[2].given == "addToCart"


def test_of_two_parents_the_nearer_one_is_named(tmp_path):
    rows = np.arange(1000)
    table = pa.table(
        {n: (rows % k == 0).astype(int) for n, k in (("click", 2), ("cart", 4), ("buy", 8))} | {"x": rows % 7}
    )
    text, _ = infer(table, tmp_path)
    assert '# given = "cart"' in beside(text, "buy")
    assert '# given = "click"' in beside(text, "cart")


def test_each_table_says_what_was_seen_and_why(feed, tmp_path):
    text, _ = infer(feed, tmp_path)
    assert beside(text, "onehot_feat4").startswith("# double, 11 distinct, 8.")
    assert "a history by its name" in beside(text, "watched_videos")
    assert re.search(r"(8|9)[0-9]% of its values are also in 'video_id'", beside(text, "watched_videos"))
    assert "an id by its name" in beside(text, "video_id")


def test_no_task_leaves_an_example_and_says_what_to_do(tmp_path):
    text, path = infer(pa.table({"age": range(100), "income_50k": ["-"] * 90 + ["+"] * 10}), tmp_path)
    assert "TO DO: no task is sure" in text
    assert '# name = "income_50k"\n# kind = "binary"\n# positive = "+"' in text
    with pytest.raises(ConfigError, match="tasks must be given"):
        load_schema(path)
    path.write_text(re.sub(r"^# (?=\[\[tasks|name|kind =|positive)", "", text, flags=re.MULTILINE))
    assert load_schema(path).tasks == (Task("income_50k", "binary", positive="+"),)
    text, path = infer(pa.table({"age": range(100)}), tmp_path)
    assert '# [[tasks]]\n# name = "click"' in text
    assert [f["name"] for f in read_toml(path)["features"]] == ["age"]


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_files_of_both_formats(feed, tmp_path, end):
    kept = ["user_id", "video_id", "time_ms", "is_click", "long_view", "tag", "score", "hour", "fans_num_range"]
    table = feed.select(kept)
    if end == "csv":
        pyarrow.csv.write_csv(table, tmp_path / "log.csv")
    else:
        pyarrow.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=1000)
    source = open_source(tmp_path / f"log.{end}")
    (tmp_path / "schema.toml").write_text(infer_schema(source))
    schema = load_schema(tmp_path / "schema.toml")
    schema.check(source.schema, "log")
    kinds = {f.name: f.kind for f in schema.features}
    assert kinds == {
        "user_id": "id", "video_id": "id", "tag": "tags", "score": "number", "hour": "category",
        "fans_num_range": "category",
    }  # fmt: skip
    assert schema.time == "time_ms"
    Encoders.fit(schema, source)


def test_a_sample_says_so_and_counts_only_its_rows(feed, tmp_path):
    text, _ = infer(feed, tmp_path, sample_rows=1000)
    assert "the first 1,000 of 3,000 rows" in text
    assert "constant in the rows looked at" in text
    pyarrow.csv.write_csv(feed.select(["is_click", "score"]), tmp_path / "log.csv")
    assert "the first 1,000 of 3,000 rows" in infer_schema(open_source(tmp_path / "log.csv"), sample_rows=1000)
    assert "all 3,000 rows" in infer_schema(open_source(tmp_path / "log.csv"))


def test_heaps_law_extrapolates_ids():
    once = Summary()
    once.add(pa.array(range(1000)))
    assert _expected(once, 5000.0) == pytest.approx(5_000_000)  # each value is new: as many as rows
    often = Summary()
    often.add(pa.array([*range(500), *range(500)]))
    assert _expected(often, 5000.0) == 500  # none is new any more


def test_too_many_ids_are_advised_to_be_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr("polyrank.data.infer._HUGE", 1000)
    ids = np.random.default_rng(0).integers(0, 1400, ROWS)
    text, path = infer(pa.table({"is_click": ids % 2, "item_id": ids}), tmp_path)
    assert "# hash_buckets = 2048   # about" in beside(text, "item_id")
    assert load_schema(path).features == (Feature("item_id", "id"),)


def test_one_row_still_makes_a_schema(tmp_path):
    table = pa.table({"user_id": [1], "age": [30], "is_click": [1], "tags": ["a,b"], "seen": [[1, 2]]})
    _, path = infer(table, tmp_path)
    schema = load_schema(path)
    assert schema.tasks == (Task("click", "binary", "is_click"),)
    assert [f.kind for f in schema.features] == ["id", "category", "category", "tags"]


def test_empty_texts_null_columns_and_empty_lists(tmp_path):
    rows = 100
    columns = {
        "is_click": [i % 2 for i in range(rows)],
        "blank": [""] * rows,
        "half_blank": ["", "a"] * 50,
        "tags": ["", "a,b", "b,a", "a", "b"] * 20,
        "void": pa.nulls(rows, pa.string()),
        "void_list": pa.array([None] * rows, pa.list_(pa.int64())),
        "empty_lists": pa.array([[]] * rows, pa.list_(pa.int64())),
        "nan": [float("nan")] * rows,
        "flag": [1, None] * 50,
    }
    text, path = infer(pa.table(columns), tmp_path)
    schema = load_schema(path)
    assert {f.name: f.kind for f in schema.features} == {"half_blank": "category", "tags": "tags", "flag": "category"}
    assert "it tells only whether there is a value" in beside(text, "flag")
    assert "#   blank: constant: ''" in text
    for name in ("void", "void_list", "empty_lists", "nan"):
        assert f"#   {name}: no value" in text


def test_a_csv_with_an_unnamed_index_column(tmp_path):
    lines = ["," + "is_click,x", *(f"{i},{i % 2},{i % 9}" for i in range(60))]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    text = infer_schema(open_source(tmp_path / "log.csv"))
    (tmp_path / "schema.toml").write_text(text)
    assert [f.name for f in load_schema(tmp_path / "schema.toml").features] == ["x"]
    assert "#   : a column without a name" in text


def test_hostile_names_and_values_stay_toml(tmp_path):
    rows = 60
    odd = 'a"b\n# x = 1\x07'
    columns = {
        "is_click": [i % 2 for i in range(rows)],
        odd: [f"v\n[[tasks]]\x00{i % 2}" for i in range(rows)],
        "点击": [1.5 + i for i in range(rows)],
        f"{odd} sample_weight": [0.5 + i for i in range(rows)],
        f"is_{odd} click": [i % 2 for i in range(rows)],
    }
    _, path = infer(pa.table(columns), tmp_path)
    schema = load_schema(path)
    assert [f.name for f in schema.features] == [odd, "点击"]
    assert [t.source for t in schema.tasks] == ["is_click", f"is_{odd} click"]


def test_names_of_tasks_are_names_for_files(tmp_path):
    rows = 60
    labels = ["User Clicked?", "user clicked!", "../liked", ".bought", "is_shared/7d", "点击 click"]
    table = pa.table({name: [i % 2 for i in range(rows)] for name in labels} | {"x": range(rows)})
    _, path = infer(table, tmp_path)
    schema = load_schema(path)
    assert [task.source for task in schema.tasks] == labels
    assert schema.task_names == ("User_Clicked_", "user_clicked_", "_liked", "bought", "shared_7d", "点击_click")
    Encoders.fit(schema, table_source("log", table, "0"))


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    table = pa.table({name: [0, 1] * 30 for name in ("is_click", "click", "is-click", "is click")} | {"x": range(60)})
    _, path = infer(table, tmp_path)
    tasks = {task.source: task.name for task in load_schema(path).tasks}
    assert tasks == {"is_click": "click", "click": "click_2", "is-click": "is-click", "is click": "is_click"}


def test_two_labels_of_one_name_stay_two_tasks(tmp_path):
    table = pa.table({"is_click": [0, 1] * 30, "has_click": [1, 0] * 30, "x": range(60)})
    _, path = infer(table, tmp_path)
    assert load_schema(path).task_names == ("click", "has_click")


def test_a_list_of_few_small_integers_does_not_share_any_id(tmp_path):
    g = np.random.default_rng(2)
    columns = {
        "is_click": g.integers(0, 2, 2000),
        "item_id": g.integers(0, 1200, 2000),
        "author_id": g.integers(0, 1200, 2000),
        "colours": [g.integers(0, 5, 2).tolist() for _ in range(2000)],
        "liked_authors": [g.integers(0, 1200, 9).tolist() for _ in range(2000)],
        "recent": [g.integers(0, 1200, 9).tolist() for _ in range(2000)],
        "past_words": [["a", "b"]] * 2000,
    }
    _, path = infer(pa.table(columns), tmp_path)
    found = {f.name: (f.kind, f.shares) for f in load_schema(path).features if f.kind in ("tags", "sequence")}
    assert found["colours"] == ("tags", "")
    assert found["liked_authors"] == ("sequence", "author_id")
    assert found["recent"][1] in ("item_id", "author_id")
    assert "past_words" not in found or found["past_words"] == ("sequence", "")


def test_floats_hold_ids_only_where_they_are_exact(tmp_path):
    g = np.random.default_rng(3)
    ids = g.integers(0, 500, 2000).astype(float)
    columns = {
        "is_click": g.integers(0, 2, 2000),
        "item_id": pa.array([None if x < 9 else x for x in ids]),
        "lost_id": pa.array(ids + 2**25, pa.float32()),
        "level": pa.array([float(x) for x in g.integers(0, 5, 2000)]),
        "half": pa.array([x / 2 for x in g.integers(0, 5, 2000)]),
    }
    text, path = infer(pa.table(columns), tmp_path)
    assert {f.name: f.kind for f in load_schema(path).features} == {
        "item_id": "id",
        "level": "category",
        "half": "number",
    }
    assert "#   lost_id: ids in float have collided" in text


def test_a_group_without_a_user_falls_back_and_a_row_key_is_no_group(tmp_path):
    rows = 2000
    columns = {
        "is_click": [i % 2 for i in range(rows)],
        "user_id": range(rows),
        "session_id": [i // 4 for i in range(rows)],
    }
    text, path = infer(pa.table(columns | {"x": [i % 90 for i in range(rows)]}), tmp_path)
    schema = load_schema(path)
    assert schema.group == "session_id"
    assert [f.name for f in schema.features] == ["x"]
    assert '# time = "…": no clock was found' in text


def test_data_without_rows_or_columns_to_read_is_refused():
    with pytest.raises(DataError, match="at least one row"):
        infer_schema(table_source("empty", pa.table({"x": pa.array([], pa.int64())}), "0"))


def test_counts_and_durations_by_name_and_values(tmp_path):
    g = np.random.default_rng(0)
    table = pa.table(
        {
            "video_id": g.integers(0, 50, ROWS),
            "is_click": g.integers(0, 2, ROWS),
            "comments": g.poisson(0.4, ROWS),
            "comment_cnt": g.poisson(9.0, ROWS),  # of the video: a statistic of what was done before
            "dwell": g.exponential(9.0, ROWS),
            "watch_ratio": g.random(ROWS),
            "rating": g.integers(1, 6, ROWS),
            "stay_time_ms": g.integers(-1, 90, ROWS),  # -1 for unknown: no duration
        }
    )
    text, path = infer(table, tmp_path)
    for name, kind in [("comments", "count"), ("dwell", "duration"), ("rating", "regression")]:
        assert f'# name = "{name}"\n# kind = "{kind}"' in text
    assert '# name = "watch_ratio"\n# kind = "regression"' in text
    assert '# name = "stay_time_ms"\n# kind = "regression"' in text
    assert "comment_cnt" in [feature.name for feature in load_schema(path).features]
