from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyrank.balancing.balancer import BALANCERS
from polyrank.config import read_toml, write_toml
from polyrank.data.encoders import Field, Layout, TaskStatistics
from polyrank.data.schema import Task
from polyrank.errors import ConfigError
from polyrank.models.mmoe import MMoE
from polyrank.models.ple import PLE
from polyrank.models.ranker import ARCHITECTURES, Ranker
from polyrank.settings import Settings, load_settings, parse_settings

DATA: dict[str, Any] = {"schema": "schema.toml", "train": "log.parquet"}


def _parse(base: Path = Path("base"), **sections: Any) -> Settings:
    return parse_settings({"data": DATA, **sections}, base)


def test_data_is_all_that_must_be_given() -> None:
    settings = _parse()

    assert (settings.data.schema, settings.data.train, settings.data.valid, settings.data.tasks) == (
        "schema.toml",
        "log.parquet",
        "",
        (),
    )
    assert settings.base == Path("base")
    assert set(settings.options) == set(ARCHITECTURES)
    assert set(settings.balancers) == set(BALANCERS)
    assert settings.balance.method == "static"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"trian": {}}, r"no such section\n.*trian\n.*did you mean 'train'"),
        ({"data": DATA, "train": 3}, r"train must be a section\n.*train = 3\n.*below \[train\]"),
        ({"model": {"architecture": "ple"}}, r"must have the section \[data\]"),
        ({"data": {"schema": "s"}}, r"data\.train must be given"),
        ({"data": {**DATA, "trian": "x"}}, r"\[data\] has no key 'trian'[\s\S]*did you mean 'train'"),
        ({"data": {**DATA, "train": ""}}, r"data\.train: .*at least 1"),
        ({"data": {**DATA, "valid_share": 0.5}}, r"data\.valid_share: .*less than 0\.5"),
        ({"data": DATA, "train": {"epoch": 1}}, r"\[train\] has no key 'epoch'[\s\S]*did you mean 'epochs'"),
        ({"data": DATA, "train": {"epochs": 0}}, r"train\.epochs: .*greater than 0"),
        ({"data": DATA, "train": {"warmup": 1.0}}, r"train\.warmup: .*less than 1"),
        ({"data": DATA, "train": {"schedule": "cosin"}}, r"train\.schedule: .*'constant', 'cosine' or 'one_cycle'"),
        ({"data": DATA, "model": {"architecture": "mmoee"}}, r"model\.architecture[\s\S]*did you mean 'mmoe'"),
        ({"data": DATA, "model": {"architecure": "ple"}}, r"\[model\] has no key[\s\S]*did you mean 'architecture'"),
        ({"data": DATA, "model": {"mmoee": {"experts": 2}}}, r"received: \[model\.mmoee\]\n.*did you mean 'mmoe'"),
        ({"data": DATA, "model": {"mmoe": {"expert": 2}}}, r"\[model\.mmoe\] has no key[\s\S]*mean 'experts'"),
        ({"data": DATA, "model": {"ple": {"levels": 0}}}, r"model\.ple\.levels: .*greater than 0"),
        ({"data": DATA, "model": {"ple": 3}}, r"model\.ple"),
        ({"data": DATA, "balance": {"method": "statik"}}, r"balance\.method[\s\S]*did you mean 'static'"),
        ({"data": DATA, "balance": {"statik": {}}}, r"received: \[balance\.statik\]\n.*did you mean 'static'"),
        ({"data": DATA, "balance": {"static": {"weight": {}}}}, r"\[balance\.static\] has no key[\s\S]*'weights'"),
        (
            {"data": DATA, "balance": {"static": {"weights": {"a": -1}}}},
            r"balance\.static\.weights\.a: .*equal to 0",
        ),
        ({"data": DATA, "compare": {"architectures": ["pel"]}}, r"compare\.architectures[\s\S]*did you mean 'ple'"),
        ({"data": DATA, "compare": {"architectures": []}}, r"compare\.architectures: .*at least 1"),
        ({"data": DATA, "compare": {"seeds": [0, -1]}}, r"compare\.seeds\[1\]: .*or equal to 0"),
        (
            {"data": DATA, "compare": {"architectures": ["ple", "single_task"]}},
            r"trained beside[\s\S]*remove it",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_advice(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(table, Path())


def _ranker(settings: Settings) -> Ranker:
    tasks = [Task("a", "binary"), Task("b", "binary")]
    layout = Layout((Field("x", "id", 0, 1, "x"),), {"x": 5})
    name = settings.model.architecture
    statistics = [TaskStatistics(2, 0.5, 0.5)] * 2
    return Ranker(tasks, statistics, layout, settings.model, settings.options[name])


def test_an_architecture_s_own_knobs_reach_the_model() -> None:
    knobs = {"mmoe": {"experts": 3, "widths": [7]}, "ple": {"levels": 3, "specific_experts": 4}}

    mmoe = _ranker(_parse(model={"architecture": "mmoe", "embedding_width": 5, "towers": [], **knobs})).architecture
    ple = _ranker(_parse(model={"architecture": "ple", **knobs})).architecture

    assert isinstance(mmoe, MMoE)
    assert (mmoe.experts, mmoe.out_width) == (3, 7)
    assert mmoe.level.groups[0].weight.shape == (5, 3 * 7 + 2 * 3)  # of width 5: 3 experts of 7, and 2 gates of 3
    assert isinstance(ple, PLE)
    assert len(ple.later) == 2
    assert ple.shape.specific == 4


RICH: dict[str, Any] = {
    "data": {**DATA, "valid": "valid.parquet", "tasks": ["b", "a"], "leak_guard": False},
    "model": {"architecture": "cgc", "towers": [16, 8], "embedding_dropout": 0.5, "cgc": {"widths": [9]}},
    "balance": {"static": {"weights": {"a": 2.5}}},
    "train": {"learning_rate": 1e-30, "seed": 2**40, "embedding_learning_rate": 1, "metric": "a", "tensorboard": True},
    "compare": {"seeds": [5], "jobs": 2},
}


@pytest.mark.parametrize("table", [{"data": DATA}, RICH], ids=["defaults", "rich"])
def test_what_a_run_saves_gives_the_same_settings(table: dict[str, Any], tmp_path: Path) -> None:
    settings = parse_settings(table, tmp_path)
    name = settings.model.architecture

    write_toml(tmp_path / "config.toml", settings.table(run=True))
    again = parse_settings(read_toml(tmp_path / "config.toml"), tmp_path)

    for section in ("model", "space", "balance", "train", "base"):
        assert getattr(again, section) == getattr(settings, section)
    valid = str(tmp_path / settings.data.valid) if settings.data.valid else ""
    places = {"schema": str(tmp_path / "schema.toml"), "train": str(tmp_path / "log.parquet"), "valid": valid}
    assert again.data == replace(settings.data, **places)
    assert again.options[name] == settings.options[name]
    assert again.balancers[settings.balance.method] == settings.balancers[settings.balance.method]
    assert again.table(run=True) == settings.table(run=True) == read_toml(tmp_path / "config.toml")


def test_what_a_run_saves_is_what_it_used() -> None:
    table = parse_settings(RICH, Path()).table(run=True)

    assert set(table) == {"data", "model", "space", "balance", "train"}
    parts = {"sequence", "number", "feature_gate", "ensemble", "cross", "heads", "extension"}
    assert {key for key, value in table["model"].items() if isinstance(value, dict)} == {"cgc"} | parts
    assert {key for key, value in table["balance"].items() if isinstance(value, dict)} == {"static"}


def test_what_a_run_saves_can_be_read_from_anywhere(tmp_path: Path) -> None:
    places = {"schema": "builtin:census", "train": "s3://bucket/log", "valid": "logs/*.parquet", "test": "/data/t.csv"}

    table = parse_settings({"data": places}, tmp_path).table(run=True)

    assert {key: table["data"][key] for key in places} == {**places, "valid": str(tmp_path / "logs/*.parquet")}


def test_what_a_study_saves_is_everything() -> None:
    settings = parse_settings(RICH, Path())

    table = settings.table(run=False)

    assert set(ARCHITECTURES) <= set(table["model"])
    assert set(BALANCERS) <= set(table["balance"])
    assert parse_settings(table, Path()) == settings


def test_a_file_s_paths_start_from_its_directory_and_set_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/c.toml").write_text('[data]\nschema = "s.toml"\ntrain = "t"\n[train]\nseed = 1\n')
    monkeypatch.chdir(tmp_path)

    settings = load_settings(
        Path("configs/c.toml"), ["train.seed=3", "model.architecture=ple", "model.ple.levels=3", "data.tasks=['a']"]
    )

    assert settings.base == tmp_path / "configs"
    assert settings.train.seed == 3
    assert settings.model.architecture == "ple"
    assert settings.options["ple"].levels == 3
    assert settings.data.tasks == ("a",)


def test_with_model() -> None:
    settings = _parse(model={"embedding_dropout": 0.25}, train={"epochs": 3, "metric": "b"})

    other = settings.with_model("ple", 7)

    assert (other.model.architecture, other.train.seed, other.train.metric) == ("ple", 7, "b")
    assert (other.model.embedding_dropout, other.train.epochs, other.data.tasks) == (0.25, 3, ())
    assert other.options is settings.options
    assert settings.model.architecture == "mmoe"  # the original stays


@pytest.mark.parametrize(("metric", "task", "expected"), [("b", "b", "b"), ("b", "a", "mean"), ("mean", "a", "mean")])
def test_with_model_for_one_task(metric: str, task: str, expected: str) -> None:
    settings = _parse(train={"metric": metric}, balance={"static": {"weights": {"a": 2.0, "b": 3.0}}})

    alone = settings.with_model("single_task", 0, (task,))

    assert alone.data.tasks == (task,)
    assert alone.train.metric == expected
    # Weights that name other tasks would be refused, and one task alone has nothing to be balanced with.
    assert alone.balancers["static"].weights == {}
    assert settings.with_model("ple", 0).balancers["static"].weights == {"a": 2.0, "b": 3.0}


def test_with_model_keeps_the_tasks_of_the_config() -> None:
    settings = parse_settings({"data": {**DATA, "tasks": ["a", "b"]}, "train": {"metric": "a"}}, Path())

    assert settings.with_model("ple", 1).data.tasks == ("a", "b")
    assert settings.with_model("ple", 1).train.metric == "a"
