import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from polyrank.data import store
from polyrank.data.encoders import Encoded, Encoders
from polyrank.data.readers import Source, open_source, table_source
from polyrank.data.schema import Feature, Schema, Task, save_schema
from polyrank.data.store import EncodedData, encode_to
from polyrank.errors import DataError, RunError, StorageError

Fitted = Callable[..., tuple[Encoders, Source]]
PARTS = ("ids", "dense", "labels", "weights", "groups")


class _Chunked(Source):
    """A source whose batches are small, so that files grow many times."""

    def batches(self, columns: Any, rows: int = 13, *, coded: bool = False) -> Iterator[pa.RecordBatch]:
        return super().batches(columns, min(rows, 13), coded=coded)


def _chunked(source: Source) -> Source:
    return _Chunked(source.name, source.dataset, source.fingerprint)


def _bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_matrix_on_disk_is_the_encoding_at_once(fitted: Fitted, tmp_path: Path) -> None:
    encoders, source = fitted(100)
    whole = encoders.encode(next(source.batches(encoders.schema.columns(labels=True))))

    data = encode_to(tmp_path / "encoded", encoders, _chunked(source))

    assert data.rows == 100
    for part in PARTS:
        array = np.load(tmp_path / "encoded" / f"{part}.npy")  # numpy reads the headers after growth
        expected = getattr(whole, part)
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(getattr(data, part), expected)
        assert not getattr(data, part).flags.writeable
    manifest = json.loads((tmp_path / "encoded" / "manifest.json").read_text())
    assert (manifest["format"], manifest["rows"], manifest["source"]) == (1, 100, "the table")
    data.release()
    np.testing.assert_array_equal(data.ids, whole.ids)


def test_parts_without_columns(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "y": [0, 1, 0]})
    source = table_source("t", table, "")
    encoders = Encoders.fit(Schema((Feature("a", "id"),), (Task("y", "binary"),)), source)

    data = encode_to(tmp_path / "encoded", encoders, source)

    assert [getattr(data, part).shape for part in PARTS] == [(3, 1), (3, 0), (3, 1), (3, 0), (0,)]
    assert EncodedData.open(tmp_path / "encoded").rows == 3


def test_reused_if_of_the_same_source_and_encoders(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders, source = fitted()
    encode_to(tmp_path / "encoded", encoders, source)
    before = _bytes(tmp_path / "encoded")
    monkeypatch.setattr(Encoders, "encode", lambda *_: pytest.fail("encoded anew"))

    encode_to(tmp_path / "encoded", encoders, source)

    assert _bytes(tmp_path / "encoded") == before


def test_made_anew_if_the_source_the_encoders_or_the_schema_changed(fitted: Fitted, tmp_path: Path) -> None:
    encoders, source = fitted()
    other, _ = fitted(seed=1)
    schema = replace(encoders.schema, group="")
    keys = set()

    for e, s in (
        (encoders, source),
        (encoders, replace(source, fingerprint="x")),
        (other, source),
        (Encoders(schema, encoders.encoders, encoders.statistics), source),
    ):
        encode_to(tmp_path / "encoded", e, s)
        keys.add(json.loads((tmp_path / "encoded" / "manifest.json").read_text())["key"])

    assert len(keys) == 4
    with pytest.raises(RunError, match="of this schema and source"):
        EncodedData.open(tmp_path / "encoded", key="another")
    assert len(EncodedData.open(tmp_path / "encoded").groups) == 0


def test_files_are_read_through_once_a_command(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders, source = fitted(20)
    read, hashed = store.file_sha256, []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return read(path)

    monkeypatch.setattr(store, "file_sha256", counted)
    encode_to(tmp_path / "encoded", encoders, source)
    assert sorted(hashed) == sorted(f"{part}.npy" for part in PARTS)
    encode_to(tmp_path / "encoded", encoders, source)
    assert len(hashed) == 10
    data = EncodedData.open(tmp_path / "encoded", verify=False)
    assert len(hashed) == 10
    whole = EncodedData.open(tmp_path / "encoded")
    assert len(hashed) == 15
    for part in PARTS:
        np.testing.assert_array_equal(getattr(data, part), getattr(whole, part))


def test_reused_by_encoders_that_were_saved_and_loaded(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders, source = fitted()
    encode_to(tmp_path / "encoded", encoders, source)
    encoders.save(tmp_path)
    monkeypatch.setattr(Encoders, "encode", lambda *_: pytest.fail("encoded anew"))

    reused = encode_to(tmp_path / "encoded", Encoders.load(tmp_path, encoders.schema), source)
    assert reused.rows == source.count_rows()


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x01
    path.write_bytes(content)


def _flip_last(path: Path) -> None:
    _flip(path, -1)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(4))


@pytest.mark.parametrize("damage", [_flip_last, _truncate, _empty, _append, Path.unlink])
@pytest.mark.parametrize("name", ["ids.npy", "dense.npy", "labels.npy"])
def test_damage_is_found_and_mended(fitted: Fitted, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    encoders, source = fitted(20)
    expected = encode_to(tmp_path / "encoded", encoders, source).ids.copy()
    damage(tmp_path / "encoded" / name)

    with pytest.raises(RunError, match=f"{name} is damaged"):
        EncodedData.open(tmp_path / "encoded")
    np.testing.assert_array_equal(encode_to(tmp_path / "encoded", encoders, source).ids, expected)


@pytest.mark.parametrize("damage", [_truncate, _empty, _append, Path.unlink])
def test_a_wrong_size_is_found_without_reading(fitted: Fitted, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    encoders, source = fitted(20)
    encode_to(tmp_path / "encoded", encoders, source)
    damage(tmp_path / "encoded" / "labels.npy")

    with pytest.raises(RunError, match=r"labels\.npy is damaged"):
        EncodedData.open(tmp_path / "encoded", verify=False)


@pytest.mark.parametrize("verify", [False, True])
def test_any_byte_of_a_header_is_guarded(fitted: Fitted, tmp_path: Path, verify: bool) -> None:
    """'<i4' and '<f4' differ in one byte of the header; the rows are the same bytes."""
    encoders, source = fitted(20)
    encode_to(tmp_path / "encoded", encoders, source)
    path = tmp_path / "encoded" / "ids.npy"

    for place in range(128):
        _flip(path, place)
        with pytest.raises(RunError, match="damaged"):
            EncodedData.open(tmp_path / "encoded", verify=verify)
        _flip(path, place)
    EncodedData.open(tmp_path / "encoded")


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{}",
        "3",
        '{"format": 1}',
        '{"format": 2, "key": "", "files": {}}',
        '{"format": 1, "key": "", "files": {}}',
        '{"format": 1, "key": "", "files": []}',
        '{"format": 1, "key": "", "files": {"ids": {"shape": ["x"], "sha256": ""}}}',
        '{"format": 1, "key": "", "files": {"ids": {"shape": 3, "sha256": ""}}}',
    ],
)
def test_damaged_manifest(fitted: Fitted, tmp_path: Path, manifest: str) -> None:
    encoders, source = fitted(20)
    encode_to(tmp_path / "encoded", encoders, source)
    (tmp_path / "encoded" / "manifest.json").write_text(manifest)

    with pytest.raises(RunError):
        EncodedData.open(tmp_path / "encoded")
    assert encode_to(tmp_path / "encoded", encoders, source).rows == 20


def test_failure_halfway_leaves_what_was_there(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders, source = fitted(100)
    encode_to(tmp_path / "encoded", encoders, source)
    before = _bytes(tmp_path / "encoded")
    encode, calls = Encoders.encode, []

    def fail_later(self: Encoders, batch: pa.RecordBatch, *, labels: bool = True) -> Encoded:
        calls.append(batch)
        if len(calls) == 3:
            raise DataError("a value breaks a rule")
        return encode(self, batch, labels=labels)

    monkeypatch.setattr(Encoders, "encode", fail_later)
    with pytest.raises(DataError, match="a value breaks a rule"):
        encode_to(tmp_path / "encoded", encoders, replace(_chunked(source), fingerprint="new"))

    assert _bytes(tmp_path / "encoded") == before
    assert [path.name for path in tmp_path.iterdir()] == ["encoded"]


def test_full_disk_leaves_what_was_there(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders, source = fitted(100)
    encode_to(tmp_path / "encoded", encoders, source)
    before = _bytes(tmp_path / "encoded")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store._Growing, "finish", full)
    with pytest.raises(StorageError, match="No space left on device"):
        encode_to(tmp_path / "encoded", encoders, replace(source, fingerprint="new"))

    assert _bytes(tmp_path / "encoded") == before
    assert [path.name for path in tmp_path.iterdir()] == ["encoded"]


_LIMITED = """
import resource, sys
from pathlib import Path
from polyrank.data.encoders import Encoders
from polyrank.data.readers import open_source
from polyrank.data.schema import load_schema
from polyrank.data.store import encode_to
from polyrank.errors import StorageError
place = Path(sys.argv[1])
source = open_source(place / "log.parquet")
encoders = Encoders.load(place, load_schema(place / "schema.toml"))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    encode_to(place / "encoded", encoders, source)
except StorageError as error:
    print(error)
"""


def test_a_real_limit_on_file_size(
    fitted: Fitted, feedback_table: Callable[..., pa.Table], write_table: Callable[..., Path], tmp_path: Path
) -> None:
    encoders, _ = fitted(500)
    encoders.save(tmp_path)
    save_schema(encoders.schema, tmp_path / "schema.toml")
    source = open_source(write_table(feedback_table(500), tmp_path / "log.parquet"))
    encode_to(tmp_path / "encoded", encoders, replace(source, fingerprint="old"))
    before, names = _bytes(tmp_path / "encoded"), sorted(p.name for p in tmp_path.iterdir())

    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )

    assert "File too large" in run.stdout
    assert _bytes(tmp_path / "encoded") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_no_rows_and_missing_columns(fitted: Fitted, feedback_table: Callable[..., pa.Table], tmp_path: Path) -> None:
    encoders, _ = fitted()
    table = feedback_table()

    with pytest.raises(DataError, match=r"at least one row[\s\S]*valid: 0 rows"):
        encode_to(tmp_path / "encoded", encoders, table_source("valid", table.slice(0, 0), ""))
    renamed = table.rename_columns(["videoid" if name == "video_id" else name for name in table.column_names])
    with pytest.raises(DataError, match=r"valid must have the column 'video_id'[\s\S]*did you mean 'videoid'"):
        encode_to(tmp_path / "encoded", encoders, table_source("valid", renamed, ""))
    assert list(tmp_path.iterdir()) == []


def test_files_and_memory_encode_alike(fitted: Fitted, feedback_source: Callable[..., Source], tmp_path: Path) -> None:
    encoders, source = fitted()
    expected = encode_to(tmp_path / "memory", encoders, source)

    for name in ("log.parquet", "log.feather"):
        data = encode_to(tmp_path / f"{name}.encoded", encoders, feedback_source(name=name))
        for part in PARTS:
            np.testing.assert_array_equal(getattr(data, part), getattr(expected, part))
