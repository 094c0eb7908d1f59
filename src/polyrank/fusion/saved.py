"""How fusions and policies lie on disk: `<name>.json`, and `<name>.safetensors` beside it where there are arrays."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from polyrank.config import nearest
from polyrank.errors import PolyrankError, RunError
from polyrank.files import file_sha256, read_json, write_json, writing
from polyrank.metrics.checks import Rows

FORMAT = 1

T = TypeVar("T")


def write_saved(name: str, kind: str, document: Mapping[str, Any], arrays: Mapping[str, Rows], directory: Path) -> None:
    """Write it into a directory, over an earlier one.

    Args:
        name: of the files: `fusion`, `policy`.
        kind: by which it is found again.
        document: JSON-ready.
        arrays: by name; none, no file of them.
        directory: where.

    Raises:
        StorageError: it cannot be written.
    """
    beside, digest = directory / f"{name}.safetensors", None
    if arrays:
        with writing(beside) as temporary:
            temporary.write_bytes(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))
        digest = file_sha256(beside)
    else:
        beside.unlink(missing_ok=True)
    write_json(directory / f"{name}.json", {"format": FORMAT, "kind": kind, "arrays_sha256": digest, **document})


def read_saved(
    name: str,
    kinds: Mapping[str, type[T]],
    restore: Callable[[type[T], dict[str, Any], dict[str, Rows]], T],
    directory: Path,
) -> T:
    """Read what `write_saved` wrote.

    Args:
        name: of the files.
        kinds: the registry.
        restore: (kind, the JSON document, arrays) → what was saved.
        directory: where.

    Raises:
        RunError: it is missing, damaged, or of another format.
    """
    path, beside = directory / f"{name}.json", directory / f"{name}.safetensors"
    document = read_json(path)
    kind = kinds.get(document.get("kind", ""))
    if document.get("format") != FORMAT or kind is None:
        raise RunError(
            f"a {name} must be of format {FORMAT} and of a known kind",
            received=f"{path}: format {document.get('format')!r}, kind {document.get('kind')!r}",
            mend=nearest(str(document.get("kind")), kinds),
        )
    try:
        arrays: dict[str, Rows] = {}
        if document["arrays_sha256"] is not None:
            if file_sha256(beside) != document["arrays_sha256"]:
                raise ValueError(f"{beside.name} is not the file that was saved with it")
            arrays = load_file(beside)
        return restore(kind, document, arrays)
    except (KeyError, TypeError, ValueError, OSError, SafetensorError, PolyrankError) as error:
        raise RunError(
            f"a {name} must be whole", received=f"{path}: {error}", mend="restore it, or make it again"
        ) from error
