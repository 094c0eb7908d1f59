"""The commands, as they are typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from polyrank.cli import app


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": "130"}, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_an_empty_config_and_settings_will_do(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    sets = [
        f"rl.log={folder / 'log.parquet'}",
        "rl.method=linear_cem",
        "rl.estimate.steps=20",
        "rl.estimate.replicates=10",
    ]
    sets += ["rl.linear_cem.steps=20", "rl.linear_cem.states=64"]
    words = [word for each in sets for word in ("--set", each)]
    text = run("fuse", "rl", tmp_path / "empty.toml", *words, "--out", tmp_path / "out")
    for said in ("matched static", "kernel DR", "verdict:", "policy: ", "report: ", "return of a session"):
        assert said in text, said


def test_ope_prints_and_writes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ope"
    text = run(
        "ope", folder / "out", folder / "other.parquet", "--set", "steps=20", "--cohort", "state:0", "--out", out
    )
    assert "conservative" in text
    assert (out / "ope.json").exists()


@pytest.mark.parametrize("command", [["fuse", "rl"], ["ope"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert len(result.output) > 800
