"""The demo's last act, in small: its files, its truth, and that it goes on where it stopped."""

from pathlib import Path

import pytest

from polyrank import rl_demo
from polyrank.files import read_json
from polyrank.rl_cli import print_truth
from polyrank.rl_demo import LEARNED, MATCHED, ORACLE, STATIC, Sizes, policy_demo

SMALL = Sizes(sessions=1_500, truth=1_000, rehearsed=150, generations=2, steps=30)
QUICK = ["rl.linear_cem.steps=10", "rl.linear_cem.states=200", "rl.estimate.replicates=20"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    patch = pytest.MonkeyPatch()
    patch.setattr("polyrank.simulator.session_log._SEARCHED", 150)
    policy_demo(path, QUICK, sizes=SMALL)
    patch.undo()
    return path


def test_it_tells_the_truth_of_every_policy(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_json(out / "truth.json")
    values = document["values"]
    assert list(values) == [LEARNED, MATCHED, STATIC, ORACLE]
    for name in (LEARNED, MATCHED, ORACLE):
        entry = values[name]
        assert entry["low"] <= entry["gain"] <= entry["high"]
        assert entry["gain"] == pytest.approx(entry["mean"] - values[STATIC]["mean"])
    if document["captured"] is not None:
        assert document["captured"] == pytest.approx(values[LEARNED]["gain"] / values[ORACLE]["gain"])
    print_truth(document, out)
    printed = capsys.readouterr().out
    assert f"{values[ORACLE]['mean']:.3f}" in printed
    assert "from the log alone" in printed


def test_its_files_can_be_used_again(out: Path) -> None:
    for name in ("sessions.parquet", "rl.toml", "policy/policy/policy.json", "policy/report.html"):
        assert (out / name).exists(), name


def test_resumed_it_simulates_and_learns_nothing_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_json(out / "truth.json")
    monkeypatch.setattr(rl_demo, "write_log", None)
    monkeypatch.setattr("polyrank.rl.METHODS", {})
    assert policy_demo(out, QUICK, resume=True, sizes=SMALL) == before
