"""Killed and resumed equals uninterrupted, bit for bit: every architecture, balancer, embedding optimiser."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from polyrank import cli
from polyrank.balancing.balancer import BALANCERS
from polyrank.config import write_toml
from polyrank.data.schema import Feature, Schema, Task, save_schema
from polyrank.experiment import train
from polyrank.files import read_json
from polyrank.models.ranker import ARCHITECTURES
from polyrank.training.checkpoint import load_checkpoint
from polyrank.training.loop import Trainer
from polyrank.training.optimizers import EMBEDDING_OPTIMIZERS
from polyrank.training.precision import resolve

# A process that has imported everything forks each training: real processes, without seconds of imports each.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["polyrank.experiment", "pytest"])

Config = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("polyrank.experiment.run_html", lambda run: "")  # a third of the time, and not compared
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """`config(rows=300, name="config", model={}, **train)`: data, a schema and a config with dropout everywhere."""

    def write(rows: int = 300, name: str = "config", model: dict[str, Any] | None = None, **train: Any) -> Path:
        rng = np.random.default_rng(3)
        item, age = rng.integers(0, 20, rows), rng.normal(size=rows)
        click = rng.random(rows) < 1 / (1 + np.exp(10 - item - age))
        like = (click & (rng.random(rows) < 0.5)).astype(np.int8)
        columns = {
            "user": rng.integers(0, 30, rows),
            "item": item,
            "history": [rng.integers(0, 20, n).tolist() for n in rng.integers(0, 5, rows)],
            "age": age,
            "click": click.astype(np.int8),
            "like": pa.array(like, mask=rng.random(rows) < 0.3),
            "watch": item + rng.normal(size=rows),
        }
        pq.write_table(pa.table(columns), tmp_path / "log.parquet")
        schema = Schema(
            features=(
                Feature("user", "id"),
                Feature("item", "id"),
                Feature("history", "sequence", shares="item", max_length=3),
                Feature("age", "number", bins=8),
            ),
            tasks=(Task("click", "binary"), Task("like", "binary", given="click"), Task("watch", "regression")),
        )
        save_schema(schema, tmp_path / "schema.toml")
        dropout = {name: {"dropout": 0.2} for name in ARCHITECTURES}
        common = {"embedding_width": 4, "embedding_dropout": 0.2, "towers": [8], "tower_dropout": 0.2}
        plan = {"epochs": 3, "batch_size": 32, "evaluations_per_epoch": 2, "patience": 0, "threads": 1}
        table = {
            "data": {"schema": "schema.toml", "train": "log.parquet"},
            "model": {"architecture": "ple", **common, **dropout, **(model or {})},
            # Decided once: on a busy machine two processes may measure differently what `auto` asks for.
            "train": {"learning_rate": 0.01, "precision": resolve("auto"), **plan, **train},
        }
        write_toml(tmp_path / f"{name}.toml", table)
        return tmp_path / f"{name}.toml"

    return write


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{path}/{key}").items()}
    if isinstance(tree, list):
        return _flat(dict(enumerate(tree)), path)
    return {path: tree}


def _state(run: Path) -> dict[str, Any]:
    """All that a run came to, but for the seconds."""
    whole = {name: load_checkpoint(run / f"checkpoints/{name}.safetensors") for name in ("best", "last")}
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    flat = _flat({**whole, "history": lines, "metrics": read_json(run / "metrics.json")})
    return {key: value for key, value in flat.items() if not key.endswith("/seconds")}


def _assert_same(run: Path, whole: Path) -> None:
    found, expected = _state(run), _state(whole)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        same = torch.equal(found[key], value) if isinstance(value, Tensor) else found[key] == value
        assert same, f"{key}: {found[key]} instead of {value}"
    assert [path.name for path in run.rglob(".*")] == [".lock"]  # nothing half-written is left


@contextmanager
def _death_at(step: int) -> Iterator[None]:
    """Training dies when it is about to make this step."""
    make_step = Trainer._step

    def dying(self: Trainer, batch: Any) -> None:
        if self.place.step == step:
            raise ZeroDivisionError(f"step {step}")
        make_step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        yield


# 270 of 300 rows train: 9 steps an epoch, looks after 5 and 9.
EVERY = [
    *((name, "static", "adam") for name in ARCHITECTURES),
    *(("mmoe", name, "adam") for name in BALANCERS if name != "static"),
    *(("mmoe", "static", name) for name in EMBEDDING_OPTIMIZERS if name != "adam"),
]
MANY = (0, 7, 9, 26)  # before the first step, between looks, at an epoch's end, before the last
FEW = [("ple", "static", "adam"), ("mmoe", "dwa", "adam"), ("mmoe", "static", "adagrad")]


def _cut_off_and_resumed(
    config: Config, tmp_path: Path, entry: tuple[str, str, str], deaths: tuple[int, ...], save_seconds: float
) -> None:
    architecture, method, optimizer = entry
    path = config(model={"architecture": architecture}, embedding_optimizer=optimizer, save_seconds=save_seconds)
    sets = [f"balance.method={method}", *(["data.tasks=['click']"] if architecture == "single_task" else [])]
    train(path, [*sets, "train.save_seconds=1e9"], tmp_path / "whole", resume=False)
    for step in deaths:
        with _death_at(step), pytest.raises(ZeroDivisionError, match=f"step {step}"):
            train(path, sets, tmp_path / "cut", resume=True)
    train(path, sets, tmp_path / "cut", resume=True)
    _assert_same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("entry", EVERY, ids="-".join)
def test_cut_off_and_resumed_equals_uninterrupted(config: Config, tmp_path: Path, entry: tuple[str, str, str]) -> None:
    _cut_off_and_resumed(config, tmp_path, entry, (16,), 0.0)


@pytest.mark.parametrize("save_seconds", [0.0, 1e9], ids=["saved at every step", "saved at evaluations"])
@pytest.mark.parametrize(
    "entry", [pytest.param(entry, marks=() if entry in FEW else pytest.mark.slow) for entry in EVERY], ids="-".join
)
def test_cut_off_many_times(config: Config, tmp_path: Path, entry: tuple[str, str, str], save_seconds: float) -> None:
    _cut_off_and_resumed(config, tmp_path, entry, MANY, save_seconds)


def test_cut_off_and_resumed_with_every_option(config: Config, tmp_path: Path) -> None:
    model = {
        "architecture": "mmoe", "first_order": True, "sequence": {"pooling": "transformer", "dropout": 0.2},
        "number": {"encoding": "periodic"}, "feature_gate": {"on": True}, "cross": {"layers": 1, "rank": 2},
        "ensemble": {"members": 2},
    }  # fmt: skip
    plan = {"average": 0.9, "label_smoothing": 0.1, "schedule": "one_cycle", "warmup": 0.3}
    path = config(model=model, save_seconds=0.0, task_patience=2, best_per_task=True, **plan)
    sets = ["data.leaves.trees=3", "data.leaves.leaves=4"]
    train(path, sets, tmp_path / "whole", resume=False)

    for step in (0, 7, 9, 14):
        with _death_at(step), pytest.raises(ZeroDivisionError, match=f"step {step}"):
            train(path, sets, tmp_path / "cut", resume=True)
    train(path, sets, tmp_path / "cut", resume=True)

    _assert_same(tmp_path / "cut", tmp_path / "whole")
    assert (tmp_path / "cut/checkpoints/best-watch.safetensors").exists()


def test_cut_off_while_a_file_is_written(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each rename in turn: best, history and last are then of different moments."""
    path = config(save_seconds=1e9, keep="last")  # so that there is a best one at every evaluation
    train(path, [], tmp_path / "whole", resume=False)
    rename = os.replace

    for name in ("best.safetensors", "history.jsonl", "last.safetensors") * 2:
        with monkeypatch.context() as context:

            def dying(source: Path, target: Path, name: str = name) -> None:
                if Path(target).name == name and (tmp_path / "cut/checkpoints/best.safetensors").exists():
                    raise ZeroDivisionError
                rename(source, target)

            context.setattr(os, "replace", dying)
            try:
                train(path, [], tmp_path / "cut", resume=True)
            except ZeroDivisionError:
                continue
            pytest.fail(f"{name} was not written")
    train(path, [], tmp_path / "cut", resume=True)

    _assert_same(tmp_path / "cut", tmp_path / "whole")


def _wait_for_saves(run: Path, saves: int, alive: Callable[[], bool]) -> None:
    """Until the checkpoint has been written so many times more."""
    last = run / "checkpoints/last.safetensors"
    seen = {last.stat().st_mtime_ns} if last.exists() else set()
    target = len(seen) + saves
    deadline = time.monotonic() + 120
    while len(seen) < target:
        assert time.monotonic() < deadline
        assert alive(), f"training ended after {len(seen)} saves"
        if last.exists():
            seen.add(last.stat().st_mtime_ns)
        time.sleep(0.002)


def test_signals_at_random_moments(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(rows=2_000, epochs=8, batch_size=64, save_seconds=0.02)
    train(path, ["train.save_seconds=1e9"], tmp_path / "whole", resume=False)
    run, moments = tmp_path / "killed", np.random.default_rng(11)

    steps = [0]
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        monkeypatch.setattr(sys, "argv", ["polyrank", "train", str(path), "--out", str(run), "--resume"])
        process = FORKS.Process(target=cli.main)
        process.start()
        _wait_for_saves(run, int(moments.integers(2, 7)), process.is_alive)
        time.sleep(moments.uniform(0, 0.03))
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == (1 if number == signal.SIGTERM else -number)
        place = load_checkpoint(run / "checkpoints/last.safetensors")["place"]  # whole, whenever the signal came
        assert not place["finished"]
        steps.append(place["step"])
    assert steps == sorted(set(steps))  # each time it went on from where it was
    train(path, [], run, resume=True)

    _assert_same(run, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_saves_says_so_and_resumes(config: Config, tmp_path: Path, number: signal.Signals) -> None:
    path = config(rows=2_000, epochs=8, batch_size=64, save_seconds=0.02)
    run = tmp_path / "stopped"
    command = [sys.executable, "-m", "polyrank.cli", "train", str(path), "--out", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _wait_for_saves(run, 3, lambda: process.poll() is None)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    place = load_checkpoint(run / "checkpoints/last.safetensors")["place"]
    message = errors[errors.index("error:") :].splitlines()
    assert message == [
        "error: training was interrupted",
        f"  received: {number.name}",
        f"  to mend:  all is saved at step {place['step']:,}: the same command with --resume goes on from there",
    ]
    assert out == ""
    assert [path.name for path in run.rglob(".*")] == [".lock"]
    train(path, [], run, resume=True)
    train(path, ["train.save_seconds=1e9"], tmp_path / "whole", resume=False)
    _assert_same(run, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sigkill_of_the_command(config: Config, tmp_path: Path, seed: int) -> None:
    path = config(rows=3_000, epochs=8, save_seconds=0.0, model={"architecture": ["mmoe", "ple"][seed % 2]})
    train(path, [], tmp_path / "whole", resume=False)
    run, moments = tmp_path / "killed", np.random.default_rng(seed)
    command = [sys.executable, "-m", "polyrank.cli", "train", str(path), "--out", str(run), "--resume"]

    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _wait_for_saves(run, int(moments.integers(2, 100)), lambda started=process: started.poll() is None)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert subprocess.run(command, capture_output=True).returncode == 0

    _assert_same(run, tmp_path / "whole")
