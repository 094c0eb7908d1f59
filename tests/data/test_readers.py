import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

from polyrank.data.readers import Source, open_source, table_source
from polyrank.errors import DataError

Write = Callable[[pa.Table, Path], Path]


def _values(source: Source, column: str = "a", rows: int = 131_072) -> list[object]:
    return [value for batch in source.batches([column], rows) for value in batch.column(column).to_pylist()]


def _numbers(first: int, end: int) -> pa.Table:
    return pa.table({"a": list(range(first, end)), "b": ["x"] * (end - first)})


@pytest.mark.parametrize("suffix", ["parquet", "pq", "csv", "feather", "arrow", "ipc", "PARQUET"])
def test_formats_read_alike(tmp_path: Path, write_table: Write, suffix: str) -> None:
    written = "parquet" if suffix in ("pq", "PARQUET") else suffix
    path = write_table(_numbers(0, 50), tmp_path / f"log.{written}")

    source = open_source(path.rename(tmp_path / f"log.{suffix}"))

    assert source.count_rows() == 50
    assert _values(source) == list(range(50))
    assert source.schema.names == ["a", "b"]


def test_batches_are_bounded_and_hold_the_columns_asked_for(tmp_path: Path, write_table: Write) -> None:
    source = open_source(write_table(_numbers(0, 100), tmp_path / "a.parquet"))

    batches = list(source.batches(["b", "a"], 7))

    assert max(batch.num_rows for batch in batches) == 7
    assert batches[0].schema.names == ["b", "a"]
    assert _values(source, rows=7) == list(range(100))


def test_directory_glob_and_nested_files_in_the_order_of_names(tmp_path: Path, write_table: Write) -> None:
    for name, first in (("day=2/part-0", 20), ("day=1/part-1", 10), ("day=1/part-0", 0)):
        write_table(_numbers(first, first + 10), tmp_path / "log" / f"{name}.parquet")

    assert _values(open_source(tmp_path / "log")) == list(range(30))
    assert _values(open_source(f"{tmp_path}/log/day=*/*.parquet")) == list(range(30))
    assert _values(open_source(f"{tmp_path}/**/part-0.parquet")) == [*range(10), *range(20, 30)]


def test_what_is_no_data_in_a_directory_is_passed_over(tmp_path: Path, write_table: Write) -> None:
    """As Spark leaves it: directories named like files, markers, hidden copies, work in progress."""
    write_table(_numbers(0, 5), tmp_path / "log" / "day.parquet" / "part.parquet")
    write_table(_numbers(5, 9), tmp_path / "log" / ".ipynb_checkpoints" / "part.parquet")
    write_table(_numbers(5, 9), tmp_path / "log" / "_temporary" / "0" / "part.parquet")
    write_table(_numbers(5, 9), tmp_path / "log" / ".hidden.parquet")
    (tmp_path / "log" / "_SUCCESS").touch()
    (tmp_path / "log" / "README.md").write_text("notes")

    assert _values(open_source(tmp_path / "log")) == list(range(5))


def test_uri_has_a_fingerprint_of_its_contents(tmp_path: Path, write_table: Write) -> None:
    path = write_table(_numbers(0, 5), tmp_path / "a.parquet")
    before = open_source(path.as_uri())
    assert _values(before) == list(range(5))
    assert before.fingerprint == open_source(path).fingerprint

    write_table(_numbers(0, 6), path)

    assert open_source(path.as_uri()).fingerprint != before.fingerprint


def test_fingerprint_changes_with_the_files(tmp_path: Path, write_table: Write) -> None:
    path = write_table(_numbers(0, 5), tmp_path / "log" / "a.parquet")
    first = open_source(tmp_path / "log").fingerprint
    assert open_source(tmp_path / "log").fingerprint == first

    os.utime(path, ns=(0, 10**9))
    touched = open_source(tmp_path / "log").fingerprint
    write_table(_numbers(5, 9), tmp_path / "log" / "b.parquet")
    grown = open_source(tmp_path / "log").fingerprint

    assert len({first, touched, grown}) == 3


def test_an_empty_cell_of_a_csv_is_null_whatever_the_type(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,x\n,\n3,NA\n")

    source = open_source(tmp_path / "a.csv")

    assert _values(source) == [1, None, 3]
    assert _values(source, "b") == ["x", None, None]


def test_csv_ids_stay_exact(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a\n{2**53 + 1}\n{2**63 - 1}\n")

    assert _values(open_source(tmp_path / "a.csv")) == [2**53 + 1, 2**63 - 1]


def test_csv_that_changes_its_type_midway(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n" + "1234567\n" * 300_000 + "text\n")

    with pytest.raises(DataError, match=r"of one type throughout[\s\S]*a\.csv"):
        _values(open_source(tmp_path / "a.csv"))  # the type is taken from the first block


def test_truncated_parquet(tmp_path: Path, write_table: Write) -> None:
    path = write_table(_numbers(0, 1000), tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match="must be whole"):
        open_source(path)


def test_parquet_damaged_in_a_page(tmp_path: Path, write_table: Write) -> None:
    path = write_table(_numbers(0, 1000), tmp_path / "a.parquet")
    damaged = bytearray(path.read_bytes())
    damaged[4:200] = bytes(196)
    path.write_bytes(damaged)

    with pytest.raises(DataError, match="must be whole"):
        _values(open_source(path))


def test_nothing_to_read(tmp_path: Path, write_table: Write) -> None:
    (tmp_path / "zero.csv").touch()
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "blank.csv").write_text("\n")
    (tmp_path / "empty").mkdir()
    write_table(_numbers(0, 0), tmp_path / "none.parquet")
    write_table(_numbers(0, 3), tmp_path / "some" / "a.parquet")
    (tmp_path / "some" / "b.parquet").touch()

    for name, message in (
        ("zero.csv", "0 bytes"),
        ("header.csv", "0 rows"),
        ("blank.csv", "must be whole"),
        ("none.parquet", "0 rows"),
        ("empty", "directory of data must hold"),
        ("absent.parquet", "glob that matches files"),
        ("*.feather", "glob that matches files"),
        ("some", r"b\.parquet is empty \(0 bytes\)"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / name)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_two_columns_of_one_name_are_named(tmp_path: Path, suffix: str) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "is_y", "is_y"])
    path = tmp_path / f"log.{suffix}"
    if suffix == "csv":
        path.write_text("a,is_y,is_y\n1,2,3\n")
    elif suffix == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    with pytest.raises(DataError, match=rf"a name of its own[\s\S]*log\.{suffix}: the name 'is_y' occurs 2 times"):
        open_source(path)


def test_unknown_and_mixed_formats(tmp_path: Path, write_table: Write) -> None:
    write_table(_numbers(0, 3), tmp_path / "log" / "a.parquet")
    write_table(_numbers(0, 3), tmp_path / "log" / "b.csv")
    (tmp_path / "log.xlsx").write_text("x")
    (tmp_path / "log_without").write_text("x")

    with pytest.raises(DataError, match=r"one format[\s\S]*csv, parquet"):
        open_source(tmp_path / "log")
    with pytest.raises(DataError, match=r"one format[\s\S]*\.xlsx"):
        open_source(tmp_path / "log.xlsx")
    with pytest.raises(DataError, match="no suffix"):
        open_source(tmp_path / "log_without")


def test_unknown_uri() -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_source("nowhere://bucket/log.parquet")


def _coded(source: Source, column: str = "t", rows: int = 131_072) -> list[object]:
    plain = [value for batch in source.batches([column], rows) for value in batch.column(column).to_pylist()]
    read = [batch.column(column) for batch in source.batches([column], rows, coded=True)]
    assert [value for array in read for value in array.to_pylist()] == plain
    assert len(read) == -(-len(plain) // rows) or rows == 131_072
    return [pa.types.is_dictionary(array.type) for array in read]


def test_texts_stored_as_dictionaries_are_read_as_such(tmp_path: Path) -> None:
    few = pa.array([None if i % 7 == 0 else f"value {i % 5}" for i in range(1000)])
    many = pa.array([f"value {i}" for i in range(1000)])
    table = pa.table({"t": few, "many": many, "large": few.cast(pa.large_string()), "n": range(1000)})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    source = open_source(tmp_path / "a.parquet")

    assert set(_coded(source)) == {True}
    assert set(_coded(source, rows=50)) == {True}
    assert set(_coded(source, "large")) == {True}
    assert set(_coded(source, "many")) == {False}
    assert set(_coded(source, "n")) == {False}
    assert source.schema.field("t").type == pa.string()
    pa.parquet.write_table(table, tmp_path / "b.parquet", use_dictionary=False)
    assert set(_coded(open_source(tmp_path / "b.parquet"))) == {False}


def test_files_that_differ_in_a_text_column_are_read_as_before(tmp_path: Path, write_table: Write) -> None:
    few = ["x", "y"] * 100
    columns = {
        "large": pa.array(few, pa.large_string()),
        "coded": pa.array(few).dictionary_encode(),
        "integer": pa.array([1, 2] * 100),
        "absent": None,
    }
    for name, column in columns.items():
        write_table(pa.table({"t": few, "u": few}), tmp_path / name / "a.parquet")
        table = pa.table({"u": few} | ({} if column is None else {"t": column}))
        write_table(table, tmp_path / name / "b.parquet")
        source = open_source(tmp_path / name)
        assert _coded(source) == ([True, True] if name == "large" else [False, False])
        assert _coded(source, "u") == [True, True]


@pytest.mark.parametrize("suffix", ["csv", "feather"])
def test_other_formats_know_no_coded_reading(tmp_path: Path, write_table: Write, suffix: str) -> None:
    source = open_source(write_table(pa.table({"t": ["x", "y"] * 100}), tmp_path / f"a.{suffix}"))

    assert set(_coded(source)) == {False}
    assert set(_coded(table_source("t", pa.table({"t": ["x"] * 9}), ""))) == {False}


def test_coded_reading_of_a_share(tmp_path: Path, write_table: Write) -> None:
    source = open_source(write_table(pa.table({"t": ["x", "y"] * 500}), tmp_path / "a.parquet"))

    assert set(_coded(replace(source, share=(0.2, 0.5)))) == {True}


def test_coded_reading_keeps_to_a_filter(tmp_path: Path, write_table: Write) -> None:
    table = pa.table({"t": ["x", "y"] * 500, "n": range(1000)})
    source = open_source(write_table(table, tmp_path / "a.parquet"))
    late = replace(source, dataset=source.dataset.filter(pa.compute.field("n") >= 900))

    assert set(_coded(late)) == {False}
    assert sum(batch.num_rows for batch in late.batches(["t"], coded=True)) == 100
