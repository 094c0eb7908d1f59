import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrank.data.infer import infer_schema
from polyrank.data.readers import BATCH_ROWS, Source, open_source, table_source
from polyrank.data.schema import load_schema
from polyrank.data.splits import split
from polyrank.errors import DataError

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def _source(**columns: object) -> Source:
    table = pa.table(columns)
    return table_source("log", table.append_column("row", pa.array(np.arange(len(table)))), "print")


def _rows(source: Source) -> list[int]:
    """The original positions of a source's rows."""
    return [row for batch in source.batches(["row"]) for row in batch["row"].to_pylist()]


def test_by_time_the_last_rows_are_set_aside() -> None:
    source = _source(time=np.array([9, 0, 8, 1, 7, 2, 6, 3, 5, 4]) * 100)

    parts = split(source, SHARES, "time")

    assert {name: _rows(part) for name, part in parts.items()} == {
        "train": [1, 3, 4, 5, 6, 7, 8, 9],  # file order, times 0 … 700
        "valid": [2],
        "test": [0],
    }
    assert {name: part.count_rows() for name, part in parts.items()} == {"train": 8, "valid": 1, "test": 1}


@pytest.mark.parametrize("rows", [10, 100, 1_000])
@pytest.mark.parametrize("valid", [0.1, 0.2, 0.3])
def test_sizes_by_time_are_exact_where_no_times_are_equal(rows: int, valid: float) -> None:
    source = _source(time=np.random.default_rng(1).permutation(rows))

    parts = split(source, {"train": 1.0 - (valid + 0.1), "valid": valid, "test": 0.1}, "time")

    sizes = [parts[name].count_rows() for name in ("train", "valid", "test")]
    assert sizes == [round(rows * (0.9 - valid)), round(rows * valid), rows // 10]


_DAY = datetime.date(2026, 1, 1)
_CLOCKS = {
    "int8": pa.array(range(10), pa.int8()),
    "uint32": pa.array(range(10), pa.uint32()),
    "float, all below 1": pa.array([i / 10 for i in range(10)]),
    "float32": pa.array(np.arange(10) / 7, pa.float32()),
    "timestamp": pa.array([datetime.datetime(2026, 1, 1, i, 30) for i in range(10)], pa.timestamp("us")),
    "timestamp with a zone": pa.array([1_700_000_000_000 + i for i in range(10)], pa.timestamp("ms", "Asia/Tokyo")),
    "timestamp in seconds": pa.array(range(-5, 5), pa.timestamp("s")),
    "date32": pa.array([_DAY + datetime.timedelta(days=i) for i in range(10)], pa.date32()),
    "date64": pa.array([_DAY + datetime.timedelta(days=i) for i in range(10)], pa.date64()),
}


@pytest.mark.parametrize("clock", _CLOCKS.values(), ids=_CLOCKS.keys())
def test_any_clock(clock: pa.Array) -> None:
    parts = split(_source(at=clock), SHARES, "at")

    assert [_rows(part) for part in parts.values()] == [list(range(8)), [8], [9]]


def test_by_nanoseconds_beyond_what_a_float_can_hold() -> None:
    source = _source(time=1_700_000_000_000_000_000 + np.arange(100) * 1_000)  # a float64 there is up to 128 off

    parts = split(source, SHARES, "time")

    np.testing.assert_allclose([part.count_rows() for part in parts.values()], [80, 10, 10], atol=1)
    assert [row for part in parts.values() for row in _rows(part)] == list(range(100))


def test_rows_of_one_time_stay_together() -> None:
    day = np.repeat([1, 2, 3], [30, 30, 40])

    parts = split(_source(day=day), {"train": 0.9, "valid": 0.1}, "day")

    assert _rows(parts["train"]) == list(range(60))
    assert _rows(parts["valid"]) == list(range(60, 100))  # the whole of the day in which the cut falls


@given(
    times=st.lists(st.integers(-5, 5), min_size=1, max_size=40),
    cuts=st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45)),
)
def test_by_time_parts_are_in_order_disjoint_and_exhaustive(times: list[int], cuts: tuple[float, float]) -> None:
    source = _source(time=pa.array(times, pa.int64()))
    try:
        parts = split(source, {"a": 1.0 - sum(cuts), "b": cuts[0], "c": cuts[1]}, "time")
    except DataError:
        assert len(set(times)) < 20  # ties may leave a part empty, nothing else may
        return

    found = {name: _rows(part) for name, part in parts.items()}
    assert sorted(row for rows in found.values() for row in rows) == list(range(len(times)))
    assert max(times[row] for row in found["a"]) < min(times[row] for row in found["b"])
    assert max(times[row] for row in found["b"]) < min(times[row] for row in found["c"])


def test_random_parts_are_disjoint_and_exhaustive_and_of_the_right_size() -> None:
    rows = BATCH_ROWS + 20_000  # more than one chunk
    source = _source(x=np.zeros(rows, np.int8))

    parts = split(source, SHARES, "")

    found = {name: _rows(part) for name, part in parts.items()}
    assert sorted(row for part in found.values() for row in part) == list(range(rows))
    for name, share in SHARES.items():
        deviation = (rows * share * (1 - share)) ** 0.5
        assert abs(len(found[name]) - rows * share) < 4 * deviation
        assert parts[name].count_rows() == len(found[name])
    assert found["train"] == sorted(found["train"])  # file order
    # Not blocks of the file: every part is spread over all of it.
    assert np.mean(found["valid"]) == pytest.approx(rows / 2, rel=0.05)


@pytest.mark.parametrize("time", ["time", ""])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_split_is_the_same_in_every_run_and_format(
    feedback_table: Callable[..., pa.Table],
    write_table: Callable[[pa.Table, Path], Path],
    tmp_path: Path,
    time: str,
    suffix: str,
) -> None:
    table = feedback_table(300).select(["user_id", "time_ms"])
    table = table.append_column("row", pa.array(range(300)))
    path = write_table(table, tmp_path / f"log{suffix}")
    clock = "time_ms" if time else ""

    first, again = (split(open_source(path), SHARES, clock) for _ in range(2))
    memory = split(table_source("log", table, ""), SHARES, clock)

    for name in SHARES:
        assert _rows(first[name]) == _rows(again[name]) == _rows(memory[name])
        assert first[name].count_rows() == len(_rows(first[name]))
        assert first[name].fingerprint == again[name].fingerprint


@pytest.mark.parametrize("time", ["time", ""])
def test_chunk_size_does_not_matter(time: str) -> None:
    part = split(_source(time=np.arange(1_000) % 37), {"train": 0.7, "valid": 0.3}, time)["valid"]

    small = [row for batch in part.batches(["row"], rows=7) for row in batch["row"].to_pylist()]

    assert small == _rows(part)
    assert len(small) == part.count_rows()


def test_fingerprints_tell_parts_and_shares_and_clocks_apart() -> None:
    source = _source(time=np.arange(100), other=np.arange(100))

    other = {"train": 0.7, "valid": 0.3}
    clocks = ("time", "other", "")
    prints = [part.fingerprint for clock in clocks for part in split(source, SHARES, clock).values()]
    prints += [part.fingerprint for clock in clocks for part in split(source, other, clock).values()]
    prints += [split(table_source("log", pa.table({"time": range(100)}), "new"), SHARES, "time")["train"].fingerprint]

    assert len(set(prints)) == len(prints) == 3 * 3 + 3 * 2 + 1
    assert source.fingerprint not in prints


def test_messages_name_the_part() -> None:
    assert [part.name for part in split(_source(x=np.zeros(99)), SHARES, "").values()] == [
        "log (train part)",
        "log (valid part)",
        "log (test part)",
    ]


@pytest.mark.parametrize(
    ("clock", "rows"),
    [
        (pa.array([None, *range(10), None], pa.int64()), "2 of 12"),
        (pa.array([_DAY, None, _DAY], pa.date32()), "1 of 3"),
        (pa.array([0.5, np.nan, None, np.inf, 1.0]), "3 of 5"),
        (pa.nulls(3, pa.timestamp("ms")), "3 of 3"),
        (pa.array([1, None] * BATCH_ROWS), "131,072 of 262,144"),
    ],
    ids=["integers", "days", "nan and infinity", "nothing", "chunks"],
)
def test_rows_without_a_time_are_refused_not_dropped(clock: pa.Array, rows: str) -> None:
    message = rf"every row needs a clock[\s\S]*'time' of log has none on {rows} rows[\s\S]*remove `time`"

    with pytest.raises(DataError, match=message):
        split(_source(time=clock), SHARES, "time")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".feather"])
@pytest.mark.parametrize("days", ["dates", "yyyymmdd"])
def test_a_clock_of_days_as_infer_proposes_it(
    write_table: Callable[[pa.Table, Path], Path], tmp_path: Path, days: str, suffix: str
) -> None:
    dates = [datetime.date(2025, 12, 1) + datetime.timedelta(days=i % 50) for i in range(300)]
    clock = pa.array(dates, pa.date32()) if days == "dates" else [int(f"{day:%Y%m%d}") for day in dates]
    click = [i % 2 for i in range(300)]
    table = pa.table({"date": clock, "is_click": click, "x": np.arange(300) % 7, "row": range(300)})
    source = open_source(write_table(table, tmp_path / f"log{suffix}"))
    (tmp_path / "schema.toml").write_text(infer_schema(source))
    schema = load_schema(tmp_path / "schema.toml")
    schema.check(source.schema, "log")

    parts = split(source, SHARES, schema.time)

    assert schema.time == "date"
    found = [sorted({dates[row] for row in _rows(part)}) for part in parts.values()]
    assert found == [dates[:40], dates[40:45], dates[45:50]]
    assert sum(part.count_rows() for part in parts.values()) == 300


@pytest.mark.parametrize("time", ["time", ""])
def test_an_empty_part_is_refused(time: str) -> None:
    source = _source(time=np.zeros(3, np.int64))

    with pytest.raises(DataError, match=r"every part of a split must hold rows; the \w+ part has none"):
        split(source, SHARES, time)


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("tiem", r"the clock must be a column[\s\S]*no column 'tiem'[\s\S]*did you mean 'time'"),
        ("text", r"must be a number, a date or a timestamp[\s\S]*'text' of type string"),
        ("flag", r"must be a number, a date or a timestamp[\s\S]*'flag' of type bool"),
    ],
)
def test_what_is_no_clock(time: str, message: str) -> None:
    source = _source(
        time=np.arange(3),
        text=["1", "2", "3"],
        flag=[True, False, True],
    )

    with pytest.raises(DataError, match=message):
        split(source, SHARES, time)
