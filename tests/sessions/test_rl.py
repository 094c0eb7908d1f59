"""Learning and judging: on other sessions, beside the control, and right where the truth is known."""

import numpy as np
import pytest

from polyrank.errors import ConfigError, DataError
from polyrank.fusion.policy import StaticPolicy, load_facts, load_policy
from polyrank.fusion.session_reward import SatisfactionConfig
from polyrank.fusion.sessions import read_sessions
from polyrank.progress import Silent
from polyrank.rl import Question, judge, read_log, split


def test_estimates_of_a_step_meet_the_truth(folder, document, true_reward) -> None:
    log, policy = read_sessions(folder / "log.parquet"), load_policy(folder / "out/policy")
    truth = {
        "policy": true_reward(log.states, policy.act(log.states)).mean(),
        "matched static": true_reward(log.states, np.tile(np.float32(document["static"]), (len(log.states), 1))).mean(),
    }
    for name, value in truth.items():
        assert document["estimates"]["policies"][name]["kernel_dr"]["value"] == pytest.approx(value, abs=0.12)
    lift = document["estimates"]["lifts"]["policy"]["log"]["kernel_dr"]
    assert lift["verdict"] == "gain"


def test_the_document_says_who_learned_and_who_judged(document) -> None:
    assert document["learned"]["sessions"] + document["sessions"] == 1_200
    assert document["sessions"] == 360
    assert document["curves"]["q"]
    assert document["believed"]["last"] == document["curves"]["q"][-1][1]
    assert document["verdict"] in ("proven", "unproven", "unsafe")
    assert [weight["name"] for weight in document["where"]["weights"]] == ["watch", "like"]
    assert document["where"]["outside"] == 0
    assert {entry["cohort"] for entry in document["cohorts"]} == {"signal:activity", "state:1"}
    assert sum(e["sessions"] for e in document["cohorts"] if e["cohort"] == "signal:activity") == 360


def test_facts_are_kept_with_the_policy(folder) -> None:
    facts = load_facts(folder / "out/policy")
    assert facts["heads"] == ["watch", "like"]
    assert facts["rl"]["method"] == "linear_cem"
    assert len(facts["box"][0]) == 2


def test_users_are_on_one_side(folder) -> None:
    log = read_sessions(folder / "log.parquet")
    learning, judging = split(log, 0.3, 0, "user")
    sides = [set(np.unique(part.signals["user"])) for part in (learning, judging)]
    assert not sides[0] & sides[1]
    assert len(learning.rewards) + len(judging.rewards) == len(log.rewards)
    with pytest.raises(ConfigError, match="users"):
        split(log, 0.3, 0, "usr")


def test_a_split_without_a_judge_is_refused(folder) -> None:
    log = read_sessions(folder / "log.parquet")
    with pytest.raises(DataError, match="judge"):
        split(log.select(np.arange(1_200) == 0), 0.3, 0)


def test_the_reward_is_made_of_signals(folder) -> None:
    plain = read_log(folder / "log.parquet", SatisfactionConfig())
    made = read_log(folder / "log.parquet", SatisfactionConfig(stickiness={"watch": 0.5}))
    np.testing.assert_allclose(made.rewards, 0.5 * plain.signals["watch"])
    with pytest.raises(DataError, match="signal"):
        read_log(folder / "log.parquet", SatisfactionConfig(activeness={"activity": 1.0}))  # it has negative values


def test_a_policy_of_other_weights_is_refused(folder) -> None:
    log = read_sessions(folder / "other.parquet")
    with pytest.raises(DataError, match="3 weights"):
        judge(StaticPolicy(np.zeros(3)), log, Question(), Silent())


def test_a_policy_outside_the_box_is_unsafe(folder, document) -> None:
    from dataclasses import replace

    from polyrank.fusion.assess import AssessConfig

    quick = AssessConfig(hidden=(4,), steps=10, replicates=10)
    log = read_sessions(folder / "other.parquet")
    found = judge(StaticPolicy(np.array([1.5, 0.0])), log, replace(Question(), estimate=quick), Silent())
    assert found["verdict"] == "unsafe"
    assert found["where"]["outside"] == 1
    (check,) = [entry for entry in found["checks"] if entry["name"] == "inside the box"]
    assert not check["passed"]


def test_sessions_that_were_cut_off_are_counted(folder) -> None:
    from dataclasses import replace

    from polyrank.fusion.assess import AssessConfig

    log = read_sessions(folder / "other.parquet")
    cut = replace(log, done=np.zeros_like(log.done))
    quick = Question(AssessConfig(hidden=(4,), steps=10, replicates=10))
    found = judge(StaticPolicy(np.zeros(2)), cut, quick, Silent())
    assert found["cut"] == 1
    assert "700 of 700" in found["notes"][0]
