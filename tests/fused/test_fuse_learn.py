"""Learned rankers of a run: what they write, that they are not trained twice, and the command."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from polyrank import experiment
from polyrank.cli import app
from polyrank.errors import ConfigError, RunError
from polyrank.fusion.store import load_fusion

QUICK = [
    "fusion.learn.lambdarank.trees=30",
    "fusion.learn.lambdarank.threads=1",
    "fusion.learn.monotone.epochs=4",
    "fusion.learn.listwise.epochs=3",
    "fusion.learn.listwise.width=8",
    "fusion.learn.listwise.attention_heads=2",
    'fusion.learn.context=["seconds"]',
    'fusion.segment="active"',
]


def learn(folder: Path, out: Path, *more: str, resume: bool = False) -> dict:
    return experiment.fuse_learn(
        folder / "config.toml", [*QUICK, *more], out, resume=resume, command="polyrank fuse learn"
    )


@pytest.fixture(scope="module")
def learned(folder: Path) -> Path:
    learn(folder, folder / "learned")
    return folder / "learned"


def test_every_ranker_is_there_and_one_is_chosen_by_the_held_users(learned: Path) -> None:
    document = json.loads((learned / "learned.json").read_text())
    names = ["lambdarank", "monotone", "listwise"]
    assert [entry["name"] for entry in document["learned"]] == names
    assert document["chosen"] == max(names, key=lambda name: document["held"][name])
    for name in names:
        assert load_fusion(learned / name).context == ("seconds",)
    assert load_fusion(learned).kind == document["chosen"]
    shown = [ranking["name"] for ranking in document["rankings"]]
    assert shown == ["click alone", "like alone", "current formula", *names]  # a hate alone is nobody's corner
    assert document["reference"] == "current formula"
    assert [entry["cohort"] for entry in document["cohorts"]] == ["active", *["seconds"] * 4]
    assert (learned / "report.html").stat().st_size > 100_000


def test_rankers_beat_the_worse_half_of_what_they_are_made_of(learned: Path) -> None:
    # The log is made of bait, which is clicked, and of good videos, which are liked: a sum of both beats each alone.
    document = json.loads((learned / "learned.json").read_text())
    composite = {r["name"]: r["metrics"]["composite"]["gauc"]["value"] for r in document["rankings"]}
    for name in ("lambdarank", "monotone"):
        assert composite[name] > min(composite["click alone"], composite["like alone"]) + 0.02


def test_what_is_trained_is_not_trained_again(folder: Path, learned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in learned.glob("*/fusion.json")}
    learn(folder, learned, resume=True)
    assert {path: path.stat().st_mtime_ns for path in learned.glob("*/fusion.json")} == before
    with pytest.raises(RunError, match="directory of their own"):
        learn(folder, learned)
    with pytest.raises(RunError, match="another"):
        learn(folder, learned, "fusion.learn.seed=1", resume=True)


def test_a_searched_formula_is_what_they_must_beat(folder: Path, searched: Path, tmp_path: Path) -> None:
    quick = ('fusion.learn.rankers=["lambdarank"]', f'fusion.learn.against="{searched}"')
    document = learn(folder, tmp_path / "out", *quick)
    assert document["reference"] == "searched formula"
    assert [r["name"] for r in document["rankings"]][2:] == ["searched formula", "current formula", "lambdarank"]


def test_without_a_formula_they_are_compared_with_equal_contributions(folder: Path, tmp_path: Path) -> None:
    document = learn(folder, tmp_path / "out", 'fusion.learn.rankers=["lambdarank"]', 'fusion.current=""')
    assert document["reference"] == "equal contributions"


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'monotone'"):
        learn(folder, tmp_path / "a", 'fusion.learn.rankers=["monotonic"]')
    with pytest.raises(Exception, match="second"):
        learn(folder, tmp_path / "b", 'fusion.learn.context=["second"]')


def test_attached_it_is_the_score(folder: Path, learned: Path, tmp_path: Path) -> None:
    assert experiment.fuse_attach(folder / "run", str(learned / "listwise")).request == ("user", "day")
    experiment.fuse_attach(folder / "run", str(learned / "monotone"))
    experiment.score(folder / "run", str(folder / "test.parquet"), tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")
    fusion = load_fusion(learned / "monotone")
    columns = {name: np.asarray(scores[f"p_{name}"], np.float64) for name in ("click", "like", "hate")}
    columns["seconds"] = np.asarray(pq.read_table(folder / "test.parquet")["seconds"])
    np.testing.assert_allclose(np.asarray(scores["score"]), fusion.score(columns), rtol=1e-6)
    (folder / "run/fusion.json").unlink(missing_ok=True)


def test_the_command_says_what_it_found(folder: Path, tmp_path: Path) -> None:
    options = [option for assignment in QUICK[:2] for option in ("--set", assignment)]
    arguments = ["fuse", "learn", str(folder / "config.toml"), "--out", str(tmp_path / "out"), *options]
    arguments += ["--set", 'fusion.learn.rankers=["lambdarank"]']
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for words in ("lambdarank", "chosen: lambdarank", "polyrank fuse attach", "report: "):
        assert words in result.output
