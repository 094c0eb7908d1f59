import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from polyrank.config import read_toml, write_toml
from polyrank.data.encoders import Encoders
from polyrank.data.schema import Schema, load_schema, save_schema
from polyrank.errors import ConfigError, DataError, PolyrankError, RunError, StorageError
from polyrank.experiment import train, train_settings
from polyrank.files import locked
from polyrank.progress import Silent
from polyrank.rankers import build_ranker
from polyrank.runs import evaluate_part, load_run, open_parts, prepare, train_run
from polyrank.settings import Settings, parse_settings
from polyrank.training import loop
from polyrank.training.checkpoint import load_checkpoint
from polyrank.training.loop import Trainer

Configure = Callable[..., Settings]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def configure(tmp_path: Path, feedback_log: Callable[..., Path], feedback_schema: Callable[[], Schema]) -> Configure:
    """`configure(data={}, model={}, train={}, …)`: settings over the feedback log of 300 rows in `tmp_path`."""
    feedback_log(300)
    save_schema(feedback_schema(), tmp_path / "schema.toml")

    def settings(**sections: dict[str, Any]) -> Settings:
        common: dict[str, dict[str, Any]] = {
            "data": {"schema": "schema.toml", "train": "log.parquet"},
            "model": {"architecture": "mmoe", "embedding_width": 4, "towers": [8], "embedding_dropout": 0.1},
            "train": {"epochs": 2, "batch_size": 64, "patience": 0},
        }
        names = {**common, **sections}
        return parse_settings({name: common.get(name, {}) | sections.get(name, {}) for name in names}, tmp_path)

    return settings


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def _bytes(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@contextmanager
def _no_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", None)
        yield


def _cut_off_after(settings: Settings, run: Path, steps: int) -> None:
    make_step = Trainer._step

    def dying(self: Trainer, batch: Any) -> None:
        if self.place.step == steps:
            raise ZeroDivisionError
        make_step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(ZeroDivisionError):
            train_settings(settings, run)


# ------------------------------------------------------------------------------------------------- what a run is


def test_a_run_directory(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"

    metrics = train_settings(settings, run)

    assert {path.name for path in run.iterdir()} == {
        *("config.toml", "schema.toml", "environment.json", "history.jsonl", "metrics.json"),
        *("encoders", "encoded", "checkpoints", "report.html", ".lock"),
    }
    assert read_toml(run / "config.toml") == settings.table(run=True)
    assert load_schema(run / "schema.toml") == load_schema(tmp_path / "schema.toml")
    assert json.loads((run / "metrics.json").read_text()) == metrics
    assert metrics["data"] == "valid"
    assert metrics["rows"] == 30
    assert list(metrics["tasks"]) == ["click", "like", "watch"]
    assert metrics["tasks"]["like"]["rows"] < 30  # its sample space: the clicked ones
    environment = json.loads((run / "environment.json").read_text())
    assert set(environment) == {
        *("format", "created", "command", "threads", "python", "platform", "cores", "packages"),
        *("kernels", "precision"),
    }
    assert environment["kernels"] == "compiled"
    assert environment["precision"] in ("bf16", "float32")
    assert environment["threads"] == 1
    assert environment["packages"]["torch"] == version("torch")


def test_a_loaded_run_measures_what_the_training_did(configure: Configure, tmp_path: Path) -> None:
    settings = configure(data={"tasks": ["like", "click"]})
    metrics = train_settings(settings, tmp_path / "run")

    run = load_run(tmp_path / "run")
    prepared = prepare(run.settings, tmp_path / "run", Silent(), test=False)
    _, again = evaluate_part(run.ranker, prepared, run.settings, "valid", Silent())

    assert metrics == again | {"bests": metrics["bests"]}
    assert list(metrics["tasks"]) == ["like", "click"]
    assert run.settings.table(run=True) == settings.table(run=True)
    assert not run.ranker.training


def test_the_config_of_a_run_repeats_it(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = train_settings(configure(data={"test": "log.parquet", "tasks": ["click", "watch"]}), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert train(tmp_path / "run/config.toml", [], tmp_path / "again", resume=False) == metrics

    runs = tmp_path / "run", tmp_path / "again"
    assert read_toml(runs[0] / "config.toml") == read_toml(runs[1] / "config.toml")
    first, second = (load_checkpoint(run / "checkpoints/best.safetensors")["model"] for run in runs)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_test_data_is_measured_where_it_is_given(configure: Configure, tmp_path: Path) -> None:
    assert train_settings(configure(data={"test": "log.parquet"}), tmp_path / "run")["data"] == "test"


def test_the_best_checkpoint_is_what_is_kept(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter([0.6, 0.9, 0.7, 0.5])
    monkeypatch.setattr(loop, "primary_metrics", lambda table: {"click": next(script)})
    settings, run = configure(train={"epochs": 4, "batch_size": 64, "patience": 0}), tmp_path / "run"

    prepared = prepare(settings, run, Silent(), test=False)
    ranker, result = train_run(prepared, settings, run, Silent(), resume=False)

    best = load_checkpoint(run / "checkpoints/best.safetensors")["model"]
    last = load_checkpoint(run / "checkpoints/last.safetensors")["model"]
    assert (result.best, result.best_step, result.steps) == (0.9, 10, 20)
    assert all(torch.equal(value, best[name]) for name, value in ranker.state_dict().items())
    assert any(not torch.equal(value, last[name]) for name, value in best.items())
    assert not ranker.training


# ------------------------------------------------------------------------------------------ one run, one directory


def test_a_second_run_needs_another_directory(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"
    train_settings(settings, run)
    before = _bytes(run)

    for other in (settings, configure(train={"epochs": 9}), configure(data={"train": "nowhere.parquet"})):
        with pytest.raises(RunError, match=r"needs a directory of its own[\s\S]*--resume") as caught:
            train_settings(other, run)
        assert caught.value.exit_code == 2

    assert _bytes(run) == before


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"train": {"epochs": 3}}, "train.epochs"),
        ({"train": {"seed": 1, "learning_rate": 0.5}}, "train.learning_rate, train.seed"),
        ({"train": {"embedding_learning_rate": 0.1}}, "train.embedding_learning_rate"),
        ({"model": {"mmoe": {"experts": 2}}}, "model.mmoe.experts"),
        ({"balance": {"static": {"weights": {"click": 2.0}}}}, "balance.static.weights.click"),
        ({"data": {"valid_share": 0.2}}, "data.valid_share"),
    ],
)
def test_resume_with_another_config(
    configure: Configure, tmp_path: Path, change: dict[str, dict[str, Any]], keys: str
) -> None:
    run = tmp_path / "run"
    train_settings(configure(), run)
    before = _bytes(run)
    old = configure().table(run=True)

    other = configure(**{name: {**old[name], **values} for name, values in change.items()})
    with pytest.raises(RunError, match=rf"the config it began with\n.*{run} differs in {keys}\n") as caught:
        train_settings(other, run, resume=True)

    assert caught.value.exit_code == 2
    assert _bytes(run) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"valid": "log.parquet"}, "train data, valid data"),
        ({"test": "log.parquet"}, "test data"),
        ({"train": "elsewhere.parquet"}, "train data, valid data"),
    ],
)
def test_resume_with_other_data(
    configure: Configure, tmp_path: Path, feedback_log: Callable[..., Path], change: dict[str, str], named: str
) -> None:
    feedback_log(299, name="elsewhere.parquet")
    run = tmp_path / "run"
    train_settings(configure(), run)
    before = _bytes(run)

    with pytest.raises(RunError, match=rf"was made from: {named}\n.*its size or its time of change"):
        train_settings(configure(data=change), run, resume=True)

    assert _bytes(run) == before


def test_resume_with_the_same_data_at_another_place(configure: Configure, tmp_path: Path) -> None:
    """As after a move of the whole folder; `shutil.copy2` keeps the time of change."""
    settings, run = configure(), tmp_path / "run"
    metrics = train_settings(settings, run)
    (tmp_path / "moved").mkdir()
    for name in ("log.parquet", "schema.toml"):
        shutil.copy2(tmp_path / name, tmp_path / "moved" / name)

    with _no_training():
        assert train_settings(replace(settings, base=tmp_path / "moved"), run, resume=True) == metrics
    assert read_toml(run / "config.toml")["data"]["train"] == str(tmp_path / "moved/log.parquet")


def test_resume_with_a_key_taken_away(configure: Configure, tmp_path: Path) -> None:
    train_settings(configure(train={"epochs": 1, "embedding_learning_rate": 0.1}), tmp_path / "run")

    with pytest.raises(RunError, match=r"differs in train\.embedding_learning_rate\n"):
        train_settings(configure(train={"epochs": 1}), tmp_path / "run", resume=True)


def test_resume_with_another_architecture(configure: Configure, tmp_path: Path) -> None:
    train_settings(configure(model={"architecture": "cgc"}), tmp_path / "run")

    with pytest.raises(RunError, match=r"differs in model\.architecture, [^\n]*model\.mmoe\.experts, "):
        train_settings(configure(model={"architecture": "mmoe"}), tmp_path / "run", resume=True)


@pytest.mark.parametrize("what", ["rows", "schema", "valid"])
def test_resume_with_other_data_of_the_same_name(
    configure: Configure, tmp_path: Path, feedback_log: Callable[..., Path], what: str
) -> None:
    feedback_log(100, name="valid.parquet")
    settings, run = configure(data={"valid": "valid.parquet"}), tmp_path / "run"
    named = {"rows": "train data", "schema": "schema", "valid": "valid data"}[what]
    train_settings(settings, run)
    before = _bytes(run)

    if what == "schema":
        schema = load_schema(tmp_path / "schema.toml")
        save_schema(replace(schema, features=schema.features[:-1]), tmp_path / "schema.toml")
    else:
        feedback_log(299, seed=5, name="log.parquet" if what == "rows" else "valid.parquet")
    with pytest.raises(RunError, match=rf"only with the schema and the data it began with\n.*from: {named}\n"):
        train_settings(settings, run, resume=True)

    assert _bytes(run) == before


def test_a_run_that_never_began_may_change_its_mind(configure: Configure, tmp_path: Path) -> None:
    """Encoders and data are there, nothing is trained yet: they are simply made again."""
    run = tmp_path / "run"
    prepare(configure(), run, Silent(), test=False)

    settings = configure(data={"valid": "log.parquet"}, train={"epochs": 1})
    assert train_settings(settings, run)["rows"] == 300


def test_the_config_may_move(configure: Configure, tmp_path: Path) -> None:
    """Paths that are absolute mean the same from anywhere."""
    data = {"schema": str(tmp_path / "schema.toml"), "train": str(tmp_path / "log.parquet")}
    settings, run = configure(data=data), tmp_path / "run"
    metrics = train_settings(settings, run)

    with _no_training():
        assert train_settings(replace(settings, base=Path("/elsewhere")), run, resume=True) == metrics


def test_resume_of_a_finished_run_trains_nothing(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"
    metrics = train_settings(settings, run)
    before = _bytes(run)

    with _no_training():
        assert train_settings(settings, run, resume=True) == metrics

    after = _bytes(run)
    assert {name for name in before if before[name] != after[name]} <= {"environment.json"}
    assert before.keys() == after.keys()


def test_resume_of_nothing_begins(configure: Configure, tmp_path: Path) -> None:
    first = train_settings(configure(), tmp_path / "first")
    heard = Heard()

    assert train_settings(configure(), tmp_path / "second", resume=True, progress=heard) == first

    said = f"nothing to go on with in {tmp_path / 'second'}: starting anew"
    assert heard.lines == [said]
    train_settings(configure(), tmp_path / "second", resume=True, progress=heard)
    assert heard.lines == [said]


def test_every_call_of_a_run_is_remembered(configure: Configure, tmp_path: Path) -> None:
    settings, run, heard = configure(), tmp_path / "run", Heard()
    _cut_off_after(settings, run, 7)
    first = json.loads((run / "environment.json").read_text())

    train_settings(settings, run, resume=True, progress=heard)
    assert heard.lines == []
    with_two = replace(settings, train=replace(settings.train, threads=2))
    train_settings(with_two, run, resume=True, progress=heard)

    found = json.loads((run / "environment.json").read_text())
    resumed = found.pop("resumed")
    assert found == first
    assert [call["threads"] for call in resumed] == [1, 2]
    assert all(set(call) == {"command", "created", "threads"} for call in resumed)
    assert len(heard.lines) == 1
    assert "2 threads" in heard.lines[0]
    assert "not bit for bit" in heard.lines[0]


def test_the_precision_is_decided_once_a_run(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` measures, and beside other work a second measurement may come out otherwise."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": False, "avx512_bf16": True})
    settings, whole, run, heard = configure(), tmp_path / "whole", tmp_path / "run", Heard()
    monkeypatch.setattr("polyrank.training.precision.speedup", lambda: 2.0)
    train_settings(settings, whole)
    _cut_off_after(settings, run, 7)

    monkeypatch.setattr("polyrank.training.precision.speedup", lambda: 0.5)
    train_settings(settings, run, resume=True, progress=heard)
    assert heard.lines == []
    first, second = (load_checkpoint(of / "checkpoints/last.safetensors")["model"] for of in (whole, run))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("able", [True, False])
def test_a_run_in_bf16_says_where_that_is_slow(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    settings, run, heard = configure(train={"precision": "bf16"}), tmp_path / "run", Heard()
    _cut_off_after(settings, run, 7)

    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": able, "avx512_bf16": False})
    train_settings(settings, run, resume=True, progress=heard)
    assert len(heard.lines) == (0 if able else 1)
    assert able or "was begun in bf16 and goes on in it, several times slower" in heard.lines[0]


def test_one_process_a_run(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"
    _cut_off_after(settings, run, 7)
    left = run / ".config.toml.1.partial"
    left.write_text("the other process is writing this")
    before = _bytes(run)

    with locked(run), pytest.raises(RunError, match="another process is working in"):
        train_settings(settings, run, resume=True)

    assert _bytes(run) == before
    train_settings(settings, run, resume=True)
    assert not left.exists()


# ---------------------------------------------------------------------------------------------------- damaged runs


@pytest.mark.parametrize("place", [0, 9, 2_000, 0.5, -1])
def test_a_flipped_byte_in_the_last_checkpoint(configure: Configure, tmp_path: Path, place: float) -> None:
    settings, run = configure(), tmp_path / "run"
    _cut_off_after(settings, run, 7)
    path = run / "checkpoints/last.safetensors"
    data = bytearray(path.read_bytes())
    data[int(place * len(data)) if place == 0.5 else int(place)] ^= 1
    path.write_bytes(data)
    before = _bytes(run)

    with pytest.raises(RunError, match=r"a checkpoint must be whole[\s\S]*last\.safetensors") as caught:
        train_settings(settings, run, resume=True)

    assert caught.value.exit_code == 2
    changed = {name for name, content in _bytes(run).items() if content != before[name]}
    assert changed <= {"environment.json"}


def test_a_truncated_checkpoint(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"
    train_settings(settings, run)
    for name in ("best", "last"):
        path = run / f"checkpoints/{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(RunError, match=r"last\.safetensors"):
        train_settings(settings, run, resume=True)
    with pytest.raises(RunError, match=r"best\.safetensors"):
        load_run(run)


def test_load_run_says_what_is_wrong(configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"must be a directory that polyrank train made[\s\S]*run"):
        load_run(run)

    _cut_off_after(configure(), run, 2)
    with pytest.raises(RunError, match=r"a checkpoint must be there[\s\S]*train first"):
        load_run(run)  # it has not come to its first evaluation

    train_settings(configure(), run, resume=True)
    encoders = run / "encoders/encoders.json"
    encoders.write_text(encoders.read_text()[:-50])
    with pytest.raises(RunError, match=r"encoders\.json"):
        load_run(run)


def test_a_checkpoint_of_another_model(configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_settings(configure(), run)
    table = read_toml(run / "config.toml")
    table["model"]["mmoe"]["experts"] = 3
    write_toml(run / "config.toml", table)

    with pytest.raises(RunError, match=r"must fit the run's config and encoders[\s\S]*size mismatch"):
        load_run(run)


# ------------------------------------------------------------------------------------------------------- full disk


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes; as on a full disk, writing fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _assert_whole(run: Path) -> None:
    """Every file of the run can be read."""
    assert [path.name for path in run.rglob(".*")] == [".lock"]
    for name in ("best", "last"):
        load_checkpoint(run / f"checkpoints/{name}.safetensors")
    for line in (run / "history.jsonl").read_text().splitlines():
        json.loads(line)
    read_toml(run / "config.toml")
    load_schema(run / "schema.toml")
    json.loads((run / "environment.json").read_text())
    Encoders.load(run / "encoders", load_schema(run / "schema.toml"))


@pytest.mark.parametrize(
    ("name", "missing"),
    [("config.toml", 1), ("checkpoints/best.safetensors", 1_000), ("checkpoints/last.safetensors", 1_000)],
)
def test_a_disk_that_fills_up(configure: Configure, tmp_path: Path, name: str, missing: int) -> None:
    settings = configure(train={"epochs": 3, "learning_rate": 0.01, "batch_size": 64, "patience": 0})
    whole = train_settings(settings, tmp_path / "whole")
    run = tmp_path / "run"
    _cut_off_after(settings, run, 7)
    earlier = _bytes(run)
    with pytest.MonkeyPatch.context() as patch, _largest_file(len(earlier[name]) - missing):
        if "best" in name:  # better than all before: it is written
            patch.setattr(loop, "primary_metrics", lambda table: {"click": 1.5})
        with pytest.raises(StorageError, match=rf"cannot write .*{name}[\s\S]*File too large") as caught:
            train_settings(settings, run, resume=True)

    assert caught.value.exit_code == 1
    _assert_whole(run)
    after = _bytes(run)
    assert after[name] == earlier[name]
    assert after["checkpoints/last.safetensors"] == earlier["checkpoints/last.safetensors"]

    assert train_settings(settings, run, resume=True) == whole


def test_a_disk_that_is_full_from_the_start(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"

    with _largest_file(100), pytest.raises(StorageError):
        train_settings(settings, run)

    assert [path.name for path in run.rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.slow
def test_the_command_on_a_full_disk(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure(), tmp_path / "run"
    whole = train_settings(settings, tmp_path / "whole")
    _cut_off_after(settings, run, 7)
    earlier = _bytes(run)
    write_toml(tmp_path / "config.toml", settings.table(run=True))
    limit = len(earlier["checkpoints/last.safetensors"]) - 1_000
    script = (
        f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "runpy.run_module('polyrank.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", script, "train", str(tmp_path / "config.toml"), "--out", str(run), "--resume"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "last.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    _assert_whole(run)
    assert _bytes(run)["checkpoints/last.safetensors"] == earlier["checkpoints/last.safetensors"]
    assert train_settings(settings, run, resume=True) == whole


# ------------------------------------------------------------------------------------------- data, tasks and models


def test_parts_that_are_not_given_are_the_latest_rows(configure: Configure, feedback_schema: Any) -> None:
    settings = configure(data={"valid_share": 0.2})

    parts = open_parts(settings, feedback_schema(), test=False)
    assert {name: part.count_rows() for name, part in parts.items()} == {"train": 240, "valid": 60}

    parts = open_parts(settings, feedback_schema(), test=True)
    assert {name: part.count_rows() for name, part in parts.items()} == {"train": 210, "valid": 60, "test": 30}
    latest = [batch["time_ms"].to_numpy().max() for part in parts.values() for batch in part.batches(["time_ms"])]
    assert latest == sorted(latest)


def test_parts_that_are_given_are_whole(
    configure: Configure, feedback_schema: Any, feedback_log: Callable[..., Path]
) -> None:
    feedback_log(50, name="valid.parquet")
    feedback_log(40, name="test.parquet")

    both = open_parts(configure(data={"valid": "valid.parquet", "test": "test.parquet"}), feedback_schema(), test=False)
    assert {name: part.count_rows() for name, part in both.items()} == {"train": 300, "valid": 50, "test": 40}

    one = open_parts(configure(data={"valid": "valid.parquet"}), feedback_schema(), test=True)
    assert {name: part.count_rows() for name, part in one.items()} == {"train": 270, "valid": 50, "test": 30}


def test_without_a_clock_rows_are_drawn(configure: Configure, feedback_schema: Any) -> None:
    parts = open_parts(configure(), replace(feedback_schema(), time=""), test=False)

    assert sum(part.count_rows() for part in parts.values()) == 300
    assert 15 < parts["valid"].count_rows() < 50


def test_data_without_a_column_is_refused_by_its_part(
    configure: Configure,
    tmp_path: Path,
    feedback_table: Callable[..., pa.Table],
    write_table: Callable[[pa.Table, Path], Path],
) -> None:
    write_table(feedback_table(50).drop_columns(["is_like"]), tmp_path / "valid.parquet")
    write_table(feedback_table(300).drop_columns(["time_ms"]), tmp_path / "timeless.parquet")

    with pytest.raises(DataError, match=r"valid data .*valid\.parquet must have the column 'is_like'"):
        prepare(configure(data={"valid": "valid.parquet"}), tmp_path / "run", Silent(), test=False)
    with pytest.raises(DataError, match=r"train data .*timeless\.parquet must have the column 'time_ms'"):
        prepare(configure(data={"train": "timeless.parquet"}), tmp_path / "run", Silent(), test=False)
    assert not (tmp_path / "run").exists()


def test_preparing_again_reads_nothing(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(configure(), tmp_path / "run", Silent(), test=True)
    monkeypatch.setattr(Encoders, "fit", None)
    monkeypatch.setattr(Encoders, "encode", None)

    again = prepare(configure(), tmp_path / "run", Silent(), test=True)

    assert list(again.parts) == ["train", "valid", "test"]
    for name, part in first.parts.items():
        np.testing.assert_array_equal(again.parts[name].ids, part.ids)


def test_the_leak_guard_speaks_unless_it_is_told_not_to(
    configure: Configure, tmp_path: Path, feedback_schema: Any, feedback_table: Any, write_table: Any
) -> None:
    table = feedback_table(300)
    write_table(table.set_column(3, "price", table["is_click"].cast(pa.float64())), tmp_path / "log.parquet")

    heard = Heard()
    prepare(configure(), tmp_path / "run", heard, test=False)
    assert [line for line in heard.lines if "'price' alone predicts 'click' with AUC 1.0000" in line]

    heard = Heard()
    prepare(configure(data={"leak_guard": False}), tmp_path / "other", heard, test=False)
    assert heard.lines == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"tasks": ["clik"]}}, r"data\.tasks must name tasks of the schema[\s\S]*did you mean 'click'"),
        ({"data": {"tasks": ["click", "click"]}}, r"data\.tasks must name each task once"),
        ({"train": {"metric": "clik"}}, r"train\.metric must be 'mean' or a task that is trained[\s\S]*mean 'click'"),
        ({"data": {"tasks": ["click"]}, "train": {"metric": "like"}}, r"train\.metric must be 'mean' or a task"),
        ({"model": {"architecture": "single_task"}}, r"'single_task' must suit the data[\s\S]*for one task"),
        (
            {"model": {"architecture": "pepnet", "pepnet": {"domain": ["categry"]}}},
            r"'pepnet' must suit the data[\s\S]*'categry'; did you mean 'category'",
        ),
        (
            {"balance": {"static": {"weights": {"clik": 2.0}}}},
            r"\[balance\.static\.weights\] must name tasks[\s\S]*clik[\s\S]*did you mean 'click'",
        ),
        (
            {"data": {"tasks": ["click"]}, "balance": {"static": {"weights": {"like": 2.0}}}},
            r"\[balance\.static\.weights\] must name tasks that are trained",
        ),
    ],
)
def test_tasks_that_do_not_fit(
    configure: Configure, tmp_path: Path, sections: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(PolyrankError, match=message) as caught:
        train_settings(configure(**sections), tmp_path / "run")

    assert isinstance(caught.value, ConfigError)


def test_balance_weights_are_checked_before_anything_is_encoded(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoders, "fit", None)

    with pytest.raises(ConfigError, match="must name tasks"):
        train_settings(configure(balance={"static": {"weights": {"clik": 2.0}}}), tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_a_ranker_is_for_the_tasks_of_the_config(configure: Configure, tmp_path: Path) -> None:
    settings = configure(data={"tasks": ["watch", "click"]})
    prepared = prepare(settings, tmp_path / "run", Silent(), test=False)

    ranker = build_ranker(prepared.schema, prepared.encoders, settings, tmp_path / "run")

    assert ranker.heads.kinds == ["regression", "binary"]
    watch = prepared.encoders.statistics[2]
    assert ranker.heads.mean.tolist() == pytest.approx([watch.mean, 0.0])
    assert ranker.heads.std.tolist() == pytest.approx([watch.std, 1.0])


def test_threads_are_set(configure: Configure, tmp_path: Path) -> None:
    train_settings(configure(train={"epochs": 1, "threads": 2}), tmp_path / "run")

    assert torch.get_num_threads() == 2
