"""Files → Arrow record batches, in order, with bounded memory.

Parquet, CSV, Feather; a file, a directory, a glob, a URI.
"""

import glob
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from polyrank.data.columns import hash64, is_text
from polyrank.errors import DataError

BATCH_ROWS = 131_072
_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
}
# An empty cell is null in a column of strings as it is in a column of numbers, and so are NA, NaN and NULL.
_CSV = ds.CsvFileFormat(convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True))


@dataclass(frozen=True)
class Source:
    """A table that is read in chunks.

    Attributes:
        name: what messages call it.
        dataset: where the rows come from.
        fingerprint: changes when the files do (name, size and time of change of each).
        share: the rows whose hashed position lies in [low, high) of the unit interval: (0, 1) for all of them.
    """

    name: str
    dataset: ds.Dataset
    fingerprint: str
    share: tuple[float, float] = (0.0, 1.0)

    @property
    def schema(self) -> pa.Schema:
        """Column names and types."""
        return self.dataset.schema

    def count_rows(self) -> int:
        """How many rows there are (free for Parquet, one pass for CSV).

        Raises:
            DataError: a file is damaged.
        """
        try:
            total = int(self.dataset.count_rows())
            if self.share == (0.0, 1.0):
                return total
            starts = range(0, total, BATCH_ROWS)
            return sum(int(self._drawn(start, min(BATCH_ROWS, total - start)).sum()) for start in starts)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.name, error) from error

    def batches(
        self, columns: Sequence[str], rows: int = BATCH_ROWS, *, coded: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Read the columns in file order, at most `rows` rows at a time.

        Args:
            columns: their names.
            rows: the bound.
            coded: give texts that a Parquet file holds as dictionaries as such, which is ten times as fast.

        Raises:
            DataError: a file is damaged or changes its types midway.
        """
        try:
            # Little read-ahead: memory stays at a few chunks however large the files are.
            dataset = _coded(self.dataset, columns) if coded else self.dataset
            scanner = dataset.scanner(columns=list(columns), batch_size=rows, batch_readahead=2, fragment_readahead=1)
            position = 0
            for batch in scanner.to_batches():
                read = batch.num_rows
                if self.share != (0.0, 1.0):
                    batch = batch.filter(pa.array(self._drawn(position, read)))
                position += read
                if batch.num_rows:
                    yield batch
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.name, error) from error

    def _drawn(self, first: int, rows: int) -> np.ndarray:
        """`[rows]` bool: which of these rows are in the share."""
        place = hash64(pa.array(np.arange(first, first + rows, dtype=np.int64))) / 2.0**64
        low, high = self.share
        return (place >= low) & (place < high)


def open_source(place: str | Path) -> Source:
    """Open a file, a directory, a glob or a URI that pyarrow understands (`s3://…`, `gs://…`).

    Raises:
        DataError: nothing is there, the format is not known, a file is damaged, two columns share a name, or there is
            not one row.
    """
    name = str(place)
    files: list[str] = []
    if "://" in name:
        format_ = _FORMATS.get(Path(name).suffix.lower(), "parquet")
    else:
        files = _files(name)
        format_ = _format(name, files)
        for path in files:
            if Path(path).stat().st_size == 0:
                raise DataError(
                    "a data file must hold at least one row", received=f"{path} is empty (0 bytes)", mend="remove it"
                )
    try:
        dataset = ds.dataset(files or name, format=_CSV if format_ == "csv" else format_)
        infos = dataset.filesystem.get_file_info(dataset.files)
        # Parquet says how many rows it has; to give its first one it would read and unpack a row group of all columns.
        empty = (dataset.count_rows() if format_ == "parquet" else dataset.head(1).num_rows) == 0
    except (pa.ArrowException, OSError) as error:
        for path in files[:1]:
            _check_names(path, format_)
        raise _damaged(name, error) from error
    if empty:
        raise DataError("data must hold at least one row", received=f"{name}: 0 rows", mend="give a file with rows")
    listing = repr([(info.base_name, info.size, info.mtime_ns) for info in infos])
    return Source(name, dataset, hashlib.sha256(listing.encode()).hexdigest())


def table_source(name: str, table: pa.Table, fingerprint: str) -> Source:
    """A source over a table in memory."""
    return Source(name, ds.dataset(table), fingerprint)


def _coded(dataset: ds.Dataset, columns: Sequence[str]) -> ds.Dataset:
    """The same dataset, read as dictionaries where texts are stored so."""
    texts = {name for name in columns if is_text(dataset.schema.field(name).type)}
    if not texts or not isinstance(getattr(dataset, "format", None), ds.ParquetFileFormat):
        return dataset
    try:
        fragments = list(dataset.get_fragments())
    except ValueError:  # filtered, as by a split: its files alone are not what it holds
        return dataset
    # Where files differ in a column's type, Arrow converts it, but not into a dictionary.
    texts = {name for name in texts if all(name in f.physical_schema.names for f in fragments)}
    texts = {name for name in texts if all(is_text(f.physical_schema.field(name).type) for f in fragments)}
    metadata = fragments[0].metadata
    groups = [metadata.row_group(i) for i in range(min(1, metadata.num_row_groups))]
    stored = [group.column(i) for group in groups for i in range(group.num_columns)]
    # A text that is not stored as a dictionary takes the 4 bytes of its length, at least.
    coded = {c.path_in_schema for c in stored if c.total_uncompressed_size < 4 * c.num_values}
    if not texts & coded:
        return dataset
    format_ = ds.ParquetFileFormat(dictionary_columns=sorted(texts & coded))
    return ds.dataset(dataset.files, format=format_, filesystem=dataset.filesystem)


def _files(name: str) -> list[str]:
    path = Path(name)
    if path.is_file():
        return [name]
    if path.is_dir():
        # Writers such as Spark name directories like files, and keep their own files under names with a dot or a dash.
        found = sorted(
            str(p)
            for p in path.rglob("*")
            if p.suffix.lower() in _FORMATS
            and p.is_file()
            and not any(part.startswith((".", "_")) for part in p.relative_to(path).parts)
        )
        rule = "a directory of data must hold Parquet, CSV or Feather files"
    else:
        found = sorted(p for p in glob.glob(name, recursive=True) if Path(p).is_file())
        rule = "data must be a file, a directory or a glob that matches files"
    if not found:
        raise DataError(rule, received=name, mend="check the path (relative to where you are, or to the config file)")
    return found


def _format(name: str, files: Sequence[str]) -> str:
    formats = {_FORMATS.get(Path(path).suffix.lower(), Path(path).suffix or "no suffix") for path in files}
    if len(formats) != 1 or not formats <= set(_FORMATS.values()):
        raise DataError(
            "data must be in one format: " + ", ".join(sorted(_FORMATS)),
            received=f"{name}: {', '.join(sorted(formats))}",
            mend="convert it, or name the files with a glob",
        )
    return formats.pop()


def _check_names(path: str, format_: str) -> None:
    """Say so if a file was refused because two columns share a name; Arrow's own message rarely names it."""
    names: list[str] = []
    with suppress(pa.ArrowException, OSError):  # the file has more wrong with it than that
        if format_ == "csv":
            with pyarrow.csv.open_csv(path) as stream:
                names = stream.schema.names
        else:
            reader = ds.ParquetFileFormat() if format_ == "parquet" else ds.IpcFileFormat()
            names = reader.inspect(path, LocalFileSystem()).names
    for column in names:
        if (times := names.count(column)) > 1:
            raise DataError(
                "every column of a data file must have a name of its own",
                received=f"{path}: the name {column!r} occurs {times} times",
                mend="rename or remove all but one of them",
            )


def _damaged(name: str, error: Exception) -> DataError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(
        "a data file must be whole and of one type throughout",
        received=f"{name}: {first}",
        mend="write the file again (it may be truncated), or convert CSV whose types change midway to Parquet",
    )
