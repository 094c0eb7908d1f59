"""The command line: exit codes, one message for a user's mistake, and never a traceback."""

import copy
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from polyrank import cli
from polyrank.data.schema import load_schema, save_schema

STUDY = json.loads((Path(__file__).parent / "fixtures/seesaw.json").read_text(encoding="utf-8"))
CONFIG = """
[data]
schema = "schema.toml"
train = "train.parquet"
valid = "valid.parquet"
leak_guard = false
[model]
embedding_width = 2
towers = [2]
[model.mmoe]
experts = 2
widths = [4]
[model.single_task]
widths = [4]
[train]
epochs = 1
batch_size = 256
threads = 1
[compare]
architectures = ["mmoe"]
seeds = [0, 1]
lightgbm = false
replicates = 10
"""


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def polyrank(monkeypatch, capsys):
    """`polyrank("train", path, …)`: a command run in this process; its exit code and what it printed."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["polyrank", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module", autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory, feedback_table, feedback_schema, write_table):
    """An experiment's files, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("cli")
    for part, rows, seed in (("train", 600, 0), ("valid", 200, 1)):
        write_table(feedback_table(rows, seed), folder / f"{part}.parquet")
    save_schema(feedback_schema(), folder / "schema.toml")
    (folder / "config.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["polyrank", "train", str(folder / "config.toml"), "--out", str(folder / "run")])
        patch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of them to break."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def assert_message(result, *words, code=2):
    """One message: rule, what was received, how to mend it; nothing else, no traceback."""
    assert result.code == code, result.err
    assert result.err.count("error:") == 1, result.err
    assert "Traceback" not in result.err + result.out
    assert result.err.count("received:") == 1, result.err
    assert result.err.count("to mend:") == 1, result.err
    for word in words:
        assert word in result.err, result.err


def change(path, name, column):
    """Put another column into a Parquet file."""
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(column)), path)


COMMANDS = [
    [],
    ["demo"],
    ["compare"],
    ["tune"],
    ["train"],
    ["evaluate"],
    ["score"],
    ["data"],
    ["data", "infer"],
    ["data", "profile"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(polyrank, command):
    result = polyrank(*command, "--help")
    assert result.code == 0
    assert "Usage: polyrank" in result.out
    assert not result.err
    for word in {"train": ["CONFIG", "--set", "--out", "--resume"], "score": ["RUN", "--data", "--out"]}.get(
        " ".join(command), []
    ):
        assert word in result.out


@pytest.mark.parametrize("command", ["demo", "compare", "tune", "train"])
def test_a_flag_takes_no_value(polyrank, command):
    (line,) = (line for line in polyrank(command, "--help").out.splitlines() if "--resume" in line)
    assert "<" not in line


def test_version(polyrank):
    result = polyrank("--version")
    assert (result.code, result.out, result.err) == (0, f"polyrank {version('polyrank')}\n", "")


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (["trian"], "trian"),
            (["data", "infr"], "infr"),
            (["train"], "CONFIG"),
            (["train", "config.toml"], "--out"),
            (["train", "config.toml", "--out", "run", "--epochs", "3"], "--epochs"),
            (["score", "run", "--out", "s.parquet"], "--data"),
            (["evaluate", "run", "extra", "--data", "x"], "extra"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_wrong_usage_is_2(self, polyrank, arguments, word):
        result = polyrank(*arguments)
        assert result.code == 2
        assert word in result.err
        assert "Traceback" not in result.err

    @pytest.mark.parametrize("arguments", [[], ["data"]], ids=["nothing", "data"])
    def test_no_command_shows_the_help(self, polyrank, arguments):
        result = polyrank(*arguments)
        assert "Usage: polyrank" in result.out + result.err
        assert "Traceback" not in result.err


class TestTrain:
    def test_prints_the_metrics_and_where_the_run_is(self, polyrank, folder):
        result = polyrank("train", folder / "config.toml", "--out", folder / "new", "--set", "train.seed=3")
        assert result.code == 0
        assert "valid: 200 rows" in result.out
        assert f"run: {folder / 'new'}" in result.out
        for word in ("click", "like", "watch", "auc", "xauc"):
            assert word in result.out
        assert "seed = 3" in (folder / "new/config.toml").read_text()

    def test_resume(self, polyrank, folder):
        assert_message(
            polyrank("train", folder / "config.toml", "--out", folder / "run"), "a directory of its own", "--resume"
        )
        assert polyrank("train", folder / "config.toml", "--out", folder / "run", "--resume").code == 0

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (None, ["must be a TOML file", "config.toml"]),
            ("[data\n", ["must be valid TOML", "line 1"]),
            (CONFIG.replace("epochs", "epoch"), ["[train] has no key 'epoch'", "did you mean 'epochs'?"]),
            (CONFIG.replace("[train]", "[trian]"), ["section", "trian", "did you mean 'train'?"]),
            (CONFIG.replace('"schema.toml"', '"schma.toml"'), ["schma.toml", "No such file"]),
            (CONFIG.replace("epochs = 1", 'epochs = "two"'), ["train.epochs", "'two'"]),
            (CONFIG.replace('schema = "schema.toml"\n', ""), ["data.schema must be given"]),
            ("", ["must have the section [data]"]),
        ],
        ids=["missing", "syntax", "key", "section", "schema", "type", "required", "empty"],
    )
    def test_config_mistakes(self, polyrank, folder, text, words):
        (folder / "config.toml").unlink() if text is None else (folder / "config.toml").write_text(text)
        assert_message(polyrank("train", folder / "config.toml", "--out", folder / "new"), *words)
        assert not (folder / "new").exists()

    @pytest.mark.parametrize(
        ("assignment", "words"),
        [
            ("train.seed", ["--set takes key=value, or section.key=value", "train.seed"]),
            ("=3", ["--set takes key=value, or section.key=value"]),
            ("train.sed=3", ["has no key 'sed'", "did you mean 'seed'?"]),
            ("train.epochs=0", ["train.epochs", "greater than 0", "received: 0"]),
            ("train.epochs=1.5", ["train.epochs", "1.5"]),
            ("model.architecture=mmoee", ["model.architecture must be known", "did you mean 'mmoe'?"]),
            ("balance.method=statc", ["balance.method must be known", "did you mean 'static'?"]),
            ("model.mmoe.experts=-1", ["model.mmoe.experts"]),
            ("model.architecture=single_task", ["'single_task' must suit the data"]),
            ("data.tasks=['clik']", ["data.tasks must name tasks", "did you mean 'click'?"]),
            ("train.metric=lik", ["train.metric", "did you mean 'like'?"]),
            ("train.seed.x=1", ["train.seed"]),
            ("data=3", ["[data]"]),
        ],
    )
    def test_set_mistakes(self, polyrank, folder, assignment, words):
        result = polyrank("train", folder / "config.toml", "--out", folder / "new", "--set", assignment)
        assert_message(result, *words)

    def test_data_mistakes(self, polyrank, folder):
        def train(*words):
            assert_message(polyrank("train", folder / "config.toml", "--out", folder / "new"), *words)

        path, whole = folder / "train.parquet", pq.read_table(folder / "train.parquet")
        path.unlink()
        train("must be a file, a directory or a glob", "train.parquet")
        path.write_bytes(b"")
        train("must hold at least one row", "0 bytes")
        pq.write_table(whole.slice(0, 0), path)
        train("must hold at least one row", "0 rows")
        path.write_bytes((folder / "valid.parquet").read_bytes()[:-50])
        train("must be whole", "train.parquet")
        pq.write_table(whole.drop_columns("history"), path)
        train("must have the column 'history'")
        pq.write_table(whole.rename_columns([n.replace("video_id", "video_ids") for n in whole.column_names]), path)
        train("must have the column 'video_id'", "did you mean 'video_ids'?")
        for name, column, words in (
            ("history", np.arange(600), ["a sequence feature needs lists"]),
            ("price", ["cheap"] * 600, ["a number feature needs", "'price'"]),
            ("is_click", ["yes"] * 600, ["label of task 'click' must be a number", "string"]),
            ("is_click", np.ones(600, np.int8), ["task 'click' must have both classes", "all 600 labels"]),
            ("is_click", pa.nulls(600, pa.int8()), ["task 'click' must have a label", "missing"]),
            ("is_click", np.arange(600) % 3, ["must be 0 or 1"]),
            ("video_id", np.full(600, 0.5), ["whole numbers"]),
        ):
            pq.write_table(whole, path)
            change(path, name, column)
            train(*words)
        # A mistake mends without a trace of the failed attempts.
        pq.write_table(whole, path)
        assert polyrank("train", folder / "config.toml", "--out", folder / "new").code == 0

    def test_damage_in_the_middle_of_a_file(self, polyrank, folder):
        path = folder / "train.parquet"
        content = bytearray(path.read_bytes())
        content[200:4000] = bytes(3800)
        path.write_bytes(content)
        assert_message(polyrank("train", folder / "config.toml", "--out", folder / "new"), "train.parquet")

    def test_validation_of_one_class(self, polyrank, folder):
        change(folder / "valid.parquet", "is_click", np.zeros(200, np.int8))
        result = polyrank(*("train", folder / "config.toml", "--out", folder / "new", "--set", "data.tasks=['click']"))
        assert_message(result, "validation data must be able to rank")

    def test_a_place_that_cannot_be_written_is_1(self, polyrank, folder):
        result = polyrank("train", folder / "config.toml", "--out", folder / "schema.toml/run")
        assert_message(result, "cannot write", "Not a directory", code=1)


class TestEvaluateAndScore:
    def test_evaluate(self, polyrank, folder):
        result = polyrank(
            *("evaluate", folder / "run", "--data", folder / "valid.parquet", "--out", folder / "found.json")
        )
        assert result.code == 0
        assert "200 rows" in result.out
        found = json.loads((folder / "found.json").read_text())
        assert found["tasks"] == json.loads((folder / "run/metrics.json").read_text())["tasks"]

    def test_names_that_look_like_markup_are_printed_as_they_are(self, polyrank, folder):
        odd = folder / "[bold]valid[/x].parquet"
        odd.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "valid.parquet", odd)
        result = polyrank("evaluate", folder / "run", "--data", odd)
        assert result.code == 0
        assert "[bold]valid[/x].parquet: 200 rows" in result.out

    def test_score(self, polyrank, folder):
        out = folder / "scores.parquet"
        result = polyrank("score", folder / "run", "--data", folder / "valid.parquet", "--out", out)
        assert result.code == 0
        assert f"200 rows scored: {out}" in result.out
        assert pq.read_table(out).column_names == ["p_click", "p_like", "p_watch", "joint_like"]

    def test_score_mistakes(self, polyrank, folder):
        def score(*words, run=folder / "run", data=folder / "valid.parquet", out="scores.parquet", code=2):
            result = polyrank("score", run, "--data", data, "--out", folder / out)
            assert_message(result, *words, code=code)

        score("name a directory that polyrank wrote", run=folder)  # its config.toml is not a run's
        score("a directory that polyrank train made", run=folder / "nothing")
        score("written as Parquet", "scores.csv", out="scores.csv")
        score("cannot write", out="schema.toml/scores.parquet", code=1)
        score("must be a file, a directory or a glob", data=folder / "absent.parquet")
        pq.write_table(pq.read_table(folder / "valid.parquet").drop_columns("tags"), folder / "bare.parquet")
        score("must have the column 'tags'", data=folder / "bare.parquet")
        (folder / "text.txt").write_text("hello")
        score("data must be in one format", ".txt", data=folder / "text.txt")
        assert not (folder / "scores.parquet").exists()

    def test_evaluate_needs_labels(self, polyrank, folder):
        pq.write_table(pq.read_table(folder / "valid.parquet").drop_columns("is_like"), folder / "bare.parquet")
        result = polyrank("evaluate", folder / "run", "--data", folder / "bare.parquet")
        assert_message(result, "must have the column 'is_like'")

    def test_any_flipped_byte_of_a_checkpoint_is_noticed(self, polyrank, folder):
        path = folder / "run/checkpoints/best.safetensors"
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        in_header = [0, 7, *np.linspace(8, header - 1, 25).astype(int).tolist()]
        in_tensors = np.linspace(header, len(whole) - 1, 10).astype(int).tolist()
        for place in in_header + in_tensors:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            result = polyrank(
                *("score", folder / "run", "--data", folder / "valid.parquet", "--out", folder / "s.parquet")
            )
            assert_message(result, "best.safetensors")
        for content in (b"", whole[:100], whole[:-1]):
            path.write_bytes(content)
            result = polyrank("evaluate", folder / "run", "--data", folder / "valid.parquet")
            assert_message(result, "a checkpoint must be whole")
        path.unlink()
        result = polyrank("evaluate", folder / "run", "--data", folder / "valid.parquet")
        assert_message(result, "a checkpoint must be there")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[: len(text) // 2],
            lambda text: "",
            lambda text: "[]",
            lambda text: "{}",
            lambda text: text.replace('"format": 1', '"format": 2'),
            lambda text: text.replace('"encoders"', '"encoder"'),
            lambda text: text.replace('"kind": "vocabulary"', '"kind": "number"'),
            lambda text: text.replace('"type": "int64"', '"type": "int65"'),
            lambda text: text.replace('"video_id"', '"video"'),
        ],
    )
    def test_damaged_encoders(self, polyrank, folder, damage):
        path = folder / "run/encoders/encoders.json"
        path.write_text(damage(path.read_text()))
        result = polyrank(*("score", folder / "run", "--data", folder / "valid.parquet", "--out", folder / "s.parquet"))
        assert_message(result, "encoders")

    @pytest.mark.parametrize("name", ["schema.toml", "encoders/encoders.json", "checkpoints/best.safetensors"])
    def test_missing_parts(self, polyrank, folder, name):
        (folder / "run" / name).unlink()
        assert_message(polyrank("evaluate", folder / "run", "--data", folder / "valid.parquet"), name.split("/")[-1])

    def test_config_of_another_shape(self, polyrank, folder):
        path = folder / "run/config.toml"
        path.write_text(path.read_text().replace("experts = 2", "experts = 3"))
        result = polyrank("evaluate", folder / "run", "--data", folder / "valid.parquet")
        assert_message(result, "a checkpoint must fit the run's config")
        path.write_text("format [")
        assert_message(polyrank("evaluate", folder / "run", "--data", folder / "valid.parquet"), "valid TOML")


class TestData:
    def test_infer_prints_a_schema(self, polyrank, folder):
        result = polyrank("data", "infer", folder / "train.parquet")
        assert result.code == 0
        (folder / "printed.toml").write_text(result.out)
        assert load_schema(folder / "printed.toml").tasks

    def test_infer_refuses_to_overwrite(self, polyrank, folder):
        before = (folder / "schema.toml").read_text()
        result = polyrank("data", "infer", folder / "train.parquet", "--out", folder / "schema.toml")
        assert_message(result, "does not overwrite", "schema.toml")
        assert (folder / "schema.toml").read_text() == before

    def test_infer_then_train(self, polyrank, folder):
        result = polyrank("data", "infer", folder / "train.parquet", "--out", folder / "found.toml")
        assert result.code == 0
        assert f"schema: {folder / 'found.toml'}" in result.out
        sets = ("--set", "data.schema=found.toml", "--set", "data.valid=''")
        result = polyrank("train", folder / "config.toml", "--out", folder / "new", *sets)
        assert result.code == 0, result.err

    @pytest.mark.parametrize("schema", [True, False])
    def test_profile_writes_a_page(self, polyrank, folder, schema):
        given = ["--schema", folder / "schema.toml", "--valid", folder / "valid.parquet"] if schema else []
        result = polyrank("data", "profile", folder / "train.parquet", *given, "--out", folder / "page.html")
        assert result.code == 0
        assert f"profile: {folder / 'page.html'}" in result.out
        page = (folder / "page.html").read_text()
        assert "video_id" in page
        assert "click" in page

    def test_profile_tells_of_a_leak(self, polyrank, folder):
        table = pq.read_table(folder / "train.parquet")
        leaky = pc.add(pc.multiply(table["is_click"].cast(pa.float64()), 5.0), 1.0)
        change(folder / "train.parquet", "price", leaky.combine_chunks())
        result = polyrank(
            *("data", "profile", folder / "train.parquet", "--schema", folder / "schema.toml"),
            *("--out", folder / "page.html"),
        )
        assert result.code == 0
        assert result.out.count("price alone gives click an AUC of 1.0000") == 1
        assert result.out.count("1.0000") == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["infer", "absent.parquet"], ["must be a file, a directory or a glob"]),
            (["infer", "builtin:censuss"], ["did you mean 'census'?"]),
            (["profile", "absent.parquet"], ["must be a file, a directory or a glob"]),
            (["profile", "builtin:census/valid", "--schema", "builtin:papr"], ["built-in data goes by its name"]),
            (["profile", "train.parquet", "--schema", "absent.toml"], ["absent.toml"]),
        ],
    )
    def test_mistakes(self, polyrank, folder, monkeypatch, arguments, words):
        monkeypatch.chdir(folder)
        assert_message(polyrank("data", *arguments), *words)

    def test_profile_of_a_log_without_labels(self, polyrank, folder):
        pq.write_table(
            pa.table({"video_id": np.arange(50), "price": np.random.default_rng(0).random(50)}), folder / "x.parquet"
        )
        result = polyrank("data", "profile", folder / "x.parquet", "--out", folder / "page.html")
        assert_message(result, "task")


class TestCompare:
    @pytest.fixture(autouse=True)
    def in_process(self, monkeypatch):
        def run_all(jobs, workers, progress):
            for job in jobs:
                job.work(*job.arguments, progress)

        monkeypatch.setattr("polyrank.study.run_all", run_all)

    def test_prints_verdicts_costs_and_notes(self, polyrank, folder):
        out = folder / "study"
        result = polyrank("compare", folder / "config.toml", "--out", out, "--set", "data.tasks=['click', 'watch']")
        assert result.code == 0, result.err
        for word in (
            "click",
            "watch",
            "mmoe",
            "single_task",
            "test AUC",
            "test XAUC",
            "verdict",
            "peak memory",
            "note:",
        ):
            assert word in result.out
        assert f"report: {(out / 'report.html').resolve()}" in result.out
        study = json.loads((out / "seesaw.json").read_text())
        assert study["command"].startswith("polyrank compare ")
        assert study["command"].endswith("--set 'data.tasks=['\"'\"'click'\"'\"', '\"'\"'watch'\"'\"']'")
        for model in study["models"]:
            for cell in model["tasks"].values():
                assert cell["delta"]["single_task"]["verdict"] in result.out
                assert f"{cell['delta']['single_task']['mean']:+.4f}" in result.out
        assert_message(polyrank("compare", folder / "config.toml", "--out", out), "--resume")

    def test_a_task_that_test_data_cannot_judge(self, polyrank, folder):
        # No like is labelled in the test data: its cells stay empty, the other tasks are judged.
        table = pq.read_table(folder / "valid.parquet")
        pq.write_table(table, folder / "test.parquet")
        change(folder / "test.parquet", "is_like", pa.nulls(len(table), pa.int8()))
        sets = (
            "--set",
            "data.test=test.parquet",
            "--set",
            "compare.seeds=[0]",
            "--set",
            "data.tasks=['click', 'like']",
        )
        result = polyrank("compare", folder / "config.toml", "--out", folder / "study", *sets)
        assert result.code == 0, result.err
        study = json.loads((folder / "study/seesaw.json").read_text())
        like = study["models"][0]["tasks"]["like"]
        assert like["mean"] is None
        assert like["delta"]["single_task"] == {"mean": None, "low": None, "high": None, "verdict": "tie"}

    @pytest.mark.parametrize(
        ("assignment", "words"),
        [
            ("compare.architectures=['mmoee']", ["compare.architectures must be known", "did you mean 'mmoe'?"]),
            ("compare.architectures=[]", ["compare.architectures"]),
            ("compare.level=95", ["compare.level"]),
            ("compare.lightbm=true", ["did you mean 'lightgbm'?"]),
        ],
    )
    def test_mistakes(self, polyrank, folder, assignment, words):
        result = polyrank("compare", folder / "config.toml", "--out", folder / "study", "--set", assignment)
        assert_message(result, *words)
        assert not (folder / "study").exists()

    def test_a_difference_without_an_interval(self, capsys):
        study = copy.deepcopy(STUDY)
        cell = study["models"][0]["tasks"]["income"]["delta"]["single_task"]
        cell |= {"mean": 0.0625, "low": None, "high": None, "verdict": "tie"}
        del study["costs"]["lightgbm"]
        cli._print_study(study, Path("out"))
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "+0.0625" in line)
        assert line.split("+0.0625")[1].split()[0] == "tie"

    def test_costs_have_a_line_for_every_reference(self, capsys):
        study = copy.deepcopy(STUDY)
        study["costs"]["lightgbm"] = {"train_seconds": 12.34, "peak_memory_bytes": 2**30, "model_bytes": 3 * 2**20}
        cli._print_study(study, Path("out"))
        lines = capsys.readouterr().out.splitlines()
        (line,) = (line for line in lines if line.startswith("LightGBM, all"))
        assert line.split()[2:] == ["–", "12.3", "1,024", "MiB", "3.00", "MiB"]
        assert any(line.startswith("single-task, all") for line in lines)
        del study["costs"]["lightgbm"]
        cli._print_study(study, Path("out"))
        assert "LightGBM, all" not in capsys.readouterr().out

    def test_demo_mistakes(self, polyrank, tmp_path):
        result = polyrank("demo", "--out", tmp_path / "demo", "--set", "train.epoch=1")
        assert_message(result, "did you mean 'epochs'?")


class TestTune:
    def test_prints_the_best_and_where_it_is(self, polyrank, folder):
        sets = ("--set", "data.test=test.parquet", "--set", "data.tasks=['click']")
        shutil.copy(folder / "valid.parquet", folder / "test.parquet")
        out = folder / "search"
        result = polyrank("tune", folder / "config.toml", "--out", out, "--trials", 2, *sets)
        assert result.code == 0, result.err
        found = json.loads((out / "tune.json").read_text())
        assert [trial["number"] for trial in found["trials"]] == [0, 1]
        assert "0, the config" in result.out
        assert "click, test AUC" in result.out
        assert f"{found['test']['0']['click']['auc']:.4f}" in result.out
        for name in ("best.toml", "report.html"):
            assert str((out / name).resolve()) in result.out
            assert (out / name).exists()
        assert "trial 1: mean " in result.err
        again = polyrank("tune", folder / "config.toml", "--out", out, "--trials", 3, *sets)
        assert_message(again, "a new search needs a directory of its own", "--resume")
        longer = polyrank("tune", folder / "config.toml", "--out", out, "--trials", 3, "--resume", *sets)
        assert longer.code == 0, longer.err
        assert len(json.loads((out / "tune.json").read_text())["trials"]) == 3

    @pytest.mark.parametrize(
        ("assignment", "words"),
        [
            ("tune.space.train.learning_rat={low=0.1, high=1.0}", ["no key 'learning_rat'", "'learning_rate'"]),
            ("tune.space.train.epochs=3", ["tune.space.train.epochs must be a range", "low = 0.1"]),
            ("tune.trails=3", ["[tune] has no key 'trails'", "'trials'"]),
            ("tune.objectives=['clik']", ["tune.objectives must name tasks", "'click'"]),
        ],
    )
    def test_mistakes(self, polyrank, folder, assignment, words):
        result = polyrank("tune", folder / "config.toml", "--out", folder / "search", "--set", assignment)
        assert_message(result, *words)
        assert not (folder / "search").exists()


class TestLastResort:
    def test_interrupt_is_1(self, polyrank, folder, monkeypatch):
        def interrupted(*arguments, **knobs):
            raise KeyboardInterrupt

        monkeypatch.setattr("polyrank.experiment.infer", interrupted)
        result = polyrank("data", "infer", folder / "train.parquet")
        assert result.code == 1
        assert "interrupted" in result.err
        assert "Traceback" not in result.err

    def test_a_bug_shows_where_it_is_and_is_1(self, polyrank, folder, monkeypatch):
        def broken(*arguments, **knobs):
            raise ZeroDivisionError("[bold]no[/bold]")

        monkeypatch.setattr("polyrank.experiment.infer", broken)
        result = polyrank("data", "infer", folder / "train.parquet")
        assert result.code == 1
        assert "ZeroDivisionError: [bold]no[/bold]" in result.err
        assert "this is a bug in polyrank" in result.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["train", "absent.toml", "--out", "run"], 2), (["trian"], 2)],
    ids=["help", "bad input", "bad usage"],
)
def test_exit_codes_of_a_process(arguments, code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "polyrank.cli", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "compare", "tune"])
@pytest.mark.parametrize(
    ("text", "sets", "rule"),
    [
        (None, [], "must be a TOML file"),
        ("[data\n", [], "must be valid TOML"),
        ("", ["--set", "epochs"], "--set takes"),
    ],
    ids=["missing", "syntax", "set"],
)
def test_a_config_that_cannot_be_read_is_said_before_torch_is_imported(command, text, sets, rule, tmp_path):
    if text is not None:
        (tmp_path / "c.toml").write_text(text)
    arguments = ["polyrank", command, "c.toml", "--out", "run", *sets]
    script = f"""
import sys
from polyrank import cli
sys.argv = {arguments!r}
try:
    cli.main()
finally:
    print("torch" in sys.modules, "pyarrow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "False False\n")
    assert rule in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_demo_runs(polyrank, tmp_path):
    sets = ["train.epochs=1", "compare.architectures=['shared_bottom']", "compare.seeds=[0]", "compare.replicates=10"]
    result = polyrank("demo", "--out", tmp_path / "demo", *(word for each in sets for word in ("--set", each)))
    assert result.code == 0, result.err
    study = json.loads((tmp_path / "demo/seesaw.json").read_text())
    assert study["rows"] == {"train": 199_523, "valid": 49_881, "test": 49_881}
    for cell in study["models"][0]["tasks"].values():
        assert cell["mean"] > 0.9


def test_simulate_shop_makes_data_for_its_config(polyrank, tmp_path):
    result = polyrank("simulate", "shop", "--out", tmp_path / "shop", "--exposures", "1000", "--selection", "0.5")
    assert result.code == 0
    assert "train 800, valid 100, test 100 rows" in result.out
    names = sorted(path.name for path in (tmp_path / "shop").iterdir())
    assert names == ["schema.toml", "test.parquet", "train.parquet", "valid.parquet"]
