"""docs/rl_tutorial.md, as it is written, in small."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polyrank.cli import app
from polyrank.config import build
from polyrank.fusion.session_reward import SatisfactionConfig

TEXT = (Path(__file__).parent.parent / "docs/rl_tutorial.md").read_text(encoding="utf-8")
SMALL = (
    "rl.estimate.steps=10 rl.estimate.replicates=10 rl.linear_cem.steps=3 rl.linear_cem.states=100 "
    "rl.unified_rl.steps=10"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def small(command: str) -> list[str]:
    """The command with few sessions and steps."""
    words = shlex.split(command, comments=True)[1:]
    if words[0] == "simulate":
        words[words.index("--sessions") + 1] = "150"
        words += ["--around", "start"] if "--around" not in words else []  # not searched
    if words[:2] == ["fuse", "rl"]:
        words += [word for each in SMALL.split() for word in ("--set", each)]
    if words[0] == "ope":
        words += ["--set", "steps=10", "--set", "replicates=10"]
    return words


def test_every_command_and_the_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config, reward = blocks("toml")
    Path("rl.toml").write_text(config)
    (code,) = blocks("python")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) == 7
    for command in commands:
        if "--around" in command:  # what follows goes round with the policy that was verified
            exec(compile(code.replace("20_000", "50"), "tutorial", "exec"), {})  # noqa: S102
            code = ""
        result = CliRunner().invoke(app, small(command), env={"COLUMNS": "120"}, catch_exceptions=False)
        assert result.exit_code == 0, command + result.output
    printed = capsys.readouterr().out
    assert "policy: " in printed
    assert "best static: " in printed
    for path in ("runs/policy/report.html", "runs/unified/policy/policy.json", "runs/ope/ope.json"):
        assert Path(path).exists()
    build(SatisfactionConfig, tomllib.loads(reward)["rl"]["reward"], "rl.reward")
