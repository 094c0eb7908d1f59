"""The demo's last act: a policy from simulated sessions, and what it is really worth, which only a simulator can say.

OUT/rl.toml   what `polyrank fuse rl` reads   OUT/sessions.parquet  the log   OUT/policy/  what it makes of it
OUT/truth.json   true values of the policy, of its static control, of the best static weights, and of an oracle
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyrank.config import write_toml
from polyrank.files import read_json, write_json
from polyrank.fusion.policy import POLICY, Policy, StaticPolicy, load_policy
from polyrank.metrics.checks import Floats
from polyrank.progress import Progress, Silent
from polyrank.rl_experiment import fuse_rl
from polyrank.simulator.oracle import OracleConfig, Rehearsal, oracle
from polyrank.simulator.session_log import LogConfig, beside, write_log
from polyrank.simulator.sessions import value
from polyrank.simulator.world import World, WorldConfig

LEARNED, MATCHED, STATIC, ORACLE = "learned from the log", "its matched static", "best static", "oracle"
_LEVEL = 1.96  # standard errors
_WIDTH = 1.2  # of exploration: as wide as a demo may, so that a short log teaches something


@dataclass(frozen=True)
class Sizes:
    """How large the act is.

    Attributes:
        sessions: of the log.
        truth: sessions that true values are means of, the same users and luck for all.
        rehearsed: sessions that the oracle is searched on.
        generations: of that search.
        steps: training steps of an estimator's Q.
    """

    sessions: int = 30_000
    truth: int = 10_000
    rehearsed: int = 800
    generations: int = 30
    steps: int = 400


def policy_demo(
    out: Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    sizes: Sizes | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Log sessions of mode C, explored around the best static weights; learn; estimate; and tell the truth.

    Args:
        out: where the files go.
        overrides: `rl.key=value` for `polyrank fuse rl`.
        resume: go on with what is there.
        sizes: how large it is.
        progress: where to report.

    Returns:
        What `truth.json` holds: `log`, its `sessions` and the `mean` return that exploring them brought; `values` by
        name, each with `mean`, and (but for the best static) `gain` over the best static weights with its `low` and
        `high`, paired by session; `captured`, the share of the oracle's gain that was learned; `verdict`, what the log
        alone could say.
    """
    sizes, progress = sizes or Sizes(), progress or Silent()
    log, config = out / "sessions.parquet", WorldConfig(mode="c")
    if not (resume and beside(log).exists()):
        write_log(config, LogConfig(sessions=sizes.sessions, width=_WIDTH), log, "polyrank demo", progress)
    facts = read_json(beside(log))
    write_toml(out / "rl.toml", {"rl": _settings(facts, sizes)})
    found = fuse_rl(out / "rl.toml", overrides, out / POLICY, resume=resume, command="polyrank demo", progress=progress)
    world, static = World(config), StaticPolicy(np.array(facts["weights"], np.float32))
    policies: dict[str, Policy] = {
        LEARNED: load_policy(out / POLICY / POLICY),
        MATCHED: StaticPolicy(np.array(found["static"], np.float32)),
        STATIC: static,
        ORACLE: oracle(
            Rehearsal(world, sizes.rehearsed, 1), static, OracleConfig(generations=sizes.generations), progress=progress
        ),
    }
    values = {name: value(world, policy, sizes.truth, 2) for name, policy in policies.items()}
    document = _truth(values) | {
        "format": 1,
        "mode": config.mode,
        "log": {"sessions": facts["sessions"], "mean": facts["mean_return"]},
        "sessions": sizes.truth,
        "method": found["method"],
        "verdict": found["verdict"],
    }
    write_json(out / "truth.json", document)
    return document


def _settings(facts: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """`[rl]`: the best method of the study of sessions, and estimators that are quick rather than exact."""
    return {
        "log": "sessions.parquet",
        "method": "linear_cem",
        "heads": facts["heads"],
        "low": facts["box"]["low"],
        "high": facts["box"]["high"],
        "cohorts": [f"state:{facts['state'].index(name)}" for name in ("history_sensitivity", "history_activity")],
        "linear_cem": {"steps": 120, "states": 2_048},
        "estimate": {"steps": sizes.steps, "hidden": [32, 32], "averaging": 0.03, "replicates": 300},
    }


def _truth(values: Mapping[str, Floats]) -> dict[str, Any]:
    """Means, gains over the best static weights, and the share of the oracle's gain that the policy has."""
    told: dict[str, Any] = {}
    for name, of in values.items():
        told[name] = {"mean": float(of.mean())}
        if name != STATIC:
            gain = of - values[STATIC]
            error = _LEVEL * float(gain.std(ddof=1)) / np.sqrt(len(gain))
            told[name] |= {"gain": float(gain.mean()), "low": gain.mean() - error, "high": gain.mean() + error}
    headroom = told[ORACLE]["gain"]
    return {"values": told, "captured": told[LEARNED]["gain"] / headroom if headroom > 0 else None}
