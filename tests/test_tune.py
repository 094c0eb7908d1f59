"""A whole search on a small log: the config first, the best or the front judged on test, cut off and resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyrank import experiment
from polyrank.errors import ConfigError, Interrupted, RunError, RunFailed, TrainingDiverged
from polyrank.evaluation.pareto import hypervolume
from polyrank.evaluation.predict import ScoreTable
from polyrank.progress import Silent
from polyrank.runs import train_run
from polyrank.settings import load_settings
from polyrank.tune import against
from polyrank.tune_report import tune_html

CONFIG = """
[data]
schema = "schema.toml"
train = "train.parquet"
valid = "valid.parquet"
test = "test.parquet"
tasks = ["click", "watch"]
leak_guard = false
[model]
architecture = "shared_bottom"
embedding_width = 4
towers = [4]
[model.shared_bottom]
widths = [8]
[train]
epochs = 1
batch_size = 256
learning_rate = 0.01
evaluations_per_epoch = 2
threads = 1
[compare]
replicates = 20
[tune]
trials = 5
startup = 2
prune = false
[tune.space]
balance.static.weights.watch = { low = 0.1, high = 10.0, log = true }
train.learning_rate = { low = 1e-3, high = 3e-2, log = true }
model.towers = { choices = [[4], [8, 4]] }
"""
BOTH = ["tune.objectives=['click', 'watch']"]


@pytest.fixture(autouse=True, scope="module")
def _same_threads() -> Any:
    """Trainings set the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any, write_experiment: Any) -> Path:
    return write_experiment(tmp_path_factory.mktemp("tune"), CONFIG, {"train": 1500, "valid": 400, "test": 400})


def tune(
    folder: Path, out: Path, sets: Any = (), *, trials: int = 0, resume: bool = False, progress: Any = None
) -> Any:
    return experiment.tune(
        folder / "config.toml",
        sets,
        out,
        trials=trials,
        resume=resume,
        command="polyrank tune config.toml",
        progress=progress,
    )


@pytest.fixture(scope="module")
def finished(folder: Path) -> tuple[Path, dict[str, Any]]:
    return folder / "out", tune(folder, folder / "out")


@pytest.fixture(scope="module")
def fronted(folder: Path) -> tuple[Path, dict[str, Any]]:
    return folder / "front", tune(folder, folder / "front", BOTH, trials=6)


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    trials = [{key: value for key, value in trial.items() if key != "seconds"} for trial in found["trials"]]
    return {key: value for key, value in found.items() if key != "created"} | {"trials": trials}


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class TestOneObjective:
    def test_the_config_is_the_first_trial(self, finished: Any) -> None:
        _, found = finished
        first = found["trials"][0]
        assert found["baseline"] == 0
        assert first["parameters"] == {
            "balance.static.weights.watch": 1.0,
            "train.learning_rate": 0.01,
            "model.towers": [4],
        }

    def test_every_trial_trained_what_it_says(self, finished: Any) -> None:
        out, found = finished
        assert [trial["number"] for trial in found["trials"]] == list(range(5))
        for trial in found["trials"]:
            run = out / f"trials/{trial['number']:04d}"
            settings = load_settings(run / "config.toml")
            assert settings.train.learning_rate == trial["parameters"]["train.learning_rate"]
            assert list(settings.model.towers) == trial["parameters"]["model.towers"]
            weights = settings.balancers["static"].weights
            assert weights.get("watch", 1.0) == trial["parameters"]["balance.static.weights.watch"]
            lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
            assert trial["evaluations"] == [line["metric"] for line in lines]
            assert trial["values"] == [max(trial["evaluations"])]

    def test_the_best_on_validation_is_chosen_and_judged_on_test(self, finished: Any, folder: Path) -> None:
        out, found = finished
        (best,) = found["chosen"]
        values = [trial["values"][0] for trial in found["trials"]]
        assert best == int(np.argmax(values))
        assert set(found["test"]) == {str(best), "0"}
        # Trained again from best.toml, it does on test data what the search says it does.
        again = experiment.train(out / "best.toml", [], folder / f"again-{best}", resume=False)
        assert again["data"] == "test"
        assert again["tasks"] == found["test"][str(best)]

    def test_only_checkpoints_that_may_be_chosen_are_kept(self, finished: Any) -> None:
        out, found = finished
        kept = {int(path.parts[-3]) for path in out.glob("trials/*/checkpoints/*.safetensors")}
        assert kept == {0, *found["chosen"]}
        assert not list(out.rglob("last.safetensors"))

    def test_documents(self, finished: Any) -> None:
        out, found = finished
        assert json.loads((out / "tune.json").read_text()) == found
        assert (out / "report.html").read_text() == tune_html(found)
        assert found["objectives"] == [{"name": "mean", "metric": ""}]
        assert set(found["importance"]["mean"]) == set(found["space"])

    def test_without_resume_nothing_is_touched(self, finished: Any, folder: Path) -> None:
        out, _ = finished
        before = (out / "trials.journal").read_bytes()
        with pytest.raises(RunError, match="a new search needs a directory of its own"):
            tune(folder, out)
        assert (out / "trials.journal").read_bytes() == before

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ("train.epochs=2", "train.epochs"),
            ("tune.startup=3", "tune.startup"),
            ("tune.space.model.embedding_dropout={low=0.0, high=0.5}", "tune.space"),
        ],
    )
    def test_another_config_is_refused(self, finished: Any, folder: Path, change: str, named: str) -> None:
        with pytest.raises(RunError, match="a resumed search must have the config it began with") as raised:
            tune(folder, finished[0], [change], resume=True)
        assert named in raised.value.received


class TestResume:
    def test_in_pieces_equals_in_a_whole(self, finished: Any, folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        tune(folder, out, trials=1)
        tune(folder, out, trials=3, resume=True)
        assert timeless(tune(folder, out, resume=True)) == timeless(finished[1])

    def test_a_trial_that_was_cut_off_goes_on(
        self, finished: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def cut(*arguments: Any, observer: Any, **rest: Any) -> Any:
            calls.append(0)

            def stop(record: dict[str, Any]) -> None:
                observer(record)
                raise Interrupted("enough")

            return train_run(*arguments, observer=stop if len(calls) == 3 else observer, **rest)

        monkeypatch.setattr("polyrank.tune.train_run", cut)
        with pytest.raises(Interrupted):
            tune(folder, tmp_path / "out")
        assert len(calls) == 3
        assert not (tmp_path / "out/tune.json").exists()
        assert timeless(tune(folder, tmp_path / "out", resume=True)) == timeless(finished[1])
        assert len(calls) == 6

    def test_a_finished_search_only_reports(self, finished: Any, folder: Path, tmp_path: Path) -> None:
        out = Path(shutil.copytree(finished[0], tmp_path / "copy"))
        (out / "tune.json").unlink()
        progress = Said()
        assert timeless(tune(folder, out, trials=2, resume=True, progress=progress)) == timeless(finished[1])
        assert not any(line.startswith("trial ") for line in progress.lines)

    def test_nothing_to_resume_begins_anew(self, folder: Path, tmp_path: Path) -> None:
        progress = Said()
        found = tune(folder, tmp_path / "new", trials=1, resume=True, progress=progress)
        assert f"nothing to go on with in {tmp_path / 'new'}: starting anew" in progress.lines
        assert found["chosen"] == [0]
        assert found["against_config"] == {}


class TestFront:
    def test_nothing_dominates_the_front_and_the_front_all_else(self, fronted: Any) -> None:
        _, found = fronted
        values = {trial["number"]: np.array(trial["values"]) for trial in found["trials"]}
        beaten = {
            number
            for number, own in values.items()
            if any((other >= own).all() and (other > own).any() for other in values.values())
        }
        assert found["chosen"] == sorted(set(values) - beaten)
        assert found["hypervolume"] == pytest.approx(hypervolume(list(values.values()), found["reference"]))
        assert set(found["shares"]) == set(map(str, found["chosen"]))
        assert set(found["test"]) == {str(number) for number in {0, *found["chosen"]}}

    def test_values_are_those_of_the_kept_checkpoint(self, fronted: Any) -> None:
        out, found = fronted
        for trial in found["trials"]:
            lines = (out / f"trials/{trial['number']:04d}/history.jsonl").read_text().splitlines()
            kept = [record for record in map(json.loads, lines) if record["best"]][-1]
            assert trial["values"] == [kept["valid"]["click"], kept["valid"]["watch"]]
            assert trial["evaluations"] == []

    def test_there_is_no_one_best(self, fronted: Any) -> None:
        out, found = fronted
        assert not (out / "best.toml").exists()
        assert (out / "report.html").read_text() == tune_html(found)


def test_trials_that_diverge_are_noted_and_the_search_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = []

    def diverging(*arguments: Any, **rest: Any) -> Any:
        count.append(0)
        if len(count) != 2:
            raise TrainingDiverged("losses and predictions must stay finite", received="the loss of click is not")
        return train_run(*arguments, **rest)

    monkeypatch.setattr("polyrank.tune.train_run", diverging)
    found = tune(folder, tmp_path / "out", trials=3)
    assert [trial["state"] for trial in found["trials"]] == ["fail", "complete", "fail"]
    assert "the loss of click is not" in found["trials"][0]["why"]
    assert (found["chosen"], found["baseline"], found["against_config"]) == ([1], None, {})
    count[:] = [0, 0, 0]
    with pytest.raises(RunFailed, match="a search needs a trial that reaches its end") as raised:
        tune(folder, tmp_path / "none", trials=2)
    assert "the loss of click is not" in raised.value.received


@pytest.mark.parametrize(
    ("sets", "rule", "mend"),
    [
        (
            ["tune.space.train.learning_rat={low=0.1, high=1.0}"],
            r"\[train\] has no key 'learning_rat'",
            "learning_rate",
        ),
        (["tune.space.balance.static.weights.wach={low=0.1, high=1.0}"], "must name tasks", "'watch'"),
        (["tune.objectives=['clik']"], r"tune\.objectives must name tasks", "'click'"),
        (["tune.objectives=['mean', 'click']"], "'mean' alone, or tasks", "Pareto"),
        (["tune.objectives=['click', 'click']"], "each once", "Pareto"),
        (["tune.sampler='tpee'"], r"tune\.sampler", ""),
    ],
)
def test_bad_searches_stop_before_anything_is_encoded(
    folder: Path, tmp_path: Path, sets: list[str], rule: str, mend: str
) -> None:
    with pytest.raises(ConfigError, match=rule) as raised:
        tune(folder, tmp_path / "out", sets)
    assert mend in raised.value.mend
    assert not (tmp_path / "out").exists()


def test_a_config_outside_its_own_space_is_said_and_not_tried(folder: Path, tmp_path: Path) -> None:
    progress = Said()
    found = tune(folder, tmp_path / "out", ["train.learning_rate=0.5"], trials=1, progress=progress)
    assert "the config's own values lie outside the space: they are not among the trials" in progress.lines
    assert found["baseline"] is None
    assert found["trials"][0]["parameters"]["train.learning_rate"] < 0.03


def test_one_objective_chooses_the_checkpoint_too(folder: Path, tmp_path: Path) -> None:
    found = tune(folder, tmp_path / "out", ["tune.objectives=['watch']"], trials=1)
    assert load_settings(tmp_path / "out/best.toml").train.metric == "watch"
    lines = [json.loads(line) for line in (tmp_path / "out/trials/0000/history.jsonl").read_text().splitlines()]
    assert found["trials"][0]["values"] == [max(line["valid"]["watch"] for line in lines)]
    assert found["objectives"] == [{"name": "watch", "metric": "xauc"}]


def test_differences_from_the_config_are_paired(feedback_schema: Any) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.5).astype(np.float32)
    good, poor = labels + rng.normal(size=400), labels + 4 * rng.normal(size=400)
    task = feedback_schema().tasks[0]

    def table(predictions: np.ndarray, rows: int = 400) -> ScoreTable:
        where = np.arange(400)[:, None] < rows
        return ScoreTable((task,), predictions[:, None].astype(np.float32), labels[:, None], where, None)

    found = against({0: table(poor), 3: table(good), 4: table(poor)}, 0, 0, 50, 0.95, Silent())
    assert found[3]["verdict"] == "gain"
    assert 0 < found[3]["low"] < found[3]["mean"] < found[3]["high"]
    assert found[4] == {"mean": 0.0, "low": None, "high": None, "verdict": "tie"}
    few = against({0: table(poor, 8), 3: table(good, 8)}, 0, 0, 50, 0.95, Silent())
    assert (few[3]["low"], few[3]["verdict"]) == (None, "tie")
