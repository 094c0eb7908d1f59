"""Write the built-in Census-Income data from the published files, unchanged but for compression.

    python benchmarks/make_builtin_census.py DIRECTORY

DIRECTORY holds train.parquet and test.parquet with the 42 columns of the UCI Census-Income (KDD) data.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TARGET = Path(__file__).parent.parent / "src/polyrank/builtin/census"


def main(directory: Path) -> None:
    """Copy both files with smaller types and stronger compression."""
    for part in ("train", "test"):
        table = pq.read_table(directory / f"{part}.parquet")
        fields = []
        for field in table.schema:
            kind = field.type
            kind = pa.int32() if pa.types.is_integer(kind) else pa.string() if pa.types.is_large_string(kind) else kind
            fields.append(pa.field(field.name, kind))
        table = table.replace_schema_metadata(None).cast(pa.schema(fields))
        pq.write_table(table, TARGET / f"{part}.parquet", compression="zstd", compression_level=19)
        print(part, table.num_rows, (TARGET / f"{part}.parquet").stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
