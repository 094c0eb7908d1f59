"""Files that are either whole or not there: atomic writes, checksums, JSON."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from polyrank.errors import RunError, StorageError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success flush it and rename it over `path`, on any failure remove it.

    The temporary may be written as a file or made as a directory. A reader sees the old contents or the new, never a
    part. A file never replaces a directory, nor a directory a file.

    Raises:
        StorageError: the disk is full, or the place cannot be written.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # a killed process with the same id (usual in containers) may have left one
        yield temporary
        for part in [*temporary.rglob("*"), temporary]:
            _flush(part)
        if path.is_dir() and temporary.is_dir():
            _swap(temporary, path)
        else:
            os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        _remove(temporary)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The message for a file that could not be written."""
    return StorageError(
        f"cannot write {path}",
        received=f"{error.strerror or error}",
        mend="free some space, or name a place that can be written with --out; nothing earlier was changed",
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused, because it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that Polyrank wrote.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{path.name} must be there",
            received=f"{path}: {error.strerror}",
            mend="name a directory that polyrank wrote",
        ) from error
    except ValueError as error:
        raise RunError(
            f"{path.name} must be whole", received=f"{path}: {error}", mend="restore it, or run the command again"
        ) from error


def sha256_text(text: str) -> str:
    """Digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sweep(directory: Path) -> None:
    """Remove what a killed process left half-written below `directory`; no other may be writing there."""
    for path in directory.rglob(".*.partial"):
        _remove(path)


def _swap(temporary: Path, path: Path) -> None:
    """Put one directory in the place of another; the old one comes back if the new one cannot be moved in."""
    # rename(2) refuses to replace a directory that holds files: move the old one aside first.
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        os.replace(path, old / path.name)
        try:
            os.replace(temporary, path)
        except OSError:
            os.replace(old / path.name, path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove what may be a file, a directory or nothing; cleaning up never hides the error that led to it."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
