"""Files that are either whole or not there: atomic writes, one process a directory, checksums, JSON."""

import errno
import fcntl
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

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_ELSEWHERE = "name another place with --out; nothing earlier was changed"
_MENDS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"free some space, or {_ELSEWHERE}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), f"get permission to write there, or {_ELSEWHERE}"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST), "the directory cannot be made: correct the path"),
}


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
    mend = _MENDS.get(error.errno or 0, f"is there space, and permission to write? Otherwise {_ELSEWHERE}")
    return StorageError(f"cannot write {path}", received=f"{error.strerror or error}", mend=mend)


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


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep every other process out of `directory`, which is made if need be, for as long as the block lasts.

    The lock is the operating system's, on the file `.lock`, which stays: a killed process leaves no lock behind. A file
    system that knows no locks is used without. A directory that was made for nothing is removed again.

    Raises:
        RunError: another process is working there.
        StorageError: the directory cannot be made or written.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stream = (directory / ".lock").open("a")
    except OSError as error:
        raise storage_error(directory, error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                "one process at a time may write into a directory",
                received=f"another process is working in {directory}",
                mend="wait until it has ended, or name another --out",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise storage_error(directory, error) from error
        try:
            yield
        finally:
            with suppress(OSError):
                if made and [path.name for path in directory.iterdir()] == [".lock"]:
                    _remove(directory)


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Yield a new directory inside `directory`, removed after the block.

    For what is large: the system's own temporary directory is often small, or in memory.

    Raises:
        StorageError: `directory` cannot be written.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix=".scratch.", dir=directory))
    except OSError as error:
        raise storage_error(directory, error) from error
    try:
        yield path
    finally:
        _remove(path)


def sweep(directory: Path) -> None:
    """Remove what a killed process left half-written below `directory`, which must be `locked`."""
    # Ours; what `_swap` moved aside; and what the safetensors library writes to before it renames.
    for pattern in (".*.partial", ".*.old.*", "checkpoints/.tmp*"):
        for path in list(directory.rglob(pattern)):
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
