"""A policy from a session log to a document: learned on some sessions, estimated on others beside its control.

OUT/policy/        the policy (`load_policy`)          OUT/rl.json       all that the page shows     OUT/report.html
OUT/estimates/     what a resumed call does not learn again              OUT/config.json    the `[rl]` of the call
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyrank.config import nearest, to_table
from polyrank.errors import ConfigError, DataError
from polyrank.files import file_sha256, read_json, write_json
from polyrank.fusion.assess import AssessConfig, Assessed, assess
from polyrank.fusion.compared import compare
from polyrank.fusion.controls import believed, cohort, returns, whereabouts
from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import FILE, POLICY, Box, Policy, frozen, load_policy, save_policy
from polyrank.fusion.proof import STATIC, checks, headline, verdict
from polyrank.fusion.session_reward import SatisfactionConfig, rewarded
from polyrank.fusion.sessions import SessionLog, read_sessions
from polyrank.metrics.checks import Rows
from polyrank.progress import Progress, Within
from polyrank.rl_settings import RLConfig, RLSettings

LEARNED = "policy"


@dataclass(frozen=True)
class Question:
    """How a policy is judged.

    Attributes:
        estimate: the estimators.
        box: what was explored; None: what the log shows.
        heads: the names of the weights.
        users: see `RLConfig`.
        cohorts: see there.
        parts: see there.
    """

    estimate: AssessConfig = field(default_factory=AssessConfig)
    box: Box | None = None
    heads: tuple[str, ...] = ()
    users: str = ""
    cohorts: tuple[str, ...] = ()
    parts: int = 4


def read_log(path: Path, reward: SatisfactionConfig) -> SessionLog:
    """A session log, its rewards computed from its signals where the config weighs any.

    Raises:
        DataError: see `read_sessions`; or a signal is negative.
        ConfigError: the reward names no signal of the log.
    """
    log = read_sessions(path)
    if reward == SatisfactionConfig():
        return log
    try:
        return rewarded(log, reward)
    except ValueError as error:
        mend = "rewards are of counts, times and shares: correct the signal"
        raise DataError(f"{path}: a signal breaks its rule", received=str(error), mend=mend) from error


def run_rl(settings: RLSettings, out: Path, progress: Progress) -> dict[str, Any]:
    """Learn a policy and estimate it; what `rl.json` holds.

    A policy or an estimate that is in `out` already is not learned again.

    Raises:
        ConfigError, DataError: the section does not suit the log.
        TrainingDiverged: the method's own loss or Q ran away.
    """
    rl = settings.rl
    log = read_log(settings.base / rl.log, rl.reward)
    learning, judging = _sides(settings, log)
    box = _box(rl, log)
    for name in rl.cohorts:
        cohort(judging, name, rl.parts)  # before the hours of learning, not after them
    gamma = getattr(settings.knobs, "gamma", rl.estimate.gamma)
    if not (out / POLICY / FILE).exists():
        fitted = METHODS[rl.method].fit(learning, box, settings.knobs, progress)
        write_json(out / "curves.json", {name: [list(point) for point in c] for name, c in fitted.curves.items()})
        facts = {"box": [box.low.tolist(), box.high.tolist()], "heads": list(rl.heads), "rl": settings.table()}
        facts["log"] = file_sha256(settings.base / rl.log)
        save_policy(fitted.policy, out / POLICY, facts)
    curves = read_json(out / "curves.json")
    ask = Question(rl.estimate, box, rl.heads, rl.users, rl.cohorts, rl.parts)
    promised = believed(curves["q"], learning, gamma) if curves.get("q") else None
    return {
        **judge(load_policy(out / POLICY), judging, ask, progress, promised=promised, store=out / "estimates"),
        "method": rl.method,
        "knobs": to_table(settings.knobs),
        "reward": to_table(rl.reward) if rl.reward != SatisfactionConfig() else None,
        "learned": {"sessions": len(learning.sessions), "steps": len(learning.rewards)},
        "curves": curves,
        "believed": promised,
    }


def _sides(settings: RLSettings, log: SessionLog) -> tuple[SessionLog, SessionLog]:
    """What teaches, and what judges."""
    rl = settings.rl
    if not rl.test:
        return split(log, rl.held, rl.seed, rl.users)
    path = settings.base / rl.test
    if path.is_file() and file_sha256(path) == file_sha256(settings.base / rl.log):
        raise DataError(
            "rl.test must hold sessions that do not teach the policy",
            received=f"{rl.test}, the same as rl.log",
            mend="give another log, or no rl.test: then a share of the sessions is set aside",
        )
    other = read_log(path, rl.reward)
    mine, its = ((of.states.shape[1], of.actions.shape[1]) for of in (log, other))
    if mine != its:
        raise DataError(
            "rl.test must have the states and actions of rl.log",
            received=f"{its[0]} state numbers and {its[1]} weights, not {mine[0]} and {mine[1]}",
            mend="give a log of the same recommender",
        )
    return log, other


def judge(
    policy: Policy,
    log: SessionLog,
    ask: Question,
    progress: Progress,
    *,
    promised: Mapping[str, float | None] | None = None,
    store: Path | None = None,
) -> dict[str, Any]:
    """A policy and its matched static formula, estimated from sessions that taught neither; JSON-ready.

    Raises:
        DataError: the policy is of other states or weights than the log.
        ConfigError: the question names no signal, state or weight of the log.
    """
    users = _users(log, ask.users)
    for name in ask.cohorts:  # what cannot be told apart is said before the minutes of estimation, not after them
        cohort(log, name, ask.parts)
    actions, box = _actions(policy, log), ask.box or Box.of(log)
    static = frozen(policy, log.states)
    where = whereabouts(actions, log, box, ask.heads)
    found = {
        name: assess(
            log,
            of.act,
            ask.estimate,
            progress,
            store=store and store / name.replace(" ", "_"),
            label=f"estimating the {name}",
        )
        for name, of in ((LEARNED, policy), (STATIC, static))
    }
    estimates = compare(log, found, ask.estimate, progress, users=users)
    unit = "step" if int(log.lengths.max()) == 1 else "session"
    first = headline(estimates, LEARNED, unit)
    spread = float(returns(log, ask.estimate.gamma).std())
    listed = checks(estimates, where, promised, found[LEARNED].curves, spread, LEARNED, unit)
    return {
        "format": 1,
        "kind": policy.kind,
        "sessions": len(log.sessions),
        "steps": len(log.rewards),
        "longest": int(log.lengths.max()),
        "cut": float(1 - log.done[log.starts[1:] - 1].mean()),
        "unit": unit,
        "users": 0 if users is None else len(np.unique(users)),
        "gamma": ask.estimate.gamma,
        "level": ask.estimate.level,
        "conservative": ask.estimate.conservative,
        "verdict": verdict(listed),
        "checks": listed,
        "headline": first,
        "estimates": estimates,
        "scales": {name: dict(a.scales) for name, a in found.items()},
        "fqe": {name: {of: curve.tolist() for of, curve in a.curves.items()} for name, a in found.items()},
        "where": where,
        "static": static.weights.tolist(),
        "cohorts": _cohorts(log, actions, found, first, ask, users, progress),
        "notes": _notes(log),
    }


def _cohorts(
    log: SessionLog,
    actions: Rows,
    found: Mapping[str, Assessed],
    first: str | None,
    ask: Question,
    users: Rows | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Each part of each cohort: its mean weights, and values and lifts by the first estimator, where it has both."""
    only = {}
    if first is not None and all(first in assessed.terms for assessed in found.values()):
        only = {name: Assessed({first: assessed.terms[first]}) for name, assessed in found.items()}
    parts = [(name, cohort(log, name, ask.parts)) for name in ask.cohorts]
    rows = []
    with progress.bar("cohorts", sum(len(np.unique(m)) for _, m in parts) * ask.estimate.replicates, "draws") as bar:
        for name, member in parts:
            for value in np.unique(member).tolist():
                mine = member == value
                entry = {"cohort": name, "value": value, "sessions": int(mine.sum())}
                entry["weights"] = actions[mine[log.owners]].mean(axis=0, dtype=np.float64).tolist()
                if only:
                    inner = Within(bar, progress)
                    entry |= compare(log, only, ask.estimate, inner, users=users, sessions=mine)
                rows.append(entry)
    return rows


def split(log: SessionLog, share: float, seed: int, users: str = "") -> tuple[SessionLog, SessionLog]:
    """Sessions to learn from, and a share to judge by; all sessions of a user are on one side.

    Raises:
        DataError: one side would be empty.
    """
    named = _users(log, users)
    member = np.arange(len(log.sessions)) if named is None else np.unique(named, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(int(member.max()) + 1)
    held = (order < share * len(order))[member]
    if held.all() or not held.any():
        who = "sessions" if named is None else "users"
        raise DataError(
            "some sessions must teach a policy and others judge it",
            received=f"{len(order)} {who} and rl.held = {share:g}",
            mend="give a longer log, or one of its own as rl.test",
        )
    return log.select(~held), log.select(held)


def _box(rl: RLConfig, log: SessionLog) -> Box:
    weights = log.actions.shape[1]
    for key in ("low", "heads"):
        given = getattr(rl, key)
        if given and len(given) != weights:
            rule = f"rl.{key} must have an entry for each weight of the log"
            raise ConfigError(rule, received=f"{len(given)}, and an action has {weights}", mend="give as many")
    return Box(np.array(rl.low), np.array(rl.high)) if rl.low else Box.of(log)


def _users(log: SessionLog, name: str) -> Rows | None:
    """`[S]` the user of each session."""
    if not name:
        return None
    if name not in log.signals:
        known = list(log.signals)
        raise ConfigError("users must name a signal of the log", received=name, mend=nearest(name, known))
    users: Rows = log.signals[name][log.starts[:-1]]
    return users


def _actions(policy: Policy, log: SessionLog) -> Rows:
    rule, mend = "a policy judges a log of its own states and weights", "name the log of the same recommender"
    try:
        actions = np.asarray(policy.act(log.states), np.float32)
    except ValueError as error:
        raise DataError(rule, received=str(error), mend=mend) from error
    if actions.shape != log.actions.shape:
        received = f"{actions.shape[1]} weights, and the log's actions have {log.actions.shape[1]}"
        raise DataError(rule, received=received, mend=mend)
    return actions


def _notes(log: SessionLog) -> list[str]:
    notes = []
    cut = int((~log.done[log.starts[1:] - 1]).sum())
    if cut:
        notes.append(f"{cut:,} of {len(log.sessions):,} sessions are cut off: what they earned later is in no estimate")
    return notes
