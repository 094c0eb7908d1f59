"""Files that are either whole or not there: atomic writes, checksums, JSON."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polyrank.errors import RunError, StorageError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success flush it to disk and rename it over `path`, on any failure remove it.

    The temporary may be written as a file or made as a directory. A reader sees the old contents or the new, never a part.

    Raises:
        StorageError: the disk is full, or the place cannot be written.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for part in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
            _flush(part)
        if path.is_dir():
            # rename(2) refuses to replace a directory that holds files: move the old one aside first.
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


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
    except FileNotFoundError as error:
        raise RunError(
            f"{path.name} must be there", received=f"no file {path}", mend="name a directory that polyrank wrote"
        ) from error
    except ValueError as error:
        raise RunError(
            f"{path.name} must be whole", received=f"{path}: {error}", mend="restore it, or run the command again"
        ) from error


def sha256(write: Callable[[Callable[[Any], None]], None]) -> str:
    """Digest of everything that `write` feeds to the function it is given."""
    digest = hashlib.sha256()
    write(digest.update)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
