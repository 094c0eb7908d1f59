import json
import sys

import pytest

from polyrank import cli
from polyrank.fusion.sessions import read_sessions


@pytest.fixture
def simulate(monkeypatch, capsys, tmp_path):
    """`polyrank simulate …` in this process and in a directory of its own: exit code, and what it printed."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["polyrank", "simulate", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


SMALL = ("--sessions", 60, "--around", "start", "--set", "longest=2")


def test_a_log_is_written_and_told_of(simulate, tmp_path):
    code, told = simulate("--mode", "c", *SMALL, "--explore", "bounded", "--seed", 3, "--out", "logs/log.parquet")
    assert code == 0, told
    assert "60 sessions" in told
    assert len(read_sessions(tmp_path / "logs/log.parquet").sessions) == 60
    facts = json.loads((tmp_path / "logs/log.json").read_text())
    assert facts["command"].startswith("polyrank simulate --mode c")
    assert facts["world"]["longest"] == 2
    again, _ = simulate("sessions", "--mode", "c", *SMALL, "--seed", 3, "--out", "again.parquet")
    assert again == 0
    assert json.loads((tmp_path / "again.json").read_text())["sha256"] == facts["sha256"]


def test_a_log_is_not_overwritten_unless_asked(simulate, tmp_path):
    arguments = ("--mode", "a", *SMALL, "--out", "log.parquet")
    assert simulate(*arguments)[0] == 0
    before = (tmp_path / "log.parquet").read_bytes()
    code, told = simulate(*arguments, "--seed", 1)
    assert code == 2
    assert "--overwrite" in told
    assert (tmp_path / "log.parquet").read_bytes() == before
    assert simulate(*arguments, "--seed", 1, "--overwrite")[0] == 0
    assert (tmp_path / "log.parquet").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mode", "e"), "world.mode"),
        (("--explore", "bouned"), "simulate.explore"),
        (("--width", 0), "simulate.width"),
        (("--set", "nois=1"), "noise"),
        (("--set", "shown=30"), "shown"),
        (("--around", "1,2"), "watch, complete"),
        (("--out", "log.csv"), ".parquet"),
        (("--near", 3), "--explore mixed"),
        (("--set", "noise"), "--set takes key=value, or section.key=value"),
    ],
)
def test_a_mistake_is_one_message(simulate, tmp_path, arguments, said):
    code, told = simulate("--out", "log.parquet", *arguments)
    assert code == 2
    assert said in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_help_says_how(simulate):
    code, told = simulate()
    assert "sessions" in told
    assert "shop" in told
    code, told = simulate("sessions", "--help")
    assert code == 0
    assert "polyrank simulate --mode c --out log.parquet" in told


def test_the_shop_is_there_too(simulate, tmp_path):
    code, told = simulate("shop", "--exposures", 1_000, "--out", "shop")
    assert code == 0, told
    assert (tmp_path / "shop/schema.toml").exists()
    (tmp_path / "shop/schema.toml").write_text("mine")
    code, told = simulate("shop", "--exposures", 1_000, "--out", "shop")
    assert code == 2
    assert "schema.toml" in told
    assert (tmp_path / "shop/schema.toml").read_text() == "mine"
    assert simulate("shop", "--exposures", 1_000, "--out", "shop", "--overwrite")[0] == 0
    assert (tmp_path / "shop/schema.toml").read_text() != "mine"
