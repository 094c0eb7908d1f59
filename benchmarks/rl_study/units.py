"""One world of the study: its best static formula and its oracle, a log, and every policy learned from that log.

Each unit of work is a JSON file, written whole: what was done is not done again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyrank.errors import TrainingDiverged
from polyrank.files import read_json, write_json
from polyrank.fusion.explore import BoundedUniform
from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import Policy, StaticPolicy, frozen, load_policy, save_policy
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress
from polyrank.simulator.oracle import Rehearsal, best_static, oracle
from polyrank.simulator.sessions import simulate, value
from polyrank.simulator.world import World, WorldConfig
from rl_study.judging import Judge
from rl_study.plan import SETTINGS, Plan

LOG, HELD_OUT, TRUTH, SEARCH = 1, 2, 3, 4  # what a seed is for
SAMPLE = 50_000  # steps of the log over which a policy is frozen


@dataclass(frozen=True)
class Unit:
    """A world of the study.

    Attributes:
        mode: "a" or "c".
        seed: of the world, its log and its learners.
        methods: which to fit.
        estimates: whether the estimators judge its policies, and others of graded quality.
        plan: sizes.
        out: where the JSON files go.
    """

    mode: str
    seed: int
    methods: tuple[str, ...]
    estimates: bool
    plan: Plan
    out: Path

    @property
    def directory(self) -> Path:
        """Its files."""
        return self.out / f"{self.mode}-{self.seed}"


class Place:
    """A world, and what is made in it when it is first asked for."""

    def __init__(self, unit: Unit, progress: Progress) -> None:
        self.unit, self.progress = unit, progress
        self.world = World(WorldConfig(mode=unit.mode, seed=unit.seed))  # type: ignore[arg-type]
        self.facts = done(unit.directory / "world.json", self._searched)
        self.static = StaticPolicy(np.array(self.facts["static"], np.float32))
        self.explorer = BoundedUniform(self.static, unit.plan.half)
        self.box = self.explorer.box

    @cached_property
    def log(self) -> SessionLog:
        """What policies learn from."""
        return simulate(self.world, self.explorer, self.unit.plan.sessions, self._seed(LOG), self.progress)

    @cached_property
    def best(self) -> np.ndarray:
        """`[truth]` what each session brings under the best static formula."""
        return self.true(self.static)

    @cached_property
    def judge(self) -> Judge:
        """What estimates them."""
        plan = self.unit.plan
        log = simulate(self.world, self.explorer, plan.held_out, self._seed(HELD_OUT), self.progress)
        return Judge.of(log, self.box, plan.judge_gamma, plan.judge_steps, plan.conservative)

    def true(self, policy: Policy) -> np.ndarray:
        """`[truth]` what each session brings, under the same luck for all policies."""
        return value(self.world, policy, self.unit.plan.truth, self._seed(TRUTH))

    def _searched(self) -> dict[str, Any]:
        plan, seed = self.unit.plan, self._seed(SEARCH)
        rehearsal = Rehearsal(self.world, plan.search_sessions, seed)
        static = best_static(rehearsal, plan.search, progress=self.progress)
        best = oracle(rehearsal, static, plan.search, progress=self.progress)
        save_policy(best, self.unit.directory / "policies" / "oracle")
        gain = paired(self.true(best), self.true(static))
        return {"static": static.weights.tolist(), "oracle": float(self.true(best).mean()), "gain": gain}

    def _seed(self, what: int) -> int:
        return 10 * self.unit.seed + what


def done(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The unit of work in this file: read where it is there, else done and written."""
    if not path.exists():
        began = time.monotonic()
        write_json(path, work() | {"seconds": time.monotonic() - began})
    found: dict[str, Any] = read_json(path)
    return found


def run(unit: Unit, progress: Progress) -> None:
    """All of a world that is not there yet."""
    torch.set_num_threads(1)
    place, at = Place(unit, progress), unit.directory
    static = done(at / "static.json", lambda: valued(place, place.static, None))
    policies: dict[str, Policy] = {"static": place.static}
    for name in unit.methods:
        found = done(at / f"{name}.json", lambda name=name: learned(place, name))
        if found["value"] is None:
            progress.say(f"{name} diverged: {found['diverged']}")
        else:
            policies[name] = load_policy(at / "policies" / name)
            progress.say(f"{name} {found['value'] / static['value'] - 1:+.1%}")
    if unit.estimates:
        for name, policy in graded(place).items():
            policies[name] = policy
            done(at / f"{name}.json", lambda policy=policy: valued(place, policy, None))
        with progress.bar("estimates", len(policies), unit="policies") as bar:
            for name, policy in policies.items():
                done(at / "estimates" / f"{name}.json", lambda policy=policy: place.judge.estimates(policy, unit.seed))
                bar.advance(1, name)


def learned(place: Place, name: str) -> dict[str, Any]:
    """Fit a method from the log, and value what it learned."""
    method, began = METHODS[name], time.monotonic()
    config = method.config(**SETTINGS.get(name, {}), seed=place.unit.seed)
    config = replace(config, steps=max(1, int(config.steps * place.unit.plan.scale)))
    try:
        fitted = method.fit(place.log, place.box, config, place.progress)
    except TrainingDiverged as error:
        return {"value": None, "diverged": error.received, "fit_seconds": time.monotonic() - began}
    taken = time.monotonic() - began
    save_policy(fitted.policy, place.unit.directory / "policies" / name)
    own = {curve: [list(point) for point in points] for curve, points in fitted.curves.items()}
    return valued(place, fitted.policy, place.log.states[:SAMPLE]) | {"fit_seconds": taken, "curves": own}


def valued(place: Place, policy: Policy, states: np.ndarray | None) -> dict[str, Any]:
    """True value of a policy; given states of the log, its matched static formula's too, and its box-exit rate."""
    own = place.true(policy)
    found: dict[str, Any] = {"value": float(own.mean()), "gain": paired(own, place.best), "diverged": None}
    if states is not None:
        matched = frozen(policy, states)
        control = place.true(matched)
        found["matched"] = {"weights": matched.weights.tolist(), "value": float(control.mean())}
        found["personal"] = paired(own, control)
        found["exits"] = float(place.box.outside(policy.act(states)).mean())
    return found


def graded(place: Place) -> dict[str, Policy]:
    """Formulas drawn in the box: static ones, worse than the best; estimators should tell how much."""
    rng = np.random.default_rng(place.unit.seed)
    centre, half = place.box.centre, place.box.half
    drawn = {f"drawn{k}": centre + half * rng.uniform(-1, 1, len(centre)) for k in range(4)}
    return {name: StaticPolicy(weights) for name, weights in drawn.items()}


def paired(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Mean difference over the same sessions, and its standard error."""
    difference = one - other
    return {"mean": float(difference.mean()), "error": float(difference.std(ddof=1) / len(difference) ** 0.5)}
