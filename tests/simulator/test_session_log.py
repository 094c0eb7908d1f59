import json
import math

import numpy as np
import pytest

from polyrank.errors import ConfigError, RunError
from polyrank.files import file_sha256
from polyrank.fusion.explore import BoundedUniform
from polyrank.fusion.policy import StaticPolicy, save_policy
from polyrank.fusion.sessions import read_sessions
from polyrank.progress import Silent
from polyrank.simulator.session_log import LogConfig, beside, write_log
from polyrank.simulator.sessions import STATE, simulate
from polyrank.simulator.world import World, WorldConfig

WORLD = WorldConfig(longest=3)


def written(tmp_path, world=WORLD, **given):
    config = LogConfig(**({"sessions": 300, "around": "start"} | given))
    return write_log(world, config, tmp_path / "log.parquet", "polyrank simulate …", Silent())


def test_the_log_and_what_is_told_of_it(tmp_path):
    found = written(tmp_path, seed=4, width=0.5)
    assert json.loads(beside(tmp_path / "log.parquet").read_text()) == found
    log = read_sessions(tmp_path / "log.parquet")
    assert found["sha256"] == file_sha256(tmp_path / "log.parquet")
    assert found["sessions"] == len(log.sessions) == 300
    assert found["requests"] == len(log.rewards)
    assert found["mean_return"] == pytest.approx(log.rewards.sum() / 300, rel=1e-5)
    assert found["state"] == list(STATE)
    assert found["heads"] == ["watch", "complete", "like", "share", "comment", "hate"]
    assert found["weights"] == [1, 1, 1, 1, 1, -1]
    assert found["box"]["low"] == [0.5, 0.5, 0.5, 0.5, 0.5, -1.5]
    np.testing.assert_allclose(log.log_densities, 0, atol=1e-12)  # of a box of volume 1
    assert found["world"]["longest"] == 3
    assert found["world"]["worth"]["return"] == 3
    assert found["explore"]["seed"] == 4


def test_gaussian_and_mixed_have_no_box_and_their_densities(tmp_path):
    found = written(tmp_path, explore="gaussian", width=0.5)
    assert found["box"] is None
    log = read_sessions(tmp_path / "log.parquet")
    far = ((log.actions - np.array(found["weights"])) ** 2).sum(axis=1) / (2 * 0.25)
    gaussian = -far - 6 * math.log(0.5 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(log.log_densities, gaussian, rtol=1e-5, atol=1e-5)
    found = written(tmp_path, explore="mixed", width=0.5, near=0.1)
    assert found["box"] is None
    near = np.abs(read_sessions(tmp_path / "log.parquet").actions - np.array(found["weights"])).max(axis=1) < 0.35
    assert 0.4 < near.mean() < 0.65


def test_exploration_around_the_best_static_weights(tmp_path):
    found = written(tmp_path, around="best", sessions=50)
    assert np.abs(found["weights"]).mean() == pytest.approx(1)
    assert found["weights"] != [1, 1, 1, 1, 1, -1]
    middle = (np.array(found["box"]["low"]) + np.array(found["box"]["high"])) / 2
    np.testing.assert_allclose(middle, found["weights"], atol=1e-6)


def test_exploration_around_weights_and_around_a_policy(tmp_path):
    given = written(tmp_path, around="1,0.5,1,1,1,-2")
    assert given["weights"] == [1, 0.5, 1, 1, 1, -2]
    save_policy(StaticPolicy([1, 0.5, 1, 1, 1, -2]), tmp_path / "policy")
    for place in (tmp_path / "policy", tmp_path):  # as polyrank fuse rl leaves it, the policy lies in policy/
        assert written(tmp_path, around=str(place))["sha256"] == given["sha256"]


@pytest.mark.parametrize("around", ["1,2,3", "1,1,1,1,1,nan", "bets", "", "1,,1,1,1,1"])
def test_a_centre_that_is_none(tmp_path, around):
    with pytest.raises(ConfigError, match=r"heads|best, start"):
        written(tmp_path, around=around)
    assert not (tmp_path / "log.parquet").exists()


def test_a_policy_of_other_sessions_or_none(tmp_path):
    save_policy(StaticPolicy([1, 2]), tmp_path / "two")
    with pytest.raises(ConfigError, match="6 heads"):
        written(tmp_path, around=str(tmp_path / "two"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError):
        written(tmp_path, around=str(tmp_path / "empty"))


def test_the_log_is_that_of_simulate(tmp_path):
    found = written(tmp_path, seed=2)
    log = simulate(World(WORLD), BoundedUniform(StaticPolicy(found["weights"]), 0.7), 300, seed=2)
    np.testing.assert_array_equal(log.actions, read_sessions(tmp_path / "log.parquet").actions)
