"""A whole seesaw study on a small log: two tasks (one in the other's sample space), two architectures, two seeds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from polyrank import experiment
from polyrank.errors import ConfigError, Interrupted, RunError
from polyrank.files import locked
from polyrank.metrics.ranking import auc, xauc
from polyrank.plots import display_name
from polyrank.progress import Silent
from polyrank.report import seesaw_html
from polyrank.training.pool import run_all

FIXTURE = json.loads((Path(__file__).parent / "fixtures/seesaw.json").read_text(encoding="utf-8"))
CONFIG = """
[data]
schema = "schema.toml"
train = "train.parquet"
valid = "valid.parquet"
test = "test.parquet"
tasks = ["click", "watch"]
leak_guard = false
[model]
embedding_width = 4
towers = [4]
[model.shared_bottom]
widths = [8]
[model.single_task]
widths = [8]
[model.mmoe]
experts = 2
widths = [8]
[train]
epochs = 1
batch_size = 256
learning_rate = 0.01
[compare]
architectures = ["shared_bottom", "mmoe"]
seeds = [0, 1]
replicates = 20
jobs = 2
"""
MODELS, SEEDS, TASKS = ("shared_bottom", "mmoe"), (0, 1), ("click", "watch")
RUNS = {
    *(f"{model}-seed{seed}" for model in MODELS for seed in SEEDS),
    *(f"single_task-{task}-seed{seed}" for task in TASKS for seed in SEEDS),
    *(f"lightgbm-{task}-seed0" for task in TASKS),
}


def told_more(table):
    """Outside the clicks a watch time is given too, of another law: who learns or measures there shows it."""
    watch = table["play_time"].fill_null(2e6)
    return table.set_column(table.column_names.index("play_time"), "play_time", watch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_experiment):
    rows = {"train": 2000, "valid": 500, "test": 500}
    return write_experiment(tmp_path_factory.mktemp("study"), CONFIG, rows, told_more)


def compare(folder, out, sets=(), *, resume=False, progress=None):
    return experiment.compare(
        folder / "config.toml", sets, out, resume=resume, command="polyrank compare config.toml", progress=progress
    )


def in_turn(jobs, workers, progress):
    """Runs one after the other in this process: one of its own would import torch first."""
    for job in jobs:
        job.work(*job.arguments, progress)


def mostly_in_turn(jobs, workers, progress):
    """The last two runs in processes of their own, two side by side, as all of them are in earnest."""
    in_turn(jobs[:-2], workers, progress)
    return run_all(jobs[-2:], workers, progress)


@pytest.fixture(scope="module", autouse=True)
def same_threads():
    """Runs in this process set its number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(folder):
    """The directory of a finished study, and what `compare` gave; tests that change it work on a copy."""
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyrank.study.run_all", mostly_in_turn)
        return out, compare(folder, out)


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr("polyrank.study.run_all", in_turn)


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def shape(value):
    """Keys and types of a document; lists by their first entry, numbers alike, None fits anything."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def assert_fits(found, expected, where=""):
    """Every key of `expected` is in `found`, with a value of the same type or None."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert set(expected) <= set(found), f"{where}: {set(expected) - set(found)} missing"
        for key, inner in expected.items():
            assert_fits(found[key], inner, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        for index, inner in enumerate(found if expected else []):
            assert_fits(inner, expected[0], f"{where}[{index}]")
    else:
        assert found == expected or "NoneType" in (found, expected), f"{where}: {found}, not {expected}"


def own_rows(folder):
    """Test labels by task, and which rows each is judged on."""
    test = pq.read_table(folder / "test.parquet")
    click = test["is_click"].to_numpy().astype(np.float32)
    return {
        "click": (click, np.ones(len(click), bool)),
        "watch": (test["play_time"].to_numpy().astype(np.float32), click == 1),
    }


def predictions_of(out, model, seed, task):
    alone = model in ("single_task", "lightgbm")
    name = f"{model}-{task}-seed{seed}" if alone else f"{model}-seed{seed}"
    return np.load(out / "runs" / name / "predictions.npy")[:, 0 if alone else TASKS.index(task)]


class TestDocument:
    def test_files(self, finished):
        out, study = finished
        assert json.loads((out / "seesaw.json").read_text()) == study
        assert {path.name for path in (out / "runs").iterdir()} == RUNS
        assert all((out / "runs" / name / "result.json").is_file() for name in RUNS)
        assert not list(out.rglob(".*.partial"))

    def test_has_the_format_that_the_report_renders(self, finished):
        _, study = finished
        # The fixture's tasks, references and models go by other names; lay them under ours.
        expected = json.loads(json.dumps(FIXTURE))
        cells = {name: by_task["income"] for name, by_task in expected["references"].items()}
        expected["references"] = {name: dict.fromkeys(TASKS, cell) for name, cell in cells.items()}
        model = next(model for model in expected["models"] if model["name"] == "mmoe")
        for part in ("tasks", "calibration"):
            model[part] = {"click": model[part]["income"]}
        model["tasks"]["watch"] = {k: v for k, v in model["tasks"]["click"].items() if k != "metrics"}
        for reference in expected["references"].values():
            reference["watch"] = {k: v for k, v in reference["watch"].items() if k != "metrics"}
        for cell in (*model["tasks"].values(), *(r["click"] for r in expected["references"].values())):
            cell.get("metrics", {}).pop("rows", None)
        for curve in model["curves"]:
            for part in ("train_loss", "valid"):
                curve[part] = dict.fromkeys(TASKS, curve[part]["income"])
        expected["models"] = [model]
        assert_fits(
            shape({k: v for k, v in study.items() if k != "models"}),
            shape({k: v for k, v in expected.items() if k != "models"}),
        )
        by_name = {found["name"]: found for found in study["models"]}
        assert_fits(shape(by_name["mmoe"]), shape(model))
        assert by_name["shared_bottom"]["gates"] == []

    def test_tasks(self, finished, folder):
        _, study = finished
        truth = own_rows(folder)
        click, watch = study["tasks"]
        assert (click["name"], click["metric"], click["given"]) == ("click", "auc", None)
        assert (click["rows"], click["positives"]) == (500, truth["click"][0].sum())
        assert click["base_rate"] == pytest.approx(truth["click"][0].mean())
        assert (watch["name"], watch["metric"], watch["given"]) == ("watch", "xauc", "click")
        assert (watch["rows"], watch["positives"]) == (truth["watch"][1].sum(), None)
        assert study["rows"] == {"train": 2000, "valid": 500, "test": 500}

    @pytest.mark.parametrize("model", [*MODELS, "single_task", "lightgbm"])
    @pytest.mark.parametrize("task", TASKS)
    def test_metrics_are_those_of_the_predictions_on_the_tasks_own_rows(self, finished, folder, model, task):
        out, study = finished
        labels, where = own_rows(folder)[task]
        measure = auc if task == "click" else xauc
        seeds = SEEDS[:1] if model == "lightgbm" else SEEDS
        by_hand = [measure(predictions_of(out, model, seed, task)[where], labels[where]) for seed in seeds]
        cells = study["references"] | {found["name"]: found["tasks"] for found in study["models"]}
        cell = cells[model][task]
        assert cell["per_seed"] == by_hand
        assert cell["mean"] == pytest.approx(np.mean(by_hand))
        assert cell["std"] == (pytest.approx(np.std(by_hand, ddof=1)) if len(by_hand) > 1 else None)
        assert cell["metrics"]["auc" if task == "click" else "xauc"] == pytest.approx(cell["mean"])
        assert cell["metrics"]["rows"] == where.sum()

    def test_differences_pair_models_with_references(self, finished):
        _, study = finished
        for model in study["models"]:
            for task, cell in model["tasks"].items():
                assert set(cell["delta"]) == {"single_task", "lightgbm"}
                for reference, delta in cell["delta"].items():
                    other = study["references"][reference][task]["per_seed"]
                    assert delta["mean"] == pytest.approx(np.mean(np.subtract(cell["per_seed"], other)))
                    assert delta["low"] < delta["mean"] < delta["high"]
                    said = "gain" if delta["low"] > 0 else "loss" if delta["high"] < 0 else "tie"
                    assert delta["verdict"] == said

    def test_something_was_learned(self, finished):
        _, study = finished
        assert study["references"]["lightgbm"]["click"]["mean"] > 0.8
        assert study["references"]["lightgbm"]["watch"]["mean"] > 0.8

    @pytest.mark.parametrize("seed", SEEDS)
    def test_single_task_reference_lives_on_its_sample_space(self, finished, folder, seed):
        out, _ = finished
        run = out / f"runs/single_task-watch-seed{seed}"
        _, where = own_rows(folder)["watch"]
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["tasks"].keys() == {"watch"}
        assert metrics["tasks"]["watch"]["rows"] == where.sum()
        # Outside, watch times are about a million: a model that had learned there would predict so.
        predictions = np.load(run / "predictions.npy")
        assert predictions.shape == (500, 1)
        assert predictions.max() < 50_000
        assert predictions_of(out, "lightgbm", 0, "watch").max() < 50_000

    def test_costs(self, finished):
        _, study = finished
        for model in study["models"]:
            assert all(value > 0 for value in model["cost"].values()), model["cost"]
        single, boosted = study["costs"]["single_task"], study["costs"]["lightgbm"]
        assert all(value > 0 for value in (*single.values(), *boosted.values()))
        assert {"parameters", "train_seconds", "peak_memory_bytes", "model_bytes"} <= set(single)
        # Two models with an embedding table each, against one with the same table.
        shared = next(m["cost"] for m in study["models"] if m["name"] == "shared_bottom")
        assert 1.5 < single["parameters"] / shared["parameters"] <= 2

    def test_reference_costs_are_sums_over_tasks_but_memory_is_the_largest(self, finished):
        out, study = finished
        costs = {
            name: json.loads((out / "runs" / name / "result.json").read_text())["cost"]
            for name in RUNS
            if name.startswith("single")
        }
        means = {
            key: [np.mean([costs[f"single_task-{task}-seed{seed}"][key] for seed in SEEDS]) for task in TASKS]
            for key in ("parameters", "train_seconds", "peak_memory_bytes")
        }
        found = study["costs"]["single_task"]
        assert found["parameters"] == sum(means["parameters"])
        assert found["train_seconds"] == pytest.approx(sum(means["train_seconds"]))
        assert found["peak_memory_bytes"] == pytest.approx(max(means["peak_memory_bytes"]), abs=1)

    def test_gates_curves_and_calibration(self, finished):
        _, study = finished
        mmoe = next(model for model in study["models"] if model["name"] == "mmoe")
        assert [gate["gate"] for gate in mmoe["gates"]] == list(TASKS)
        for gate in mmoe["gates"]:
            assert gate["experts"] == ["shared 1", "shared 2"]
            assert sum(gate["weights"]) == pytest.approx(1)
        for model in study["models"]:
            assert [curve["seed"] for curve in model["curves"]] == list(SEEDS)
            assert all(curve["rows"] == [2000] for curve in model["curves"])
            assert set(model["calibration"]) == {"click"}  # a watch time is no probability
            assert sum(model["calibration"]["click"]["count"]) == 500

    def test_the_front_of_the_models(self, finished):
        _, study = finished
        pareto = study["pareto"]
        means = np.array([[model["tasks"][task]["mean"] for task in TASKS] for model in study["models"]])
        single = [study["references"]["single_task"][task]["mean"] for task in TASKS]
        assert list(pareto["models"]) == list(MODELS)
        low, high = (f(np.array([*means, single]), axis=0) for f in (np.min, np.max))
        corner = low - 0.1 * (high - low)
        assert list(pareto["reference"].values()) == pytest.approx(corner)
        # Of two models, either both are on the front or one beats the other on both tasks.
        beaten = [(other > own).all() for own, other in zip(means, means[::-1], strict=True)]
        assert [not entry["front"] for entry in pareto["models"].values()] == beaten
        boxes = (means - corner).prod(axis=1)
        both = boxes.sum() - (means.min(axis=0) - corner).prod()
        assert pareto["hypervolume"] == pytest.approx(both)
        assert [entry["alone"] for entry in pareto["models"].values()] == pytest.approx(boxes / both)
        assert [entry["share"] for entry in pareto["models"].values()] == pytest.approx(1 - boxes[::-1] / both)

    def test_models_name_their_balancer(self, finished):
        assert [(m["name"], m["architecture"], m["balancer"]) for m in finished[1]["models"]] == [
            (name, name, "static") for name in MODELS
        ]

    def test_notes_say_what_is_weak(self, finished):
        notes = " ".join(finished[1]["notes"])
        assert "2 seeds: " in notes
        assert "9 % were called gain or loss at 95 %" in notes
        assert "LightGBM is trained once a task" in notes
        assert "of 4 verdicts" in notes

    def test_report_names_every_task_and_model(self, finished):
        out, study = finished
        page = (out / "report.html").read_text()
        assert page == seesaw_html(study)
        for name in (*TASKS, *map(display_name, MODELS), "config", "polyrank compare config.toml"):
            assert name in page

    def test_is_json_without_nan(self, finished):
        assert json.loads(json.dumps(finished[1], allow_nan=False)) == finished[1]


class Said(Silent):
    def __init__(self):
        self.lines, self.labels, self.totals, self.done = [], [], {}, {}

    def say(self, text):
        self.lines.append(text)

    def bar(self, label, total, unit="rows"):
        self.labels.append(label)
        self.totals[label] = total
        return super().bar(label, total, unit)

    def advance(self, rows, note=""):
        self.done[self.labels[-1]] = self.done.get(self.labels[-1], 0) + rows


def times(out):
    return {
        path.relative_to(out).as_posix(): path.stat().st_mtime_ns
        for path in (out / "runs").rglob("*")
        if path.is_file()
    }


def without_costs(study):
    """A study less what a clock or a memory gauge said."""
    kept = {key: value for key, value in study.items() if key not in ("created", "costs")}
    return kept | {"models": [{k: v for k, v in model.items() if k != "cost"} for model in study["models"]]}


@pytest.mark.usefixtures("in_process")
class TestResume:
    def test_trains_only_what_is_missing(self, finished, copy, folder):
        gone = copy / "runs/mmoe-seed1"
        shutil.rmtree(gone)
        before, progress = times(copy), Said()
        found = compare(folder, copy, resume=True, progress=progress)
        assert without_costs(found) == without_costs(finished[1])
        assert {name: when for name, when in times(copy).items() if not name.startswith("runs/mmoe-seed1/")} == before
        assert f"{len(RUNS) - 1} of {len(RUNS)} runs are already there" in progress.lines
        assert progress.labels.count("training") == 1
        assert progress.labels[-1] == "judging"
        assert progress.totals["judging"] == progress.done["judging"] == len(TASKS) * 20
        again = np.load(gone / "predictions.npy")
        np.testing.assert_array_equal(again, np.load(finished[0] / "runs/mmoe-seed1/predictions.npy"))

    def test_a_deleted_result_is_made_again(self, finished, copy, folder):
        (copy / "runs/single_task-watch-seed0/result.json").unlink()
        before = times(copy)
        found = compare(folder, copy, resume=True)
        assert without_costs(found) == without_costs(finished[1])
        after = times(copy)
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed
        assert all(name.startswith("runs/single_task-watch-seed0/") for name in changed)

    def test_of_a_finished_study_trains_nothing(self, finished, copy, folder):
        before = times(copy)
        (copy / "seesaw.json").unlink()
        (copy / "report.html").unlink()
        assert without_costs(compare(folder, copy, resume=True)) == without_costs(finished[1])
        assert times(copy) == before
        assert (copy / "report.html").exists()

    def test_without_resume_nothing_is_touched(self, copy, folder):
        before = times(copy) | {"seesaw": (copy / "seesaw.json").read_text()}
        with pytest.raises(RunError, match="a new study needs a directory of its own") as raised:
            compare(folder, copy)
        assert "--resume" in raised.value.mend
        assert times(copy) | {"seesaw": (copy / "seesaw.json").read_text()} == before

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ("train.learning_rate=0.5", "train.learning_rate"),
            ("model.mmoe.experts=3", "model.mmoe.experts"),
            ("data.tasks=['click']", "data.tasks"),
        ],
    )
    def test_with_another_config_is_refused(self, copy, folder, change, named):
        before = times(copy)
        with pytest.raises(RunError, match="the config it began with") as raised:
            compare(folder, copy, [change], resume=True)
        assert raised.value.received.endswith(f"differs in {named}")
        assert times(copy) == before

    def test_a_study_can_be_extended(self, finished, copy, folder):
        before, progress = times(copy), Said()
        sets = ["compare.seeds=[0, 1, 2]", "compare.architectures=['mmoe', 'shared_bottom', 'cgc']"]
        sets += ["compare.replicates=30", "compare.level=0.9", "compare.jobs=1", "train.threads=1"]
        found = compare(folder, copy, sets, resume=True, progress=progress)
        assert {name: when for name, when in times(copy).items() if name in before} == before
        new = {"mmoe-seed2", "shared_bottom-seed2", "cgc-seed0", "cgc-seed1", "cgc-seed2"}
        new |= {f"single_task-{task}-seed2" for task in TASKS}
        assert {path.name for path in (copy / "runs").iterdir()} == RUNS | new
        assert progress.labels.count("training") == len(new)
        assert (found["seeds"], found["level"]) == ([0, 1, 2], 0.9)
        assert [model["name"] for model in found["models"]] == ["mmoe", "shared_bottom", "cgc"]
        for model in finished[1]["models"]:
            (again,) = (other for other in found["models"] if other["name"] == model["name"])
            for task in TASKS:
                assert again["tasks"][task]["per_seed"][:2] == model["tasks"][task]["per_seed"]
        # Back to what it was: runs that are no longer asked for stay, unused.
        again = compare(folder, copy, resume=True)
        assert without_costs(again) == without_costs(finished[1])
        assert {path.name for path in (copy / "runs").iterdir()} == RUNS | new

    def test_lightgbm_is_trained_again_for_other_rows(self, finished, copy, folder):
        before = times(copy)
        found = compare(folder, copy, ["compare.lightgbm_rows=300"], resume=True)
        after = times(copy)
        changed = {name for name in after if after[name] != before.get(name)}
        assert {name.split("/")[1] for name in changed} == {f"lightgbm-{task}-seed0" for task in TASKS}
        assert any("300 random rows" in note for note in found["notes"])
        was, now = (study["references"]["lightgbm"]["watch"]["mean"] for study in (finished[1], found))
        assert was != now

    def test_one_process_a_study(self, copy, folder):
        left = copy / ".seesaw.json.1.partial"
        left.write_text("the other process is writing this")
        with locked(copy), pytest.raises(RunError, match="another process is working in"):
            compare(folder, copy, resume=True)
        assert left.exists()

    def test_with_other_data_is_refused(self, copy, folder, tmp_path):
        # The same paths in the same config, but other rows: the old predictions do not belong to them.
        other = Path(shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("out")))
        pq.write_table(pq.read_table(other / "test.parquet").slice(10), other / "test.parquet")
        before = times(copy)
        with pytest.raises(RunError, match="the data it began with") as raised:
            compare(other, copy, resume=True)
        assert raised.value.received.endswith(": test data")
        assert times(copy) == before


def test_a_failing_run_is_one_message_and_the_others_are_kept(copy, folder):
    # One run's directory holds another experiment: its process fails, the study says which rule was broken.
    run = copy / "runs/mmoe-seed0"
    (run / "result.json").unlink()
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("learning_rate = 0.01", "learning_rate = 0.02"))
    before = times(copy)
    with pytest.raises(RunError, match="a resumed run must have the config it began with") as raised:
        compare(folder, copy, resume=True)
    assert raised.value.received.endswith("differs in train.learning_rate")
    assert "Traceback" not in str(raised.value)
    assert times(copy) == before


def test_a_damaged_encoded_file_is_made_anew(finished, copy, folder):
    labels = copy / "encoded/test/labels.npy"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-4] + b"\x00\x00\x00\x01")
    assert without_costs(compare(folder, copy, resume=True)) == without_costs(finished[1])
    assert labels.read_bytes() == whole


def test_bad_settings_stop_before_anything_is_written(folder, tmp_path):
    out = tmp_path / "study"
    for sets in (["compare.architectures=['mmoee']"], ["compare.architectures=['single_task']"], ["compare.seeds=[]"]):
        with pytest.raises(ConfigError):
            compare(folder, out, sets)
    assert not out.exists()


@pytest.mark.usefixtures("in_process")
def test_one_seed_without_lightgbm_and_with_parts_set_aside(folder, tmp_path):
    sets = ["compare.lightgbm=false", "compare.seeds=[4]", "compare.architectures=['shared_bottom']"]
    sets += ["data.valid=''", "data.test=''", "data.tasks=['click']", "compare.jobs=1"]
    progress = Said()
    study = compare(folder, tmp_path / "study", sets, resume=True, progress=progress)
    assert progress.lines[0] == f"nothing to go on with in {tmp_path / 'study'}: starting anew"
    assert sum(study["rows"].values()) == 2000
    assert study["rows"]["train"] > 1500
    assert list(study["references"]) == list(study["costs"]) == ["single_task"]
    assert any(note.startswith("One seed only") and "44 %" in note for note in study["notes"])
    assert not any("LightGBM" in note for note in study["notes"])
    (model,) = study["models"]
    assert model["tasks"]["click"]["std"] is None
    assert set(model["tasks"]["click"]["delta"]) == {"single_task"}


@pytest.mark.usefixtures("in_process")
def test_too_little_test_data_gives_no_verdict(copy, folder, tmp_path):
    # Eight clicks: whatever the models' metrics are, nothing can be said about them.
    few = Path(shutil.copytree(folder, tmp_path / "few", ignore=shutil.ignore_patterns("out")))
    table = pq.read_table(few / "test.parquet")
    click = np.zeros(len(table), np.int8)
    click[:8] = 1
    pq.write_table(
        table.set_column(table.column_names.index("is_click"), "is_click", pa.array(click)), few / "test.parquet"
    )
    progress = Said()
    sets = ["compare.lightgbm=false", "compare.seeds=[0]", "compare.architectures=['shared_bottom']"]
    study = compare(few, tmp_path / "study", sets, progress=progress)
    notes = [note for note in study["notes"] if note.startswith("Too little data to judge")]
    assert notes[0] == "Too little data to judge click: 8 test groups hold positives, 10 are needed."
    assert notes[1].startswith("Too little data to judge watch: 8 test groups")
    for cell in study["models"][0]["tasks"].values():
        delta = cell["delta"]["single_task"]
        assert (delta["low"], delta["high"], delta["verdict"]) == (None, None, "tie")
        assert delta["mean"] is not None
    page = (tmp_path / "study/report.html").read_text()
    assert notes[0] in page
    assert "[None" not in page
    assert progress.done["judging"] == progress.totals["judging"]


@pytest.mark.parametrize(
    ("usable", "jobs", "expected"),
    [(2, 0, (2, 1)), (64, 0, (8, 8)), (64, 5, (5, 12)), (1, 3, (3, 1)), (64, 99, (10, 6))],
)
def test_jobs_share_the_processors_that_may_be_used(monkeypatch, folder, tmp_path, usable, jobs, expected):
    seen = []

    def run_all(jobs, workers, progress):
        seen.append((workers, jobs[0].arguments[-1]))
        raise Interrupted("enough was seen")

    monkeypatch.setattr("polyrank.study.run_all", run_all)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(usable)), raising=False)
    with pytest.raises(Interrupted):
        compare(folder, tmp_path / "study", [f"compare.jobs={jobs}"])
    assert seen == [expected]


@pytest.mark.slow
def test_all_runs_in_processes_of_their_own_give_the_same(finished, folder, tmp_path):
    assert without_costs(compare(folder, tmp_path / "study")) == without_costs(finished[1])
