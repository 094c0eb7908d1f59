"""A task is added to a trained run: what must stay the same does, to the bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from polyrank.config import write_toml
from polyrank.data.encoders import Encoders
from polyrank.data.schema import load_schema, save_schema
from polyrank.errors import ConfigError, RunError
from polyrank.experiment import score, train_settings
from polyrank.runs import load_run
from polyrank.settings import parse_settings
from polyrank.training.checkpoint import load_checkpoint

OLD = ["click", "like"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, feedback_table, feedback_schema):
    """A directory with a log, its schema, and a run of click and like."""
    folder = tmp_path_factory.mktemp("warm")
    pq.write_table(feedback_table(300, 1), folder / "log.parquet")
    pq.write_table(feedback_table(120, 2), folder / "valid.parquet")
    save_schema(feedback_schema(), folder / "schema.toml")
    train_settings(settings(folder, tasks=OLD), folder / "old")
    return folder


def settings(folder, *, tasks=(), schema="schema.toml", train="log.parquet", architecture="ple", **keys):
    model = {"architecture": architecture, "embedding_width": 4, "embedding_dropout": 0.2, "towers": [8]}
    data = {"schema": schema, "train": train, "valid": "valid.parquet", "tasks": list(tasks), "leak_guard": False}
    table = {
        "data": data,
        "model": model | {architecture: {"widths": [16], "dropout": 0.2}} | keys.pop("model", {}),
        "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01, "patience": 0} | keys,
    }
    return parse_settings(table, folder)


def extended(place, out, **keys):
    return train_settings(settings(place, warm_start="old", **keys), out)


def predictions(run, data, names):
    out = run / "scores.parquet"
    score(run, str(data), out)
    table = pq.read_table(out)
    return np.stack([table[f"p_{name}"].to_numpy() for name in names], axis=1)


@pytest.mark.parametrize("architecture", ["shared_bottom", "mmoe", "cgc", "ple"])
def test_frozen_the_old_model_keeps_every_bit(place, tmp_path, architecture):
    old = place / f"old-{architecture}"
    train_settings(settings(place, tasks=OLD, architecture=architecture), old)
    new = tmp_path / "new"
    train_settings(settings(place, architecture=architecture, warm_start=str(old), freeze="shared"), new)

    before = load_checkpoint(old / "checkpoints/best.safetensors")["model"]
    after = load_checkpoint(new / "checkpoints/last.safetensors")["model"]
    assert before
    for name, value in before.items():
        assert torch.equal(after[f"base.{name}"], value), name
    found, was = (predictions(run, place / "valid.parquet", OLD) for run in (new, old))
    np.testing.assert_allclose(found, was, rtol=0, atol=1e-6)  # the last bit is a matter of where memory lies
    assert load_run(new).ranker.branch.gate.any(), "the new gate left its zeros"
    history = [json.loads(line) for line in (new / "history.jsonl").read_text().splitlines()]
    assert history[-1]["train_loss"]["watch"] < history[0]["train_loss"]["watch"]


def test_not_frozen_all_is_trained_from_the_old_weights(place, tmp_path):
    extended(place, tmp_path / "new", learning_rate=1e-6, epochs=1)
    extended(place, tmp_path / "far", epochs=1)
    before = load_checkpoint(place / "old/checkpoints/best.safetensors")["model"]
    near, far = (load_checkpoint(tmp_path / run / "checkpoints/last.safetensors")["model"] for run in ("new", "far"))
    for name, value in before.items():
        if value.dtype.is_floating_point and "heads" not in name and value.numel() > 1:
            torch.testing.assert_close(near[f"base.{name}"], value, rtol=0, atol=1e-3)
            assert not torch.equal(far[f"base.{name}"], value), name


def test_the_new_run_needs_the_old_one_no_more(place, tmp_path):
    shutil.copytree(place, tmp_path / "place")
    extended(tmp_path / "place", tmp_path / "new", freeze="shared")
    names = [*OLD, "watch"]
    found = predictions(tmp_path / "new", place / "valid.parquet", names)
    shutil.rmtree(tmp_path / "place/old")
    again = predictions(tmp_path / "new", place / "valid.parquet", names)
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_vocabularies_and_old_statistics_are_those_of_the_old_run(place, tmp_path, feedback_table):
    """The new data has videos and users that the old model never saw, and other label means."""
    pq.write_table(feedback_table(90, 7), place / "other.parquet")
    extended(place, tmp_path / "new", train="other.parquet", freeze="shared")
    schema = load_schema(place / "schema.toml")
    old, new = Encoders.load(place / "old/encoders", schema), Encoders.load(tmp_path / "new/encoders", schema)
    assert new.digest == old.digest
    assert new.statistics[:2] == old.statistics[:2]
    assert new.statistics[2].rows < 90 < old.statistics[2].rows


def test_killed_and_resumed_is_uninterrupted(place, tmp_path):
    extended(place, tmp_path / "whole", epochs=3)
    run = tmp_path / "cut"
    extended(place, run, epochs=3)
    again = settings(place, warm_start="old", epochs=3)
    (run / "metrics.json").unlink()
    train_settings(again, run, resume=True)
    one, other = (load_checkpoint(tmp_path / r / "checkpoints/last.safetensors")["model"] for r in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_gates_name_what_they_mix(place, tmp_path):
    extended(place, tmp_path / "new", freeze="shared")
    run = load_run(tmp_path / "new")
    from polyrank.data.loader import as_batch
    from polyrank.data.readers import open_source

    [chunk] = open_source(place / "valid.parquet").batches(run.schema.columns(labels=True))
    batch = as_batch(run.encoders.encode(chunk), run.schema)
    gate = run.ranker.gates(batch)[-1]
    assert (gate.level, gate.owner) == (1, 2)
    assert gate.experts == ((2, 0), (2, 1), (0, 0), (1, 0))
    torch.testing.assert_close(gate.weights.sum(dim=1), torch.ones(batch.rows))


class TestRefused:
    def refused(self, place, tmp_path, error, match, **keys):
        with pytest.raises(error, match=match):
            train_settings(settings(place, **({"warm_start": "old"} | keys)), tmp_path / "new")
        assert not (tmp_path / "new/config.toml").exists()

    def test_a_run_that_is_none(self, place, tmp_path):
        self.refused(place, tmp_path, RunError, "must name a finished run", warm_start="nowhere")

    def test_no_new_task(self, place, tmp_path):
        self.refused(place, tmp_path, ConfigError, "adds tasks", tasks=OLD)

    def test_old_tasks_not_first(self, place, tmp_path):
        self.refused(place, tmp_path, ConfigError, "come first", tasks=["watch", *OLD])

    def test_another_model(self, place, tmp_path):
        match = r"keeps the old model[\s\S]*model.towers = \[4\], and \[8\] there"
        self.refused(place, tmp_path, ConfigError, match, model={"towers": [4]})

    @pytest.mark.parametrize(
        ("old", "new", "match"),
        [
            ('kind = "number"\nbins = 8', 'kind = "number"\nbins = 9', r"feature 'price' has bins = 9, and 8 there"),
            ('name = "tags"', 'name = "labels"\ncolumn = "tags"', "feature 'tags' is missing"),
            ('column = "is_like"', 'column = "is_click"', "task 'like' has column"),
        ],
    )
    def test_vocabularies_or_tasks_that_cannot_match(self, place, tmp_path, old, new, match):
        text = (place / "schema.toml").read_text()
        assert old in text
        (place / "changed.toml").write_text(text.replace(old, new))
        self.refused(place, tmp_path, ConfigError, match, schema="changed.toml")

    def test_a_model_that_was_extended_already(self, place, tmp_path):
        extended(place, tmp_path / "once", freeze="shared")
        self.refused(place, tmp_path, RunError, "trained as one", warm_start=str(tmp_path / "once"))

    def test_an_ensemble(self, place, tmp_path):
        model = {"ensemble": {"members": 2}}
        train_settings(settings(place, tasks=OLD, model=model, epochs=1), tmp_path / "two")
        warm_start = str(tmp_path / "two")
        self.refused(place, tmp_path, ConfigError, "takes one model over", warm_start=warm_start, model=model)

    def test_freeze_without_a_model(self, place):
        with pytest.raises(ConfigError, match=r"train\.freeze keeps what train\.warm_start brings"):
            settings(place, freeze="shared")


def test_knobs_of_the_extension(place, tmp_path):
    extended(place, tmp_path / "new", freeze="shared", epochs=1, model={"extension": {"experts": 3, "widths": [5, 7]}})
    ranker = load_run(tmp_path / "new").ranker
    assert ranker.branch.gate.shape[1] == 3 + 2
    assert next(ranker.branch.experts.parameters()).shape[1] == 3 * 5


def test_from_the_command_line(place, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from polyrank.cli import app

    config = settings(place).table(run=True)
    write_toml(tmp_path / "config.toml", config)
    monkeypatch.chdir(place)
    places = [str(tmp_path / "config.toml"), "--out", str(tmp_path / "new")]
    result = CliRunner().invoke(app, ["train", *places, "--warm-start", "old", "--freeze"])
    assert result.exit_code == 0, result.output
    saved = load_run(tmp_path / "new").settings.train
    assert (saved.warm_start, saved.freeze) == (str(Path(place / "old").absolute()), "shared")
