"""A small feedback log with hates, its run, and a fusion of it: for the tests of all that is built on a run."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyrank import experiment

_SCHEMA = """
group = "user"
[[features]]
name = "video"
kind = "id"
[[features]]
name = "bait"
kind = "number"
bins = 8
[[tasks]]
name = "click"
kind = "binary"
[[tasks]]
name = "like"
kind = "binary"
[[tasks]]
name = "hate"
kind = "binary"
"""
_CONFIG = """
[data]
schema = "schema.toml"
train = "train.parquet"
valid = "valid.parquet"
test = "test.parquet"
leak_guard = false
[model]
embedding_width = 4
towers = [4]
[model.mmoe]
experts = 2
widths = [8]
[train]
epochs = 8
batch_size = 192
learning_rate = 0.05
threads = 1
[fusion]
run = "run"
formula = "log_sum"
negative = ["hate"]
request = ["user", "day"]
current = "like"
show = ["video"]
[fusion.search]
trials = 40
jobs = 1
[fusion.judge]
replicates = 50
weights = { click = 1.0, like = 1.0 }
"""


def _log(rows: int, seed: int) -> pa.Table:
    """Bait is clicked and hated, the first videos are liked; a null day now and then."""
    rng = np.random.default_rng(seed)
    video, bait = rng.integers(0, 12, rows), rng.normal(size=rows)
    good = video < 4
    day = rng.integers(0, 2, rows)
    return pa.table(
        {
            "user": rng.integers(0, rows // 24, rows),
            "day": pa.array(day, mask=rng.random(rows) < 0.02),
            "video": video,
            "bait": bait,
            "seconds": rng.integers(5, 90, rows).astype(float),
            "active": np.zeros(rows, np.int64),
            "click": (rng.random(rows) < 1 / (1 + np.exp(-1.5 * bait))).astype(np.int8),
            "like": (rng.random(rows) < np.where(good, 0.6, 0.1)).astype(np.int8),
            "hate": (rng.random(rows) < 0.3 / (1 + np.exp(-2 * bait))).astype(np.int8),
        }
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in three parts, schema, config, and a trained run."""
    path = tmp_path_factory.mktemp("fuse")
    for seed, (name, rows) in enumerate({"train": 3_000, "valid": 1_500, "test": 1_500}.items()):
        pq.write_table(_log(rows, seed), path / f"{name}.parquet")
    (path / "schema.toml").write_text(_SCHEMA)
    (path / "config.toml").write_text(_CONFIG)
    experiment.train(path / "config.toml", [], path / "run", resume=False)
    return path


@pytest.fixture(scope="session")
def searched(folder: Path) -> Path:
    """What `polyrank fuse search` wrote."""
    experiment.fuse_search(folder / "config.toml", [], folder / "fuse", resume=False, command="polyrank fuse search")
    return folder / "fuse"
