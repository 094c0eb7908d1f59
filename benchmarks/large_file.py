"""Does memory stay bounded? Make a large synthetic log, encode it and train on it, and report the peak resident size.

    python benchmarks/large_file.py [--rows 20000000] [--directory DIR]

The log: Zipf-like users (2 million) and items (500 thousand), four categories, three numbers, tags, click and like.
The result is written to benchmarks/results/.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
CHUNK = 500_000
CONFIG = """
[data]
schema = "schema.toml"
train = "train.parquet"
valid = "valid.parquet"
leak_guard = true
[model]
architecture = "mmoe"
[model.mmoe]
experts = 4
widths = [32]
[train]
epochs = 1
batch_size = 8192
embedding_optimizer = "adagrad"
evaluations_per_epoch = 4
"""
SCHEMA = "\n".join(
    ['group = "user_id"']
    + [f'[[features]]\nname = "{name}"\nkind = "id"' for name in ("user_id", "item_id")]
    + [f'[[features]]\nname = "category_{i}"\nkind = "category"' for i in range(4)]
    + [f'[[features]]\nname = "number_{i}"\nkind = "number"' for i in range(3)]
    + ['[[features]]\nname = "tags"\nkind = "tags"\nmax_length = 4']
    + ['[[tasks]]\nname = "click"\nkind = "binary"', '[[tasks]]\nname = "like"\nkind = "binary"\ngiven = "click"']
)
# Runs in a process of its own, so that its peak is not the generator's.
WORK = """
import sys
from pathlib import Path
from polyrank import experiment
from polyrank.progress import Terminal
from polyrank.training.pool import peak_memory
document = experiment.train(Path("config.toml"), [], Path("run"), resume=False, progress=Terminal())
Path("peak").write_text(str(peak_memory()))
"""


def write_log(path: Path, rows: int, seed: int) -> None:
    """A log with a learnable signal, written chunk by chunk."""
    generator = np.random.default_rng(seed)
    writer = None
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        users = (2_000_000 * generator.random(n) ** 3).astype(np.int64) * 4_001 + 2**33
        items = (500_000 * generator.random(n) ** 3).astype(np.int64)
        categories = generator.integers(0, 100, (4, n))
        numbers = generator.lognormal(1.0, 1.0, (3, n))
        tags = generator.integers(0, 50, (2, n))
        taste = np.sin(users % 97) * np.cos(items % 89) + 0.1 * np.sin(categories[0]) + 0.2 * np.log1p(numbers[0])
        click = generator.random(n) < 1 / (1 + np.exp(1.5 - taste))
        like = click & (generator.random(n) < 1 / (1 + np.exp(2.0 - np.sin(items % 53))))
        table = pa.table(
            {"user_id": users, "item_id": items}
            | {f"category_{i}": categories[i] for i in range(4)}
            | {f"number_{i}": numbers[i].astype(np.float32) for i in range(3)}
            | {"tags": [f"{a},{b}" for a, b in tags.T], "click": click.astype(np.int8), "like": like.astype(np.int8)}
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def main() -> None:
    """Generate, train in a fresh process, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        directory = Path(folder)
        write_log(directory / "train.parquet", arguments.rows, seed=0)
        write_log(directory / "valid.parquet", 200_000, seed=1)
        (directory / "schema.toml").write_text(SCHEMA)
        (directory / "config.toml").write_text(CONFIG)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", WORK], cwd=directory, check=True)
        seconds = time.perf_counter() - began
        history = [json.loads(line) for line in (directory / "run/history.jsonl").read_text().splitlines()]
        result = {
            "command": " ".join(["python", *sys.argv]),
            "rows": arguments.rows,
            "file_bytes": (directory / "train.parquet").stat().st_size,
            "peak_resident_bytes": int((directory / "peak").read_text()),
            "seconds_in_all": round(seconds, 1),
            "seconds_training": history[-1]["seconds"],
            "valid": history[-1]["valid"],
        }
    print(json.dumps(result, indent=2))
    target = HERE / f"results/{date.today().isoformat()}-large-file-{arguments.rows}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
