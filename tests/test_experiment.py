"""The verbs, from files to files, on a small feedback log with a signal in it."""

import json
import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from polyrank import experiment
from polyrank.data.loader import as_batch
from polyrank.data.schema import load_schema
from polyrank.data.store import encode_to
from polyrank.errors import ConfigError, DataError, RunError, StorageError
from polyrank.evaluation.predict import predict
from polyrank.metrics.ranking import auc
from polyrank.progress import Silent
from polyrank.runs import load_run
from polyrank.training.checkpoint import load_checkpoint

CONFIG = """
[data]
schema = "schema.toml"
train = "train.parquet"
valid = "valid.parquet"
test = "test.parquet"
leak_guard = false
[model]
embedding_width = 4
towers = [4]
embedding_dropout = 0.1
[model.mmoe]
experts = 2
widths = [8]
[train]
epochs = 4
batch_size = 64
learning_rate = 0.02
threads = 1
"""
LABELS = ["is_click", "is_like", "play_time"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_experiment):
    return write_experiment(tmp_path_factory.mktemp("experiment"), CONFIG, {"train": 1200, "valid": 300, "test": 400})


@pytest.fixture(scope="module")
def trained(folder):
    """A run, and what training said of it."""
    out = folder / "run"
    return out, experiment.train(folder / "config.toml", [], out, resume=False)


def test_train_writes_a_run(trained):
    run, document = trained
    for name in ("config.toml", "schema.toml", "history.jsonl", "environment.json", "encoders/encoders.json"):
        assert (run / name).is_file()
    assert json.loads((run / "metrics.json").read_text()) == document
    assert (document["format"], document["data"], document["rows"]) == (1, "test", 400)
    assert list(document["tasks"]) == ["click", "like", "watch"]
    assert document["tasks"]["click"]["auc"] > 0.6
    assert not list(run.rglob("*.partial"))


def test_train_counts_each_tasks_own_rows(trained, folder):
    _, document = trained
    test = pq.read_table(folder / "test.parquet")
    click = test["is_click"].to_numpy() == 1
    like = test["is_like"].fill_null(-1).to_numpy()
    tasks = document["tasks"]
    assert (tasks["click"]["rows"], tasks["click"]["positives"]) == (400, click.sum())
    assert (tasks["like"]["rows"], tasks["like"]["positives"]) == (
        (click & (like >= 0)).sum(),
        (click & (like == 1)).sum(),
    )
    assert tasks["watch"]["rows"] == click.sum()


def test_train_says_what_each_task_was_best_at(trained):
    run, document = trained
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    best = next(line for line in history if line["step"] == document["bests"]["overall"]["step"])
    assert document["bests"]["overall"]["valid"] == best["valid"]
    for task, own in document["bests"]["per_task"].items():
        assert own["valid"] == max(line["valid"][task] for line in history)
        assert set(own) == {"step", "valid"}


def test_each_task_can_be_measured_with_the_weights_that_were_best_for_it(folder, tmp_path):
    out = tmp_path / "run"
    document = experiment.train(folder / "config.toml", ["train.best_per_task=true"], out, resume=False)
    for task, own in document["bests"]["per_task"].items():
        assert own["metrics"]["rows"] == document["tasks"][task]["rows"]
        if own["step"] == document["bests"]["overall"]["step"]:
            assert own["metrics"] == document["tasks"][task]
    assert experiment.evaluate(out, str(folder / "test.parquet"))["tasks"] == document["tasks"]


def test_tree_leaves_are_part_of_the_run(folder, tmp_path):
    out = tmp_path / "run"
    sets = ["data.leaves.trees=3", "data.leaves.leaves=4", "data.leaves.folds=2", "train.epochs=1"]
    document = experiment.train(folder / "config.toml", sets, out, resume=False)
    assert experiment.evaluate(out, str(folder / "test.parquet"))["tasks"] == document["tasks"]
    assert experiment.score(out, str(folder / "test.parquet"), tmp_path / "scores.parquet") == 400
    with pytest.raises(RunError, match="the config it began with"):
        experiment.train(folder / "config.toml", [*sets, "data.leaves.trees=4"], out, resume=True)


def test_train_without_test_data_measures_on_valid(folder, tmp_path):
    document = experiment.train(
        folder / "config.toml", ["data.test=''", "train.epochs=1"], tmp_path / "run", resume=False
    )
    assert (document["data"], document["rows"]) == ("valid", 300)


def test_train_refuses_a_directory_that_holds_a_run(trained, folder):
    run, document = trained
    with pytest.raises(RunError, match="a new run needs a directory of its own") as raised:
        experiment.train(folder / "config.toml", [], run, resume=False)
    assert "--resume" in raised.value.mend
    with pytest.raises(RunError, match="the config it began with"):
        experiment.train(folder / "config.toml", ["train.seed=1"], run, resume=True)
    assert experiment.train(folder / "config.toml", [], run, resume=True) == document


def test_a_single_task_learns_from_its_sample_space_only(folder, tmp_path):
    """Watch times outside the clicks are poisoned in every part: nothing that was learned or measured may change."""
    other = tmp_path / "poisoned"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("run"))
    for part in ("train", "valid", "test"):
        table = pq.read_table(other / f"{part}.parquet")
        click = table["is_click"].to_numpy() == 1
        watch = np.where(click, table["play_time"].fill_null(0).to_numpy(), 1e9)
        assert (watch == 1e9).any()
        place = table.column_names.index("play_time")
        pq.write_table(table.set_column(place, "play_time", pa.array(watch)), other / f"{part}.parquet")
    sets = ["model.architecture=single_task", "data.tasks=['watch']", "train.epochs=1", "model.single_task.widths=[8]"]
    documents = [
        experiment.train(base / "config.toml", sets, tmp_path / name, resume=False)
        for name, base in (("clean", folder), ("dirty", other))
    ]
    assert list(documents[0]["tasks"]) == ["watch"]
    assert documents[0] == documents[1]
    clean, dirty = (
        load_checkpoint(tmp_path / name / "checkpoints/best.safetensors")["model"] for name in ("clean", "dirty")
    )
    assert all(clean[name].equal(dirty[name]) for name in clean)


def test_evaluate_gives_the_numbers_of_training(trained, folder, tmp_path):
    run, document = trained
    out = tmp_path / "metrics.json"
    found = experiment.evaluate(run, str(folder / "test.parquet"), out)
    measured = {key: value for key, value in document.items() if key != "bests"}
    assert found == measured | {"data": str(folder / "test.parquet")}
    assert json.loads(out.read_text()) == found
    own = (run / "metrics.json").read_bytes()
    with pytest.raises(ConfigError, match="--out must not be a file of the run"):
        experiment.evaluate(run, str(folder / "test.parquet"), run / "metrics.json")
    assert (run / "metrics.json").read_bytes() == own


def test_evaluate_is_on_the_data_it_is_given(trained, folder, tmp_path, write_table):
    run, _ = trained
    rows = pq.read_table(folder / "test.parquet").slice(0, 50)
    found = experiment.evaluate(run, str(write_table(rows, tmp_path / "few.parquet")))
    assert found["rows"] == 50
    experiment.score(run, str(tmp_path / "few.parquet"), tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")["p_click"].to_numpy()
    assert found["tasks"]["click"]["auc"] == auc(scores, rows["is_click"].to_numpy())


def test_evaluate_needs_no_clock(trained, folder, tmp_path, write_table):
    run, document = trained
    timeless = write_table(pq.read_table(folder / "test.parquet").drop_columns("time_ms"), tmp_path / "log.parquet")
    assert experiment.evaluate(run, str(timeless))["tasks"] == document["tasks"]


def test_evaluate_encodes_inside_the_run_and_leaves_nothing(trained, folder, monkeypatch):
    run, _ = trained
    before, places = sorted(run.rglob("*")), []

    def noted(directory, *arguments):
        places.append(directory)
        return encode_to(directory, *arguments)

    monkeypatch.setattr("polyrank.experiment.encode_to", noted)
    experiment.evaluate(run, str(folder / "test.parquet"))
    (place,) = places
    assert run in place.parents
    assert sorted(run.rglob("*")) == before


def test_nothing_writes_over_what_it_reads(trained, folder, tmp_path, monkeypatch):
    run, _ = trained
    log = tmp_path / "logs/log.parquet"
    log.parent.mkdir()
    shutil.copy(folder / "test.parquet", log)
    (tmp_path / "link.parquet").symlink_to(log)
    monkeypatch.chdir(tmp_path)
    before = log.read_bytes()
    for data in (log, "logs", "logs/*.parquet", "link.parquet"):
        for out in (log, Path("logs/../logs/log.parquet"), Path("link.parquet")):
            with pytest.raises(ConfigError, match="must not be a file that is read"):
                experiment.score(run, str(data), out)
    with pytest.raises(ConfigError, match="must not be a file that is read"):
        experiment.evaluate(run, str(log), log)
    with pytest.raises(ConfigError, match="must not be a file that is read"):
        experiment.make_profile(str(log), str(folder / "schema.toml"), None, log)
    assert log.read_bytes() == before
    assert experiment.score(run, "logs", Path("logs/scores.parquet")) == 400


def test_evaluate_survives_a_task_without_labels(trained, folder, tmp_path, write_table):
    run, _ = trained
    table = pq.read_table(folder / "test.parquet")
    table = table.set_column(table.column_names.index("is_like"), "is_like", pa.nulls(len(table), pa.int8()))
    found = experiment.evaluate(run, str(write_table(table, tmp_path / "log.parquet")))["tasks"]
    assert (found["like"]["rows"], found["like"]["auc"]) == (0, None)
    assert found["click"]["auc"] > 0.6


def scores_of(run, data, out):
    experiment.score(run, str(data), out)
    return pq.read_table(out)


class TestScore:
    def test_columns(self, trained, folder, tmp_path):
        scores = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        names = ["p_click", "p_like", "p_watch", "joint_like"]
        assert scores.schema == pa.schema([(name, pa.float32()) for name in names])
        assert len(scores) == 400
        for name in ("p_click", "p_like", "joint_like"):
            values = scores[name].to_numpy()
            assert ((values > 0) & (values < 1)).all()

    def test_a_joint_probability_is_the_product_and_is_judged_on_all_rows(self, trained, folder, tmp_path):
        run, document = trained
        scores = scores_of(run, folder / "test.parquet", tmp_path / "s.parquet")
        joint = scores["joint_like"].to_numpy()
        np.testing.assert_allclose(joint, scores["p_click"].to_numpy() * scores["p_like"].to_numpy(), rtol=1e-6)
        log = pq.read_table(folder / "test.parquet")
        click, like = log["is_click"].to_numpy(), log["is_like"].to_numpy()  # NaN where it was not logged
        label = np.where(click == 0, 0.0, like)
        known = ~np.isnan(label)
        found = document["joint"]["like"]
        assert found["rows"] == known.sum() > document["tasks"]["like"]["rows"] == (known & (click == 1)).sum()
        assert found["auc"] == auc(joint[known], label[known])
        assert list(document["joint"]) == ["like"]

    def test_regression_is_in_the_labels_unit(self, trained, folder, tmp_path):
        scores = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        watch = pq.read_table(folder / "train.parquet")["play_time"]  # milliseconds, about 4,500
        assert scores["p_watch"].to_numpy().mean() == pytest.approx(pc.mean(watch).as_py(), rel=0.25)

    def test_row_order_is_kept(self, trained, folder, tmp_path, write_table):
        straight = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        order = np.random.default_rng(0).permutation(400)
        shuffled = write_table(pq.read_table(folder / "test.parquet").take(order), tmp_path / "log.parquet")
        found = scores_of(trained[0], shuffled, tmp_path / "t.parquet")
        for name in straight.column_names:
            before, after = straight[name].to_numpy(), found[name].to_numpy()
            np.testing.assert_allclose(after, before[order], rtol=1e-5)
            assert not np.allclose(after, before, rtol=1e-3)

    def test_twice_is_the_same_file(self, trained, folder, tmp_path):
        for name in ("a.parquet", "b.parquet"):
            experiment.score(trained[0], str(folder / "test.parquet"), tmp_path / name)
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()

    def test_labels_are_not_needed_and_not_read(self, trained, folder, tmp_path, write_table):
        straight = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        table = pq.read_table(folder / "test.parquet")
        bare = write_table(table.drop_columns([*LABELS, "time_ms"]), tmp_path / "bare.parquet")
        assert scores_of(trained[0], bare, tmp_path / "t.parquet").equals(straight)
        lies = table.set_column(table.column_names.index("is_click"), "is_click", pa.array(["?"] * 400))
        assert scores_of(trained[0], write_table(lies, tmp_path / "l.parquet"), tmp_path / "u.parquet").equals(straight)

    def test_many_files_in_the_order_of_their_names(self, trained, folder, tmp_path, write_table):
        straight = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        table = pq.read_table(folder / "test.parquet")
        for name, first, end in (("b", 150, 390), ("a", 0, 150), ("c", 390, 400)):
            write_table(table.slice(first, end - first), tmp_path / f"logs/part-{name}.parquet")
        found = scores_of(trained[0], tmp_path / "logs", tmp_path / "t.parquet")
        for name in straight.column_names:
            np.testing.assert_allclose(found[name].to_numpy(), straight[name].to_numpy(), rtol=1e-5)

    def test_one_row(self, trained, folder, tmp_path, write_table):
        straight = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        row = write_table(pq.read_table(folder / "test.parquet").slice(37, 1), tmp_path / "row.parquet")
        found = scores_of(trained[0], row, tmp_path / "t.parquet")
        assert len(found) == 1
        for name in straight.column_names:
            assert found[name][0].as_py() == pytest.approx(straight[name][37].as_py(), rel=1e-5)

    def test_empty_missing_and_unseen_values(self, trained, folder, tmp_path, write_table):
        table = pq.read_table(folder / "test.parquet").slice(0, 3)
        strange = {
            "tags": pa.array(["", None, "never,seen"]),
            "history": pa.array([[], None, [-5, None]], pa.list_(pa.int64())),
            "category": pa.array([None, "", "new"], pa.string()),
            "price": pa.array([None, math.nan, math.inf]),
            "video_id": pa.array([-1, None, 2**62]),
        }
        for name, column in strange.items():
            table = table.set_column(table.column_names.index(name), name, column)
        scores = scores_of(trained[0], write_table(table, tmp_path / "log.parquet"), tmp_path / "s.parquet")
        assert all(np.isfinite(column.to_numpy()).all() for column in scores.columns)

    def test_a_missing_feature_is_said_before_anything_is_scored(self, trained, folder, tmp_path, write_table):
        # CSV holds no lists: a history is not to be had from it.
        table = pq.read_table(folder / "test.parquet").drop_columns("history")
        with pytest.raises(DataError, match="must have the column 'history'"):
            scores_of(trained[0], write_table(table, tmp_path / "log.csv"), tmp_path / "s.parquet")
        assert not (tmp_path / "s.parquet").exists()

    def test_more_rows_than_a_chunk(self, trained, folder, tmp_path, monkeypatch):
        straight = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        monkeypatch.setattr("polyrank.data.readers.Source.batches.__defaults__", (64,))
        found = scores_of(trained[0], folder / "test.parquet", tmp_path / "t.parquet")
        assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 7
        for name in straight.column_names:
            np.testing.assert_allclose(found[name].to_numpy(), straight[name].to_numpy(), rtol=1e-5)

    @pytest.mark.parametrize(("rows", "chunk", "batch"), [(400, 64, 8_192), (129, 64, 32), (385, 131_072, 128)])
    def test_streaming_is_prediction_in_memory(
        self, trained, folder, tmp_path, write_table, monkeypatch, rows, chunk, batch
    ):
        """Chunks and row groups that end anywhere; among the last batches some of one row."""
        table = pq.read_table(folder / "test.parquet").slice(0, rows)
        pq.write_table(table, tmp_path / "log.parquet", row_group_size=50)
        run = load_run(trained[0])
        encoded = run.encoders.encode(table.combine_chunks().to_batches()[0], labels=False)
        whole = predict(run.ranker, [as_batch(encoded, run.schema)], 3)
        monkeypatch.setattr("polyrank.data.readers.Source.batches.__defaults__", (chunk,))
        monkeypatch.setattr("polyrank.scoring.EVALUATION_BATCH", batch)
        scores = scores_of(trained[0], tmp_path / "log.parquet", tmp_path / "s.parquet")
        for column, expected in zip(scores.columns[:3], whole.T, strict=True):
            np.testing.assert_allclose(column.to_numpy(), expected, rtol=1e-5)

    def test_an_error_in_the_middle_leaves_nothing(self, trained, folder, tmp_path, monkeypatch):
        table = pq.read_table(folder / "test.parquet")
        prices = table["video_id"].to_numpy().astype(float) % 1000
        prices[300] = 0.5  # an id that is not whole, in the fifth chunk
        broken = table.set_column(1, "video_id", pa.array(prices))
        pq.write_table(broken, tmp_path / "log.parquet", row_group_size=64)
        monkeypatch.setattr("polyrank.data.readers.Source.batches.__defaults__", (64,))
        scored = Silent()
        monkeypatch.setattr(scored, "advance", lambda rows, note="": done.append(rows))
        done = []
        with pytest.raises(DataError, match=r"column 'video_id' holds .*0\.5"):
            experiment.score(trained[0], str(tmp_path / "log.parquet"), tmp_path / "s.parquet", scored)
        assert done == [64] * 4
        assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
        assert not [thread for thread in threading.enumerate() if thread.name == "polyrank-prefetch"]

    def test_only_the_tasks_that_were_trained(self, folder, tmp_path):
        sets = ["data.tasks=['watch', 'click']", "train.epochs=1"]
        document = experiment.train(folder / "config.toml", sets, tmp_path / "run", resume=False)
        assert list(document["tasks"]) == ["watch", "click"]
        scores = scores_of(tmp_path / "run", folder / "test.parquet", tmp_path / "s.parquet")
        assert scores.column_names == ["p_watch", "p_click"]
        assert "joint" not in document
        assert scores["p_watch"].to_numpy().mean() > 1_000
        truth = pq.read_table(folder / "test.parquet")["is_click"].to_numpy()
        assert auc(scores["p_click"].to_numpy(), truth) == document["tasks"]["click"]["auc"]

    def test_the_run_may_move(self, trained, folder, tmp_path):
        straight = scores_of(trained[0], folder / "test.parquet", tmp_path / "s.parquet")
        shutil.copytree(trained[0], tmp_path / "elsewhere")
        shutil.rmtree(tmp_path / "elsewhere/encoded")
        assert scores_of(tmp_path / "elsewhere", folder / "test.parquet", tmp_path / "t.parquet").equals(straight)

    def test_an_older_file_survives_a_failure(self, trained, folder, tmp_path, write_table):
        out = tmp_path / "s.parquet"
        out.write_bytes(b"precious")
        table = pq.read_table(folder / "test.parquet")
        broken = table.set_column(1, "video_id", pa.array(np.full(400, 0.5)))
        with pytest.raises(DataError, match="whole numbers"):
            experiment.score(trained[0], str(write_table(broken, tmp_path / "log.parquet")), out)
        assert out.read_bytes() == b"precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "s.parquet"]

    def test_progress_counts_every_row(self, trained, folder, tmp_path):
        class Counting(Silent):
            rows = 0

            def advance(self, rows, note=""):
                self.rows += rows

        progress = Counting()
        assert experiment.score(trained[0], str(folder / "test.parquet"), tmp_path / "s.parquet", progress) == 400
        assert progress.rows == 400

    def test_refusals(self, trained, folder, tmp_path):
        data = str(folder / "test.parquet")
        with pytest.raises(ConfigError, match="scores are written as Parquet"):
            experiment.score(trained[0], data, tmp_path / "scores.csv")
        with pytest.raises(RunError, match="a directory that polyrank train made"):
            experiment.score(tmp_path, data, tmp_path / "s.parquet")
        with pytest.raises(StorageError, match="cannot write"):
            experiment.score(trained[0], data, folder / "config.toml" / "s.parquet")
        with pytest.raises(DataError):
            experiment.score(trained[0], str(folder / "absent.parquet"), tmp_path / "s.parquet")


class TestInfer:
    def test_writes_what_it_returns(self, folder, tmp_path):
        out = tmp_path / "schema.toml"
        text = experiment.infer(str(folder / "train.parquet"), out)
        assert out.read_text() == text == experiment.infer(str(folder / "train.parquet"), None)
        assert {"is_click", "is_like"} <= {task.source for task in load_schema(out).tasks}

    def test_never_overwrites(self, folder, tmp_path):
        out = tmp_path / "schema.toml"
        out.write_text("mine")
        with pytest.raises(ConfigError, match="does not overwrite"):
            experiment.infer(str(folder / "train.parquet"), out)
        assert out.read_text() == "mine"

    def test_what_it_proposes_can_be_trained(self, folder, tmp_path):
        schema = tmp_path / "schema.toml"
        experiment.infer(str(folder / "train.parquet"), schema)
        document = experiment.train(
            folder / "config.toml", [f"data.schema={schema}", "train.epochs=1"], tmp_path / "run", resume=False
        )
        assert set(document["tasks"]) == set(load_schema(schema).task_names)


class TestProfile:
    def test_page(self, folder, tmp_path):
        out = tmp_path / "profile.html"
        data, schema = str(folder / "train.parquet"), str(folder / "schema.toml")
        found = experiment.make_profile(data, schema, str(folder / "valid.parquet"), out)
        page = out.read_text()
        assert page.lower().startswith("<!doctype html>")
        for name in (*(t["name"] for t in found["tasks"]), *(f["name"] for f in found["features"])):
            assert name in page
        assert found["rows"] == 1200

    def test_without_a_schema(self, folder, tmp_path):
        found = experiment.make_profile(str(folder / "train.parquet"), "", None, tmp_path / "profile.html")
        assert found["rows"] == 1200
        assert {"video_id", "price"} <= {feature["name"] for feature in found["features"]}


def test_demo_takes_overrides_and_checks_them_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match="has no key 'epoch'"):
        experiment.demo(tmp_path / "demo", ["train.epoch=1"], resume=False, command="")
    assert not (tmp_path / "demo").exists()
