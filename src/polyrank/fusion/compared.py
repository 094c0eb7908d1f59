"""Policies side by side on one log: values, and lifts over the log and over each other, on one bootstrap of sessions.

S sessions, U clusters (sessions, or users), E estimates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyrank.fusion.assess import MODELS, SESSION, STEP, AssessConfig, Assessed
from polyrank.fusion.controls import returns
from polyrank.fusion.estimate import Support, Terms, support
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.bootstrap import bootstrap_values
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress

LOG = "log"  # the policy that wrote the log
Key = tuple[str, str]  # policy, and estimator; of the log: the unit


def unit_of(estimator: str) -> str:
    """What an estimator estimates: the reward of a `step`, or the return of a `session`."""
    return "session" if estimator in SESSION else "step"


def compare(
    log: SessionLog,
    policies: Mapping[str, Assessed],
    config: AssessConfig,
    progress: Progress,
    *,
    users: Rows | None = None,
    sessions: Rows | None = None,
) -> dict[str, Any]:
    """Every estimate of every policy, and its lifts, with percentile intervals of a bootstrap over clusters.

    All estimates see the same replicates: a lift is the difference within a replicate, so that what two policies share
    cancels, and the log's own value counts with its noise.

    Args:
        log: the log.
        policies: by name; lifts are of each over those after it, and over the log.
        config: `replicates`, `level`, `gamma`, `seed`.
        progress: where to report.
        users: `[S]` what is drawn whole: the user of each session; None: sessions are independent.
        sessions: `[S]` bool, a cohort; None: all.

    Returns:
        JSON-ready: `log`: unit → value, low, high. `policies`: policy → estimator → value, low, high, effective,
        largest, refusal; a number is None where there is none. `lifts`: policy → other → estimator → mean, low, high,
        and a verdict: `gain` or `loss` where the whole interval lies on one side of 0, else `tie`; None of an estimator
        that trusts a model, whose interval does not hold the model's error.
    """
    cohort = np.ones(len(log.sessions), np.bool_) if sessions is None else np.asarray(sessions, np.bool_)
    clusters = np.arange(len(cohort)) if users is None else np.unique(users, return_inverse=True)[1]
    rests: dict[Key, Support] = {}
    parts: dict[Key, Terms] = {}
    for key, terms in _terms(log, policies, config).items():
        owners = log.owners if len(terms.above) == len(log.rewards) else np.arange(len(cohort))
        part = terms.select(cohort[owners])
        rests[key] = support(part)
        if not rests[key].refusal:
            parts[key] = part.summed(clusters[owners][cohort[owners]])
    numbers = _numbers(parts, config, progress)
    for name, assessed in policies.items():
        rests |= {(name, estimator): Support(refusal=why) for estimator, why in assessed.failed.items()}
    names = list(policies)
    estimators = {name: [e for e in (*STEP, *SESSION) if (name, e) in rests] for name in names}
    return {
        "log": {unit: numbers.value((LOG, unit)) for unit in ("step", "session")},
        "policies": {
            name: {
                e: numbers.value((name, e))
                | {"effective": _finite(rests[name, e].effective), "largest": _finite(rests[name, e].largest)}
                | {"refusal": rests[name, e].refusal}
                for e in estimators[name]
            }
            for name in names
        },
        "lifts": {
            name: {
                other: {
                    e: numbers.lift((name, e), (other, unit_of(e) if other == LOG else e)) for e in estimators[name]
                }
                for other in (*names[index + 1 :], LOG)
            }
            for index, name in enumerate(names)
        },
    }


@dataclass(frozen=True)
class _Numbers:
    """Estimates by key: `values` `[E]`, and `replicates` `[R, E]` of the bootstrap."""

    places: Mapping[Key, int]
    values: Floats
    replicates: Floats
    level: float

    def value(self, key: Key) -> dict[str, float | None]:
        if key not in self.places:
            return {"value": None, "low": None, "high": None}
        at = self.places[key]
        return {"value": _finite(self.values[at]), **self._ends(self.replicates[:, at])}

    def lift(self, key: Key, other: Key) -> dict[str, Any]:
        if key not in self.places or other not in self.places:
            return {"mean": None, "low": None, "high": None, "verdict": None}
        i, j = self.places[key], self.places[other]
        ends = self._ends(self.replicates[:, i] - self.replicates[:, j])
        low, high = ends["low"], ends["high"]
        if key[1] in MODELS:
            return {"mean": _finite(self.values[i] - self.values[j]), **ends, "verdict": None}
        verdict = "tie" if low is None or high is None or low <= 0 <= high else "gain" if low > 0 else "loss"
        return {"mean": _finite(self.values[i] - self.values[j]), **ends, "verdict": verdict}

    def _ends(self, drawn: Floats) -> dict[str, float | None]:
        known = drawn[np.isfinite(drawn)]
        if not len(known):
            return {"low": None, "high": None}
        low, high = np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2])
        return {"low": float(low), "high": float(high)}


def _terms(log: SessionLog, policies: Mapping[str, Assessed], config: AssessConfig) -> dict[Key, Terms]:
    """The log's own mean reward and mean return, and every estimator of every policy."""
    own = {"step": log.rewards, "session": returns(log, config.gamma)}
    found = {(LOG, unit): Terms(values[:, None], np.ones((len(values), 1))) for unit, values in own.items()}
    return found | {(name, e): terms for name, assessed in policies.items() for e, terms in assessed.terms.items()}


def _numbers(parts: Mapping[Key, Terms], config: AssessConfig, progress: Progress) -> _Numbers:
    """All ratios of all estimates side by side, so that a replicate is two products."""
    thin = [_thin(part) for part in parts.values()]
    above, below = np.hstack([part.above for part in thin]), np.hstack([part.below for part in thin])
    first = np.cumsum([0, *(part.above.shape[1] for part in thin)])[:-1]

    def values(times: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.add.reduceat((times @ above) / (times @ below), first)

    with progress.bar("bootstrap", config.replicates, "replicates") as bar:

        def counted(times: Floats) -> Floats:
            bar.advance(1)
            return values(times)

        drawn = bootstrap_values(counted, None, len(above), replicates=config.replicates, seed=config.seed)
    places = {key: index for index, key in enumerate(parts)}
    return _Numbers(places, values(np.ones(len(above))), drawn, config.level)


def _thin(part: Terms) -> Terms:
    """Ratios that share their normaliser as one: PDIS has one instead of one for each step."""
    if (part.below == part.below[:, :1]).all():
        return Terms(part.above.sum(axis=1, keepdims=True), part.below[:, :1])
    return part


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
