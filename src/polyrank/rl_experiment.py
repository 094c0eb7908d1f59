"""The verbs of policies: learn one from a session log, estimate one on a log, from paths to files."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyrank.config import build, override
from polyrank.errors import DataError, RunError
from polyrank.files import file_sha256, locked, read_json, sweep, write_json, write_text
from polyrank.fusion.assess import AssessConfig
from polyrank.fusion.policy import POLICY, Box, load_facts, load_policy, policy_in
from polyrank.fusion.session_reward import SatisfactionConfig
from polyrank.progress import Progress, Silent
from polyrank.rl import Question, judge, read_log, run_rl
from polyrank.rl_report import policy_html
from polyrank.settings import load_rl


def fuse_rl(
    config: Path, overrides: Sequence[str], out: Path, *, resume: bool, command: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Learn a policy from a session log and judge it; what `rl.json` holds.

    Raises:
        PolyrankError: see the classes of `polyrank.errors`; what was learned is kept.
    """
    settings, progress = load_rl(config, overrides), progress or Silent()
    path = settings.base / settings.rl.log
    with locked(out):
        sweep(out)
        stamp = json.loads(json.dumps({"rl": settings.table(), "log": file_sha256(path) if path.is_file() else ""}))
        if (out / "config.json").exists() and (not resume or read_json(out / "config.json") != stamp):
            raise RunError(
                "a policy needs a directory of its own, and a resumed call the [rl] and the log it began with",
                received=f"{out} holds one" + (" of another [rl] or log" if resume else ""),
                mend="name another --out, or go on with it by --resume",
            )
        write_json(out / "config.json", stamp)
        document = {
            **run_rl(settings, out, progress),
            "title": f"{settings.rl.method} from {path.name}",
            "log": str(path),
            "command": command,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(out / "rl.json", document)
        write_text(out / "report.html", policy_html(document))
        return document


def ope(
    policy: Path,
    log: Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    *,
    users: str = "",
    cohorts: Sequence[str] = (),
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Estimate a policy, and its matched static formula beside it, on a session log; what `ope.json` holds.

    The reward, the box and the names of the weights are those that were saved with the policy, where there are any; how
    it is estimated is what it was learned with, changed by `overrides` (`gamma=0.9`, `steps=2000`).

    Args:
        policy: a directory of `save_policy`, or one that `fuse_rl` wrote.
        log: the session log.
        overrides: keys of `AssessConfig`.
        out: where to write `ope.json` and `report.html`; nothing is written where not given.
        users: see `RLConfig`.
        cohorts: see there.
        command: for the page.
        progress: where to report.

    Raises:
        PolyrankError: see the classes of `polyrank.errors`.
    """
    place = policy_in(policy)
    made, facts = load_policy(place), load_facts(place)
    rl = facts.get("rl", {})
    ask = Question(
        build(AssessConfig, override(rl.get("estimate", {}), overrides), "estimate"),
        Box(*facts["box"]) if "box" in facts else None,
        tuple(facts.get("heads", ())),
        users or rl.get("users", ""),
        tuple(cohorts),
    )
    reward = build(SatisfactionConfig, rl.get("reward", {}), "reward")
    if log.is_file() and facts.get("log") == file_sha256(log):
        raise DataError(
            "a policy is judged by sessions that did not teach it",
            received=f"{log}, the log it was learned from",
            mend="give another log; what the sessions set aside say of it is in the report of polyrank fuse rl",
        )
    if out is not None and (out / "ope.json").exists():
        rule, mend = "an estimate needs a directory of its own", "name another --out, or remove it"
        raise RunError(rule, received=f"{out} holds one", mend=mend)
    document = {
        **judge(made, read_log(log, reward), ask, progress or Silent()),
        "title": f"{place.parent.name if place.name == POLICY else place.name} on {log.name}",
        "policy": str(place),
        "log": str(log),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if out is not None:
        with locked(out):
            write_json(out / "ope.json", document)
            write_text(out / "report.html", policy_html(document))
    return document
