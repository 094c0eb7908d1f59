"""Small feedback logs with every trap in them, for all tests.

Fixtures hand out functions, because test modules cannot import one another (`--import-mode=importlib`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import settings

from polyrank.data.encoders import Encoders
from polyrank.data.readers import Source, open_source, table_source
from polyrank.data.schema import Feature, Schema, Task, save_schema

# The same examples in every run, and no time limit for one on a busy machine.
settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")

# Ids that float32 merges (2**24 and 2**24 + 1), that int32 cannot hold, and that float64 merges (2**53 and 2**53 + 1).
VIDEO_IDS = np.array([7, 2**24, 2**24 + 1, 2**31 + 5, 2**31 + 6, 2**53, 2**53 + 1, 2**63 - 1], np.int64)


@pytest.fixture(autouse=True, scope="session")
def _quick() -> Iterator[None]:
    """What takes most of the time of a thousand small trainings, and changes nothing about them.

    No test pulls the plug, and a disk is slow to say that it has written. And the garbage collector, which a training
    calls once, has the whole test suite to search.
    """
    idle = SimpleNamespace(unfreeze=lambda: None, collect=lambda: None, freeze=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("polyrank.training.loop.gc", idle)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests are small: on a busy machine threads would wait for each other most of the time."""
    torch.set_num_threads(1)


def _table(rows: int = 200, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    click = rng.random(rows) < 0.5
    click[:2] = [True, False]
    like = click & (rng.random(rows) < 0.4)
    like[0] = True
    category = [None if i % 9 == 4 else f"c{v}" for i, v in enumerate(rng.integers(0, 5, rows))]
    number = rng.normal(size=rows) * 100
    number[rng.random(rows) < 0.1] = np.nan
    number[rng.random(rows) < 0.05] = np.inf
    price = pa.array(number, mask=rng.random(rows) < 0.1)
    tags = [None if i % 11 == 3 else [" a , b", "", "b,,c", "a"][i % 4] for i in range(rows)]
    lengths = rng.integers(0, 7, rows).tolist()
    history = [None if i % 7 == 2 else rng.choice(VIDEO_IDS, size=n).tolist() for i, n in enumerate(lengths)]
    return pa.table(
        {
            "user_id": rng.integers(0, max(2, rows // 8), rows),
            "video_id": rng.choice(VIDEO_IDS, rows),
            "category": pa.array(category, pa.string()),
            "price": price,
            "tags": pa.array(tags, pa.string()),
            "history": pa.array(history, pa.list_(pa.int64())),
            "is_click": click.astype(np.int8),
            "is_like": pa.array(like.astype(np.int8), mask=~click),
            "play_time": np.where(click, rng.exponential(10_000, rows).round(), 0.0),
            "time_ms": np.arange(rows, dtype=np.int64) + 1_700_000_000_000,
        }
    )


def _lively(rows: int, seed: int) -> pa.Table:
    """The log's labels anew: the category says who clicks, the video how long is watched."""
    table, rng = _table(rows, seed), np.random.default_rng([seed, 1])
    lively = pc.is_in(table["category"], pa.array(["c0", "c1"])).to_numpy()
    click = rng.random(rows) < np.where(lively, 0.9, 0.2)
    like = click & (rng.random(rows) < 0.4)
    watch = 1_000.0 * (1 + table["video_id"].to_numpy() % 7) + rng.exponential(500, rows)
    columns = {
        "is_click": pa.array(click.astype(np.int8)),
        "is_like": pa.array(like.astype(np.int8), mask=rng.random(rows) < 0.1),
        "play_time": pa.array(watch, mask=~click),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _schema() -> Schema:
    return Schema(
        features=(
            Feature("user_id", "id"),
            Feature("video_id", "id"),
            Feature("category", "category"),
            Feature("price", "number", bins=8),
            Feature("tags", "tags", max_length=3),
            Feature("history", "sequence", shares="video_id", max_length=4),
        ),
        tasks=(
            Task("click", "binary", column="is_click"),
            Task("like", "binary", column="is_like", given="click"),
            Task("watch", "regression", column="play_time", given="click"),
        ),
        group="user_id",
        time="time_ms",
    )


@pytest.fixture(scope="session")
def feedback_table() -> Callable[..., pa.Table]:
    """`feedback_table(rows=200, seed=0)`: a log with nulls, NaN, infinities, blank tags and large ids."""
    return _table


@pytest.fixture(scope="session")
def feedback_schema() -> Callable[[], Schema]:
    """`feedback_schema()`: six features, and click → like, click → watch."""
    return _schema


@pytest.fixture(scope="session")
def in_memory() -> Callable[..., Source]:
    """`in_memory(table, fingerprint="")`: a source over a table, or over a dict of columns."""

    def source(table: pa.Table | dict[str, object], fingerprint: str = "") -> Source:
        return table_source("the table", pa.table(table) if isinstance(table, dict) else table, fingerprint)

    return source


@pytest.fixture(scope="session")
def write_table() -> Callable[[pa.Table, Path], Path]:
    """`write_table(table, path)`: in the format that the suffix names; makes the directory; gives the path back."""

    def write(table: pa.Table, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        elif path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            pyarrow.feather.write_feather(table, str(path))
        return path

    return write


@pytest.fixture(scope="session")
def write_experiment(write_table: Callable[[pa.Table, Path], Path]) -> Callable[..., Path]:
    """`write_experiment(path, config, rows, change=None)`: for the verbs, a log with a signal, a schema and a config.

    `rows` by part (train, valid, test); `change` makes another table of each. Gives the path back.
    """

    def write(
        path: Path, config: str, rows: dict[str, int], change: Callable[[pa.Table], pa.Table] | None = None
    ) -> Path:
        for seed, (part, count) in enumerate(rows.items()):
            table = _lively(count, seed)
            write_table(change(table) if change else table, path / f"{part}.parquet")
        save_schema(_schema(), path / "schema.toml")
        (path / "config.toml").write_text(config)
        return path

    return write


@pytest.fixture
def feedback_log(tmp_path: Path, write_table: Callable[[pa.Table, Path], Path]) -> Callable[..., Path]:
    """`feedback_log(rows=200, seed=0, name="log.parquet")`: the same log as a file."""

    def log(rows: int = 200, seed: int = 0, name: str = "log.parquet") -> Path:
        return write_table(_table(rows, seed), tmp_path / name)

    return log


@pytest.fixture(scope="session")
def fitted(in_memory: Callable[..., Source]) -> Callable[..., tuple[Encoders, Source]]:
    """`fitted(rows=200, seed=0)`: encoders fitted on the log, and the log as a source."""

    def fit(rows: int = 200, seed: int = 0) -> tuple[Encoders, Source]:
        source = in_memory(_table(rows, seed), f"{rows}-{seed}")
        return Encoders.fit(_schema(), source), source

    return fit


@pytest.fixture
def feedback_source(feedback_log: Callable[..., Path]) -> Callable[..., Source]:
    """`feedback_source(rows=200, seed=0, name=…)`: the same log, opened from a file."""

    def source(rows: int = 200, seed: int = 0, name: str = "log.parquet") -> Source:
        return open_source(feedback_log(rows, seed, name))

    return source


class _JacobianStep:
    """A balancer's step whose tasks' gradients over the shared part are given: `[T, P]`.

    `pulled` and `pushed` hold what the balancer asked for, and `direction` what the shared part then received.
    """

    def __init__(self, losses, jacobian, present=None, second=None, quality=None):
        self.losses = torch.as_tensor(losses, dtype=torch.float32)
        self.present = torch.ones(len(self.losses), dtype=torch.bool) if present is None else torch.as_tensor(present)
        self.losses = torch.where(self.present, self.losses, 0.0)
        self.jacobian = torch.as_tensor(jacobian, dtype=torch.float64) * self.present[:, None]
        self.second = self.jacobian if second is None else torch.as_tensor(second, dtype=torch.float64)
        self.known_quality = quality
        self.pulled = self.pushed = None

    def pull(self, scale=None):
        assert self.pulled is None
        self.pulled = torch.ones(len(self.losses), dtype=torch.float64) if scale is None else scale.double()
        assert not self.pulled.requires_grad

    def gramian(self, scope="representation"):
        scaled = self.pulled[:, None] * self.jacobian
        return scaled @ scaled.T

    def summed(self, parts=1, scope="representation"):
        both = torch.stack([self.jacobian, self.second][:parts]) * self.pulled[:, None]
        return both.float()

    def units(self):
        return (self.pulled[:, None] * self.jacobian).float()

    def push(self, weights=None):
        assert self.pulled is not None
        assert self.pushed is None
        self.pushed = torch.ones(len(self.losses), dtype=torch.float64) if weights is None else weights.double()
        assert not self.pushed.requires_grad
        factors = self.pushed[:, None] if self.pushed.dim() == 1 else self.pushed
        self.direction = (factors * self.pulled[:, None] * self.jacobian).sum(dim=0)

    def quality(self, metric):
        return torch.as_tensor(self.known_quality, dtype=torch.float64)


@pytest.fixture(scope="session")
def jacobian_step() -> type:
    """`jacobian_step(losses, jacobian, present=…, second=…, quality=…)`: a step for a balancer, without a network."""
    return _JacobianStep
