"""One world of the study: its best static formula and its oracle, a log, and every policy learned from that log.

Each unit of work is a JSON file, written whole: what was done is not done again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyrank.errors import TrainingDiverged
from polyrank.files import read_json, write_json
from polyrank.fusion.explore import BoundedUniform
from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import Policy, StaticPolicy, frozen, save_policy
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress
from polyrank.simulator.oracle import Rehearsal, best_static, oracle
from polyrank.simulator.sessions import simulate, value
from polyrank.simulator.world import World, WorldConfig
from rl_study.judging import Judge
from rl_study.plan import SETTINGS, Plan

LOG, HELD_OUT, TRUTH, SEARCH = 1, 2, 3, 4  # what a seed is for


@dataclass(frozen=True)
class Unit:
    """A world of the study.

    Attributes:
        mode: "a" or "c".
        seed: of the world, its log and its learners.
        methods: which to fit.
        spread: whether the estimators are compared over policies of graded quality, too.
        plan: sizes.
        out: where the JSON files go.
    """

    mode: str
    seed: int
    methods: tuple[str, ...]
    spread: bool
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
        self._log: SessionLog | None = None
        self._judge: Judge | None = None

    @property
    def log(self) -> SessionLog:
        """What policies learn from."""
        if self._log is None:
            self._log = simulate(self.world, self.explorer, self.unit.plan.sessions, self._seed(LOG), self.progress)
        return self._log

    @property
    def judge(self) -> Judge:
        """What estimates them."""
        if self._judge is None:
            plan = self.unit.plan
            log = simulate(self.world, self.explorer, plan.held_out, self._seed(HELD_OUT), self.progress)
            self._judge = Judge.of(log, self.box, plan.judge_gamma, plan.judge_steps, plan.conservative)
        return self._judge

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
    place = Place(unit, progress)
    static = done(unit.directory / "static.json", lambda: judged(place, place.static, None))
    with progress.bar(f"world {unit.mode} {unit.seed}", len(unit.methods), unit="methods") as bar:
        for name in unit.methods:
            found = done(unit.directory / f"{name}.json", lambda name=name: learned(place, name))
            gain = found["value"] / static["value"] - 1 if found["value"] is not None else None
            bar.advance(1, f"{name} {'diverged' if gain is None else f'{gain:+.1%}'}")
    if unit.spread:
        for name, policy in graded(place).items():
            done(unit.directory / f"graded-{name}.json", lambda policy=policy: judged(place, policy, None))


def learned(place: Place, name: str) -> dict[str, Any]:
    """Fit a method from the log, and judge what it learned."""
    method, began = METHODS[name], time.monotonic()
    settings = dict(SETTINGS.get(name, {})) | {"seed": place.unit.seed}
    config = method.config(**settings)
    config = replace(config, steps=max(1, int(config.steps * place.unit.plan.scale)))
    try:
        fitted = method.fit(place.log, place.box, config, place.progress)
    except TrainingDiverged as error:
        return {"value": None, "diverged": error.received, "fit_seconds": time.monotonic() - began}
    taken = time.monotonic() - began
    save_policy(fitted.policy, place.unit.directory / "policies" / name)
    own = {curve: [list(point) for point in points] for curve, points in fitted.curves.items()}
    return judged(place, fitted.policy, name) | {"fit_seconds": taken, "curves": own}


def judged(place: Place, policy: Policy, name: str | None) -> dict[str, Any]:
    """True values of a policy and of its matched static formula, and what the estimators say of both."""
    seed = place.unit.seed
    own, best = place.true(policy), place.true(place.static)
    found: dict[str, Any] = {"value": float(own.mean()), "gain": paired(own, best), "diverged": None}
    if name is not None:
        matched = frozen(policy, place.judge.log.states)
        control = place.true(matched)
        found["matched"] = {"weights": matched.weights.tolist(), "value": float(control.mean())}
        found["personal"] = paired(own, control)
    if place.unit.spread or name is None:
        found["estimates"] = place.judge.estimates(policy, seed)
        if name is not None:
            found["matched"]["estimates"] = place.judge.estimates(matched, seed)
    else:
        found["estimates"] = {"exits": float(place.box.outside(policy.act(place.judge.log.states)).mean())}
    return found


def graded(place: Place) -> dict[str, Policy]:
    """Static formulas better and worse, inside the box and outside of it: what estimators should tell apart."""
    rng = np.random.default_rng(place.unit.seed)
    centre, half = place.box.centre, place.box.half
    inside = {f"inside{k}": centre + half * rng.uniform(-1, 1, len(centre)) for k in range(4)}
    return {name: StaticPolicy(weights) for name, weights in inside.items()}


def paired(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Mean difference over the same sessions, and its standard error."""
    difference = one - other
    return {"mean": float(difference.mean()), "error": float(difference.std(ddof=1) / len(difference) ** 0.5)}
