"""The verbs: files, resume, refusal to overwrite, and mistakes that are told apart."""

import json

import pytest

from polyrank import rl, rl_experiment
from polyrank.errors import ConfigError, DataError, RunError
from polyrank.files import read_json


def test_what_is_written(folder) -> None:
    for name in ("policy/policy.json", "policy/policy.safetensors", "rl.json", "report.html", "config.json"):
        assert (folder / "out" / name).exists(), name
    assert json.dumps(read_json(folder / "out/rl.json"), allow_nan=False)


def test_a_second_call_does_not_overwrite(folder) -> None:
    with pytest.raises(RunError, match="directory of its own"):
        rl_experiment.fuse_rl(folder / "config.toml", [], folder / "out", resume=False, command="")
    with pytest.raises(RunError, match="another"):
        rl_experiment.fuse_rl(folder / "config.toml", ["rl.seed=5"], folder / "out", resume=True, command="")


def test_resumed_it_learns_nothing_again_and_says_the_same(folder, document, monkeypatch) -> None:
    monkeypatch.setattr(rl, "METHODS", {})
    monkeypatch.setattr("polyrank.fusion.crossfit.fitted_q", None)
    again = rl_experiment.fuse_rl(folder / "config.toml", [], folder / "out", resume=True, command="")
    for key in ("estimates", "checks", "curves", "cohorts", "where"):
        assert again[key] == document[key], key


def test_an_estimate_of_another_log(folder, tmp_path) -> None:
    sets = ["steps=50", "gamma=0.5"]
    found = rl_experiment.ope(folder / "out", folder / "other.parquet", sets, tmp_path / "ope", cohorts=["state:0"])
    assert found["gamma"] == 0.5
    assert found["sessions"] == 700
    assert found["where"]["weights"][0]["name"] == "watch"
    assert len(found["cohorts"]) == 4
    assert (tmp_path / "ope/report.html").exists()
    assert read_json(tmp_path / "ope/ope.json") == json.loads(json.dumps(found))
    with pytest.raises(RunError, match="directory of its own"):
        rl_experiment.ope(folder / "out/policy", folder / "other.parquet", sets, tmp_path / "ope")


def test_what_taught_a_policy_does_not_judge_it(folder, tmp_path) -> None:
    with pytest.raises(DataError, match="did not teach it"):
        rl_experiment.ope(folder / "out", folder / "log.parquet", ["steps=10"])
    copy = tmp_path / "copy.parquet"
    copy.write_bytes((folder / "log.parquet").read_bytes())
    sets = [f"rl.test={copy}"]
    with pytest.raises(DataError, match=r"the same as rl\.log"):
        rl_experiment.fuse_rl(folder / "config.toml", sets, tmp_path / "out", resume=False, command="")
    assert not (tmp_path / "out/policy").exists()


def test_a_question_that_cannot_be_asked_is_refused_before_anything_is_estimated(folder, monkeypatch) -> None:
    monkeypatch.setattr(rl, "assess", None)
    for asked in ({"users": "usr"}, {"cohorts": ["state:99"]}):
        with pytest.raises(ConfigError):
            rl_experiment.ope(folder / "out", folder / "other.parquet", **asked)


@pytest.mark.parametrize("name", ["nothere", "."])
def test_no_policy_is_said_to_be_none(folder, name) -> None:
    with pytest.raises(RunError, match="a policy must be a directory that polyrank fuse rl or save_policy wrote"):
        rl_experiment.ope(folder / name, folder / "other.parquet")


def test_without_out_nothing_is_written(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rl_experiment.ope(folder / "out/policy", folder / "other.parquet", ["steps=10"], users="user")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sets", "error", "words"),
    [
        (["rl.log=none.parquet"], DataError, "none.parquet"),
        (["rl.method=batchrl"], ConfigError, "rl.method"),
        (["rl.cohorts=['signal:activty']"], ConfigError, "signal:activity"),
        (["rl.heads=['a']"], ConfigError, "heads"),
        (["rl.low=[0.0]", "rl.high=[1.0]"], ConfigError, "rl.low"),
        (["rl.users='usr'"], ConfigError, "user"),
        (["rl.reward.stickiness.wach=1.0"], ConfigError, "watch"),
        (["rl.test=none.parquet"], DataError, "none.parquet"),
    ],
)
def test_mistakes_are_told_before_anything_is_learned(folder, tmp_path, sets, error, words) -> None:
    with pytest.raises(error, match=words):
        rl_experiment.fuse_rl(folder / "config.toml", sets, tmp_path / "out", resume=False, command="")
    assert not (tmp_path / "out/policy").exists()


def test_an_unknown_estimator_knob_is_told(folder) -> None:
    with pytest.raises(ConfigError, match="gama"):
        rl_experiment.ope(folder / "out", folder / "other.parquet", ["gama=0.5"])
    with pytest.raises(RunError, match=r"policy\.json"):
        rl_experiment.ope(folder, folder / "other.parquet")
