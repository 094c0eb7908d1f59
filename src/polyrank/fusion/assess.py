"""What a log says of a deterministic policy: every estimator that applies, formed and ready to be compared."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Interval, MinLen

from polyrank.errors import TrainingDiverged
from polyrank.fusion.crossfit import Act, Q, cross_fitted, remembered
from polyrank.fusion.estimate import Terms, support
from polyrank.fusion.fqe import FQEConfig
from polyrank.fusion.linear_fqe import linear_fqe
from polyrank.fusion.ope import Logged, dm, dr, ips, snips
from polyrank.fusion.overlap import Shown, shown, target_log_density
from polyrank.fusion.ratios import lepski
from polyrank.fusion.sequential import SEQUENTIAL, paths
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress, Within

# By what they estimate: the reward of a step in the states that the log visited, or the return of a session.
STEP: Mapping[str, Callable[[Logged], Terms]] = MappingProxyType(
    {"kernel_is": ips, "kernel_snis": snips, "kernel_dr": dr, "dm": dm}
)
SESSION = (*SEQUENTIAL, "linear_fqe", "fqe", "conservative_fqe")
MODELS = ("dm", "linear_fqe", "fqe", "conservative_fqe")  # whose intervals do not hold what a model has got wrong
_HALF = 1.96  # standard errors in half an interval


@dataclass(frozen=True)
class AssessConfig(FQEConfig):
    """How policies are estimated from a log; the knobs of fitted Q evaluation stand here too.

    Attributes:
        conservative: α of the conservative estimator, for rewards of unit spread; the plain one has none.
        folds: parts of the sessions; a Q that is used on one part was learned on the others.
        scales: bandwidths that are tried, in units of the logged actions' spread; the largest whose interval meets
            those of all smaller ones is taken (Lepski).
        replicates: of the bootstrap.
        level: coverage of the intervals.
    """

    conservative: Annotated[float, Ge(0)] = 0.1
    folds: Annotated[int, Ge(2)] = 2
    scales: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.1, 0.2, 0.4, 0.8)
    replicates: Annotated[int, Ge(10)] = 1_000
    level: Annotated[float, Interval(gt=0.5, lt=1)] = 0.95


@dataclass(frozen=True)
class Assessed:
    """One policy on one log.

    Attributes:
        terms: by estimator; their rows are steps for those of `STEP`, sessions for the others.
        failed: by estimator, why it could not be formed at all.
        scales: by `step` and `session`, the bandwidth that was taken; none of a log whose actions are a grid.
        curves: by `fqe` and `conservative_fqe`, see `Q.curve`.
    """

    terms: Mapping[str, Terms]
    failed: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Floats] = field(default_factory=dict)


def assess(
    log: SessionLog,
    act: Act,
    config: AssessConfig,
    progress: Progress,
    *,
    store: Path | None = None,
    label: str = "estimating",
) -> Assessed:
    """Form every estimator that applies.

    Of a step: importance sampling, self-normalised, doubly robust (by kernels, or by matches on a grid), and the direct
    method with a model of the reward. Of a session: PDIS, WIS, weighted PDIS, weighted DR, FQE with a quadratic Q and
    with a network, and the latter with CQL's penalty. Of a log whose sessions have one step each, only the last.

    Args:
        log: the log; no session of it may have taught the policy.
        act: the policy.
        config: see there.
        progress: where to report.
        store: a directory for what is learned on the way; what is there already is not learned again.
        label: of the progress.
    """
    alone = int(log.lengths.max()) == 1
    learned, failed = _models(log, act, config, progress, store, label, alone=alone)
    reward, q = (learned.get(name) for name in ("reward", "fqe"))
    step = _data(log, reward)
    units: dict[str, Callable[[Floats], dict[str, Terms]]] = {
        "step": lambda density: {
            name: form(step(density)) for name, form in STEP.items() if reward or name not in ("dm", "kernel_dr")
        }
    }
    if not alone:
        units["session"] = lambda density: _sequential(log, density, config.gamma, q)
    how, targets = shown(log), np.asarray(act(log.states), np.float32)
    terms: dict[str, Terms] = {}
    scales: dict[str, float] = {}
    for unit, form in units.items():
        density, scale = _density(log, targets, how, config, form, unit)
        if density is not None:
            terms |= form(density)
            scales |= {} if scale is None else {unit: scale}
    if reward is not None:
        terms["dm"] = _mean(reward.target)
    terms |= {
        name: _mean(learned[name].target[log.starts[:-1]]) for name in ("fqe", "conservative_fqe") if name in learned
    }
    if not alone:
        try:
            terms["linear_fqe"] = linear_fqe(log, act, config.gamma)
        except TrainingDiverged as error:
            failed["linear_fqe"] = f"it diverged: {error.received}"
    for name, model in (("dm", "reward"), ("kernel_dr", "reward"), ("wdr", "fqe")):
        if model in failed:
            failed[name] = failed[model]
    for name in (*STEP, *(() if alone else SEQUENTIAL)):
        if name not in terms and name not in failed:
            failed[name] = "the policy leaves the box that the log's actions were drawn from"
    failed.pop("reward", None)
    curves = {name: found.curve for name, found in learned.items() if name != "reward"}
    return Assessed({name: terms[name] for name in (*STEP, *SESSION) if name in terms}, failed, scales, curves)


def _models(
    log: SessionLog, act: Act, config: AssessConfig, progress: Progress, store: Path | None, label: str, *, alone: bool
) -> tuple[dict[str, Q], dict[str, str]]:
    """Q̂ by `reward`, `fqe`, `conservative_fqe`, and why one that is missing could not be learned."""
    knobs: dict[str, FQEConfig] = {"reward": replace(config, gamma=0.0, conservative=0.0)}
    if not alone:
        knobs["fqe"] = replace(config, conservative=0.0)
    knobs["conservative_fqe"] = config
    learned, failed = {}, {}
    with progress.bar(label, len(knobs) * config.folds * config.steps, "steps") as bar:
        for name, of in knobs.items():
            try:
                make = partial(cross_fitted, log, act, of, config.folds, Within(bar, progress))
                learned[name] = remembered(store and store / f"{name}.npz", make)
            except TrainingDiverged as error:
                failed[name] = f"it diverged: {error.received}"
            bar.advance(0, f"{name.replace('_', ' ')} {'diverged' if name in failed else 'learned'}")
    return learned, failed


def _density(
    log: SessionLog,
    targets: Rows,
    how: Shown,
    config: AssessConfig,
    form: Callable[[Floats], Mapping[str, Terms]],
    unit: str,
) -> tuple[Floats | None, float | None]:
    """`[N]` log π(a | s) with the bandwidth that Lepski's rule takes, by the self-normalised estimator of the unit.

    Where every bandwidth is refused it is the largest, whose refusal is then told. None: the policy leaves the box.
    """
    if how.grid:
        return target_log_density(log, targets, how, 1.0), None
    densities: list[Floats] = []
    values, widths = [], []
    for scale in sorted(config.scales):
        try:
            densities.append(target_log_density(log, targets, how, scale))
        except ValueError:
            return None, None
        terms = form(densities[-1])["kernel_snis" if unit == "step" else "wpdis"]
        refused = bool(support(terms).refusal)
        values.append(math.nan if refused else terms.value())
        widths.append(math.nan if refused else _HALF * terms.error(log.owners if unit == "step" else None))
    try:
        taken = lepski(values, widths)
    except ValueError:
        taken = len(values) - 1
    return densities[taken], sorted(config.scales)[taken]


def _data(log: SessionLog, model: Q | None) -> Callable[[Floats], Logged]:
    nothing = np.zeros(len(log.rewards))
    logged, target = (nothing, nothing) if model is None else (model.logged, model.target)
    return lambda density: Logged(np.exp(density - log.log_densities), log.rewards, logged, target)


def _sequential(log: SessionLog, density: Floats, gamma: float, model: Q | None) -> dict[str, Terms]:
    parts = () if model is None else (model.logged, model.target)
    with np.errstate(over="ignore", invalid="ignore"):  # a session of many steps; its estimate is then refused
        data = paths(log, density, gamma, *parts)
        return {name: form(data) for name, form in SEQUENTIAL.items() if model is not None or name != "wdr"}


def _mean(values: Floats) -> Terms:
    return Terms(values[:, None], np.ones((len(values), 1)))
