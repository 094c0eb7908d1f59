import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from polyrank import files
from polyrank.errors import RunError, StorageError
from polyrank.files import (
    file_sha256,
    locked,
    read_json,
    scratch,
    storage_error,
    sweep,
    write_json,
    write_text,
    writing,
)


def _fail(_: object, error: BaseException) -> None:
    """Raise, after what is called in the first argument."""
    raise error


def test_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")

    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        _fail(temporary.write_text("ne"), ZeroDivisionError())
    assert path.read_text() == "old"
    with writing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def _fill(directory: Path, text: str) -> Path:
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / f"{text}.txt").write_text(text)
    return directory


def _content(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


def test_filled_directory_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run"
    _fill(path, "old")

    with pytest.raises(KeyboardInterrupt), writing(path) as temporary:
        _fail(_fill(temporary, "part"), KeyboardInterrupt())
    assert _content(tmp_path) == {"run/sub/old.txt": "old"}
    with writing(path) as temporary:
        _fill(temporary, "new")
    assert _content(tmp_path) == {"run/sub/new.txt": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_old_directory_comes_back_if_the_new_one_cannot_be_moved_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    _fill(path, "old")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".partial"):
            raise OSError(errno.EIO, "I/O error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="I/O error"), writing(path) as temporary:
        _fill(temporary, "new")

    assert _content(tmp_path) == {"run/sub/old.txt": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_file_never_replaces_a_directory(tmp_path: Path) -> None:
    _fill(tmp_path / "runs", "precious")

    with pytest.raises(StorageError, match="Is a directory"):
        write_json(tmp_path / "runs", {})

    assert _content(tmp_path) == {"runs/sub/precious.txt": "precious"}


def test_directory_never_replaces_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "notes", "precious")

    with pytest.raises(StorageError, match="Not a directory"), writing(tmp_path / "notes") as temporary:
        _fill(temporary, "new")

    assert _content(tmp_path) == {"notes": "precious"}
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]


def test_place_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")

    with pytest.raises(StorageError, match="cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def test_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space left"), writing(tmp_path / "a") as temporary:
        _fail(temporary.write_text("half"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("directory", [False, True])
def test_what_a_killed_process_of_the_same_id_left_is_cleared(tmp_path: Path, directory: bool) -> None:
    left = tmp_path / f".a.{os.getpid()}.partial"
    if directory:
        _fill(left, "left")
    else:
        left.write_text("left")

    with writing(tmp_path / "a") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("new")

    assert _content(tmp_path) == {"a/x": "new"}


def test_everything_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(files, "_flush", lambda path: flushed.append(path.name))

    with writing(tmp_path / "run") as temporary:
        _fill(temporary, "new")
        name = temporary.name

    assert sorted(flushed[:3]) == sorted(["sub", "new.txt", name])
    assert flushed[3:] == [tmp_path.name]


def test_json_round_trip_and_no_nan(tmp_path: Path) -> None:
    value = {"ids": [2**63 - 1, -1], "text": "Δ\n", "number": 0.1, "none": None}
    write_json(tmp_path / "a.json", value)

    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"auc": float("nan")})
    assert read_json(tmp_path / "a.json") == value


def test_unreadable_json_is_a_run_error(tmp_path: Path) -> None:
    write_text(tmp_path / "broken.json", json.dumps({"a": 1})[:-1])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "directory.json").mkdir()

    for name in ("none.json", "broken.json", "binary.json", "directory.json", "broken.json/inner.json"):
        with pytest.raises(RunError, match=Path(name).name):
            read_json(tmp_path / name)


def test_file_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)

    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_failing_to_clear_the_old_directory_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path / "run", "old")
    removed: list[bool] = []
    rmtree = shutil.rmtree

    def careful(path: Path, ignore_errors: bool = False) -> None:
        removed.append(ignore_errors)
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", careful)
    with writing(tmp_path / "run") as temporary:
        _fill(temporary, "new")

    assert removed
    assert all(removed)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "get permission"),
        (errno.EROFS, "get permission"),
        (errno.ENOENT, "the directory cannot be made"),
        (errno.ENOTDIR, "the directory cannot be made"),
        (errno.EIO, "is there space"),
    ],
)
def test_a_storage_error_is_mended_by_its_cause(number: int, words: str) -> None:
    error = storage_error(Path("run/a"), OSError(number, os.strerror(number)))

    assert words in error.mend
    assert error.received == os.strerror(number)
    assert ("space" in error.mend) == (number in (errno.ENOSPC, errno.EIO))


def test_a_storage_error_without_a_number_says_what_the_library_said() -> None:
    error = storage_error(Path("run/a"), OSError("I/O error: no space"))

    assert error.received == "I/O error: no space"
    assert error.mend


def _in_another_process(directory: Path) -> subprocess.CompletedProcess[str]:
    script = f"from pathlib import Path; from polyrank.files import locked\nwith locked(Path({str(directory)!r})): pass"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_one_process_a_directory(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"

    with locked(run):
        write_text(run / "a", "mine")
        with pytest.raises(RunError, match=rf"another process is working in {run}"), locked(run):
            pass
        assert "another process is working in" in _in_another_process(run).stderr
        with locked(tmp_path / "other"):
            pass

    assert _in_another_process(run).returncode == 0
    with locked(run):
        assert (run / "a").read_text() == "mine"


def test_a_failure_unlocks(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _fail(write_text(tmp_path / "a", ""), ZeroDivisionError())
    with locked(tmp_path):
        pass


def test_a_directory_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    for name in ("new", "there"):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / name):
            _fail(None, ZeroDivisionError())

    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(error: int) -> None:
        def fail(*_: object) -> None:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(files.fcntl, "flock", fail)

    flock(errno.ENOSYS)
    with locked(tmp_path):
        pass
    flock(errno.EIO)
    with pytest.raises(StorageError, match="cannot write"), locked(tmp_path):
        pass


def test_no_directory_below_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")

    for place in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(StorageError, match="the directory cannot be made"), locked(place):
            pass


def test_scratch_is_inside_and_goes(tmp_path: Path) -> None:
    with scratch(tmp_path) as folder:
        _fill(folder, "whole")
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), scratch(tmp_path) as folder:
        _fail(_fill(folder, "half"), ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match=r"cannot write .*nowhere"), scratch(tmp_path / "nowhere"):
        pass


def test_sweep_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    left = (
        "encoded/.train.123.partial/ids.npy",
        ".train.old.ab12/train/ids.npy",
        "checkpoints/.tmpAbC123",
        ".a.9.partial",
    )
    kept = ("checkpoints/last.safetensors", "encoded/train/ids.npy", ".lock", ".tmpnotours")
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    sweep(tmp_path)

    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
