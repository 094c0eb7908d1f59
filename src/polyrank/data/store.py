"""The encoded matrix on disk: memory-mapped `.npy` files beside a manifest, written atomically, checked when reused.

DIR/ids.npy      int32   [N, F]    row-major: a batch is one fancy-index
DIR/dense.npy    float32 [N, D]    scaled numbers
DIR/labels.npy   float32 [N, T]    NaN = missing
DIR/weights.npy  float32 [N, T]    only where a task has a weight column, else [N, 0]
DIR/groups.npy   int64   [N]       only where the schema has a group, else [0]
DIR/manifest.json                  format, key (schema + encoders + source), rows; of each file its shape and checksum
"""

import hashlib
import io
import json
import math
import mmap
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from polyrank.config import to_table
from polyrank.data.encoders import Encoders
from polyrank.data.layout import Encoded
from polyrank.data.readers import Source
from polyrank.errors import DataError, RunError
from polyrank.files import file_sha256, read_json, write_json, writing
from polyrank.progress import Progress, Silent

FORMAT = 1
_TYPES = {"ids": np.int32, "dense": np.float32, "labels": np.float32, "weights": np.float32, "groups": np.int64}


@dataclass(frozen=True)
class EncodedData:
    """An encoded matrix, memory-mapped read-only.

    Attributes:
        ids: `[N, F]` int32.
        dense: `[N, D]` float32.
        labels: `[N, T]` float32, NaN = missing.
        weights: `[N, T]` or `[N, 0]` float32.
        groups: `[N]` or `[0]` int64.
        maps: the mappings behind the arrays.
    """

    ids: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    maps: tuple[mmap.mmap, ...]

    @property
    def rows(self) -> int:
        """N."""
        return len(self.ids)

    @classmethod
    def open(cls, directory: Path, *, key: str | None = None, verify: bool = True) -> Self:
        """Map an encoded directory.

        Args:
            directory: what `encode_to` wrote.
            key: what the manifest must say it was made from (`None`: anything).
            verify: read every file and compare its checksum; otherwise only headers and sizes are looked at, for what
                the same command has verified before.

        Raises:
            RunError: missing, damaged, or made from something else.
        """
        manifest = read_json(directory / "manifest.json")
        try:
            suits = manifest["format"] == FORMAT and key in (None, manifest["key"])
            files = {name: (tuple(map(int, of["shape"])), of["sha256"]) for name, of in manifest["files"].items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            suits = False
        if not suits or set(files) != set(_TYPES):
            rule = "the encoded data must be of this schema and source"
            raise RunError(rule, received=str(directory), mend="encode again")
        arrays, maps = {}, []
        for name, (shape, checksum) in files.items():
            path = directory / f"{name}.npy"
            mapped = _map(path, shape, np.dtype(_TYPES[name]))
            if mapped is None or (verify and file_sha256(path) != checksum):
                raise RunError("the encoded data must be whole", received=f"{path} is damaged", mend="encode again")
            arrays[name] = mapped[0]
            maps.append(mapped[1])
        return cls(**arrays, maps=tuple(maps))

    def release(self) -> None:
        """Give the pages read so far back to the system, so that resident memory does not grow with the file."""
        for mapping in self.maps:
            mapping.madvise(mmap.MADV_DONTNEED)


def encode_to(directory: Path, encoders: Encoders, source: Source, progress: Progress | None = None) -> EncodedData:
    """Encode `source` into `directory` in one pass, or reuse what is there if made from the same source and encoders.

    Raises:
        DataError: a value breaks a rule of its column, or there are no rows.
        StorageError: the disk is full.
    """
    key = _key(encoders, source)
    try:
        return EncodedData.open(directory, key=key)
    except RunError:
        pass  # absent, stale or damaged: made anew below
    encoders.schema.check(source.schema, source.name)
    columns = encoders.schema.columns(labels=True)
    total = source.count_rows()
    if total == 0:
        raise DataError(
            "data must hold at least one row", received=f"{source.name}: 0 rows", mend="give data with rows"
        )
    with writing(directory) as temporary, (progress or Silent()).bar(f"encoding {source.name}", total) as bar:
        temporary.mkdir()
        shapes = _write(temporary, (_counted(encoders.encode(b), bar) for b in source.batches(columns, coded=True)))
        files = {n: {"shape": shape, "sha256": file_sha256(temporary / f"{n}.npy")} for n, shape in shapes.items()}
        manifest = {"format": FORMAT, "key": key, "rows": shapes["ids"][0], "source": source.name, "files": files}
        write_json(temporary / "manifest.json", manifest)
    return EncodedData.open(directory, key=key, verify=False)


def _counted(encoded: Encoded, bar: Any) -> Encoded:
    bar.advance(len(encoded.ids))
    return encoded


def _write(directory: Path, chunks: Iterable[Encoded]) -> dict[str, tuple[int, ...]]:
    """Append chunk after chunk to one `.npy` per part; the number of rows is filled into the headers at the end.

    Returns:
        The shape of each part.
    """
    with ExitStack() as stack:
        files: dict[str, _Growing] = {}
        for chunk in chunks:
            for part in fields(Encoded):
                array = getattr(chunk, part.name)
                if part.name not in files:
                    files[part.name] = stack.enter_context(_Growing(directory / f"{part.name}.npy", array))
                files[part.name].append(array)
        return {name: file.finish() for name, file in files.items()}


class _Growing:
    """A `.npy` file whose first axis grows."""

    def __init__(self, path: Path, like: np.ndarray) -> None:
        self._stream = path.open("wb")
        self._tail, self._dtype, self._rows = like.shape[1:], like.dtype, 0
        self._stream.write(_header((0, *self._tail), self._dtype))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def append(self, array: np.ndarray) -> None:
        self._stream.write(np.ascontiguousarray(array).data)
        self._rows += len(array)

    def finish(self) -> tuple[int, ...]:
        """Write the true shape into the header."""
        shape = (self._rows, *self._tail)
        self._stream.seek(0)
        self._stream.write(_header(shape, self._dtype))
        return shape


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """A `.npy` header; numpy pads it so that the first axis may grow without the header growing."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[np.ndarray, mmap.mmap] | None:
    """The array in a file and its mapping; None unless the file has just this header, and as many bytes as it says."""
    header = _header(shape, dtype)
    size = len(header) + math.prod(shape) * dtype.itemsize
    # The header is compared and not parsed: nothing in a damaged one can do harm.
    if not path.is_file() or path.stat().st_size != size:
        return None
    with path.open("rb") as stream:
        if stream.read(len(header)) != header:
            return None
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, buffer=mapping, offset=len(header)), mapping


def _key(encoders: Encoders, source: Source) -> str:
    """What an encoded matrix depends on: the schema, the encoders' state, the source's files."""
    whole = [FORMAT, to_table(encoders.schema), encoders.digest, source.fingerprint]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
