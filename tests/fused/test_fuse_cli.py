"""The commands, as they are typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from polyrank.cli import app
from polyrank.errors import ConfigError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": "120"}, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_search_says_what_it_found_and_what_to_do_next(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = run("fuse", "search", folder / "config.toml", "--out", out, "--set", "fusion.search.trials=12")
    for words in ("Δ against the current formula", "searched: ", "like alone", "polyrank fuse attach", "report: "):
        assert words in text
    assert "log(like + 0.0001)" in text


def test_attach_and_calibrate(folder: Path, tmp_path: Path) -> None:
    text = run("fuse", "attach", folder / "run", "click * like * log1p(seconds)")
    for words in ("score: click * like * log1p(seconds)", "predictions of click, like; the columns seconds", "next: "):
        assert words in text
    text = run("calibrate", folder / "run", "--method", "beta", "--negative-rate", "click=0.5")
    assert "ECE before" in text
    (folder / "run/calibration.json").unlink()


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--method", "isotonix"], "isotonic"), (["--negative-rate", "click"], "TASK=SHARE")],
)
def test_mistakes(folder: Path, options: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run("calibrate", folder / "run", *options)


@pytest.mark.parametrize("command", [["fuse"], ["fuse", "search"], ["fuse", "attach"], ["calibrate"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert len(result.output) > 300
