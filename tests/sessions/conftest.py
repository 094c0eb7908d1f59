"""A session log that another program wrote, with pyarrow alone, and the policy that polyrank fuse rl learned from it.

States (z, step / 5), weights uniform in [−1, 1]²; r = 2 − (a₀ − 0.7 z)² − 0.5 (a₁ + 0.5 z)² + noise, at most 4 steps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyrank import rl_experiment

CONFIG = """
[rl]
log = "log.parquet"
method = "linear_cem"
heads = ["watch", "like"]
cohorts = ["signal:activity", "state:1"]
parts = 2
[rl.linear_cem]
states = 512
steps = 60
[rl.estimate]
hidden = [16]
steps = 300
batch_size = 128
learning_rate = 1e-2
averaging = 0.05
replicates = 30
"""


def reward_of(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    z = states[:, 0]
    return np.asarray(2 - (actions[:, 0] - 0.7 * z) ** 2 - 0.5 * (actions[:, 1] + 0.5 * z) ** 2)


def write_log(path: Path, sessions: int = 1_200, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, sessions)
    ids = np.repeat(rng.permutation(10 * sessions)[:sessions], lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    z = np.repeat(rng.uniform(-1, 1, sessions), lengths)
    n = len(ids)
    states, actions = np.stack([z, step / 5], axis=1), rng.uniform(-1, 1, (n, 2))
    rewards = reward_of(states, actions) + rng.normal(0, 0.1, n)
    table = pa.table({
        "session_id": pa.array(ids, pa.int64()),
        "step": pa.array(step, pa.int32()),
        "state": pa.array(states.tolist(), pa.list_(pa.float32())),
        "action": pa.array(actions.tolist(), pa.list_(pa.float32())),
        "behavior_log_density": pa.array(np.full(n, -np.log(4.0)), pa.float64()),
        "reward": pa.array(rewards, pa.float32()),
        "done": pa.array(step == np.repeat(lengths, lengths) - 1),
        "signal_activity": pa.array(z, pa.float32()),
        "signal_watch": pa.array(np.maximum(rewards, 0) * 10, pa.float32()),
        "signal_user": pa.array(np.repeat(np.arange(sessions) // 3, lengths).astype(float), pa.float32()),
    })  # fmt: skip
    pq.write_table(table.take(rng.permutation(n)), path)  # in no order
    return path


@pytest.fixture(scope="session")
def session_log() -> Callable[..., Path]:
    """`session_log(path, sessions=1_200, seed=0)`: writes a log there."""
    return write_log


@pytest.fixture(scope="session")
def true_reward() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`true_reward(states, actions)`: the mean reward of a step."""
    return reward_of


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log, the config, a second log, and `out`: what fuse rl made of them."""
    path = tmp_path_factory.mktemp("sessions")
    write_log(path / "log.parquet")
    write_log(path / "other.parquet", 700, seed=1)
    (path / "config.toml").write_text(CONFIG)
    rl_experiment.fuse_rl(path / "config.toml", [], path / "out", resume=False, command="polyrank fuse rl")
    return path


@pytest.fixture(scope="session")
def document(folder: Path) -> dict[str, Any]:
    """`rl.json`."""
    from polyrank.files import read_json

    found: dict[str, Any] = read_json(folder / "out/rl.json")
    return found
