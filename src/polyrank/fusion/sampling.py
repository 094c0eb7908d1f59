"""Trials of a search: parameters asked of one of Optuna's samplers in batches, measured, told; written in a journal.

Trials of a batch are measured side by side and told in order, so that the same seed gives the same search whatever the
number of threads. Each is a line of the journal. A search that is resumed replays its sampler from the journal,
measuring only what is not in it: killed and resumed equals uninterrupted.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Interval

from polyrank.errors import ConfigError, RunError
from polyrank.fusion.formula import Template
from polyrank.fusion.objective import Goal
from polyrank.fusion.seeds import Values
from polyrank.progress import Bar

if TYPE_CHECKING:
    import optuna  # takes a second to import: only where a search runs

Method: TypeAlias = Literal["grid", "random", "sobol", "tpe", "cmaes", "nsga2", "motpe"]
SEVERAL: Final = ("nsga2", "motpe")  # methods for several behaviours at once


@dataclass(frozen=True)
class SearchConfig:
    """`[fusion.search]`: how weights are searched.

    Attributes:
        method: one goal: `grid`, `random`, `sobol` (evenly spread), `tpe`, `cmaes`; a goal for each behaviour that
            counts: `nsga2`, `motpe`, of whose Pareto front the formula that is best on the one goal is chosen.
        trials: formulas tried, with those the search starts from. Optuna's guidance: 100 to 1,000 for tpe, 1,000 to
            10,000 for cmaes, 100 to 10,000 for nsga2.
        goal: `composite` (Σ_b v_b GAUC_b, v in [fusion.judge] weights), `ndcg` (of the reward, at [fusion.judge] k) or
            `mtf_gauc`.
        epsilon: no behaviour's GAUC may fall below (1 − epsilon) of the current formula's; not asked for where below 0.
        seed: of the sampler.
        jobs: formulas measured side by side; 0 for as many as there are processors, at most 8. Changes no result.
    """

    method: Method = "cmaes"
    trials: Annotated[int, Gt(0)] = 300
    goal: Goal = "composite"
    epsilon: Annotated[float, Interval(lt=1)] = -1.0
    seed: Annotated[int, Ge(0)] = 0
    jobs: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class Trial:
    """One formula that was tried.

    Attributes:
        origin: what it started from ("equal contribution", "like alone", "current"), or "" where the sampler chose.
        parameters: its parameters.
        value: the goal.
        behaviours: GAUC by behaviour.
        violation: Σ_b of what a behaviour lacks to (1 − epsilon) of the current formula; 0: none lacks anything.
    """

    origin: str
    parameters: Values
    value: float
    behaviours: dict[str, float]
    violation: float


class Trials:
    """Ask, measure, tell; written down.

    Args:
        template: whose parameters are searched.
        config: method and budget.
        starts: what is tried first, by what it is.
        behaviours: the goals of a search for several at once.
        journal: where trials are written, and read back; None: nowhere.
        bar: is advanced by 1 a trial.
    """

    def __init__(
        self,
        template: Template,
        config: SearchConfig,
        starts: Mapping[str, Values],
        behaviours: list[str],
        journal: Path | None,
        bar: Bar,
    ) -> None:
        self._config, self._behaviours, self._bar, self._journal = config, behaviours, bar, journal
        from optuna.distributions import FloatDistribution

        self._space = {name: FloatDistribution(p.low, p.high, log=p.log) for name, p in template.parameters.items()}
        self._several = config.method in SEVERAL
        self._batch = 4 + int(3 * math.log(len(self._space)))  # a generation of CMA-ES
        self._starts = dict(list(starts.items())[: config.trials])
        self._done: list[dict[str, Any]] = []
        if journal is not None and journal.exists():
            self._done = _read_journal(journal)

    def run(self, measured: Callable[[Values, str], Trial]) -> list[Trial]:
        """All trials, in order; `measured` says what parameters of an origin are worth."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        goals = len(self._behaviours) if self._several else 1
        directions = [optuna.study.StudyDirection.MAXIMIZE] * goals
        study = optuna.create_study(sampler=_sampler(self._config.method, self._config.seed), directions=directions)
        grid = self._grid() if self._config.method == "grid" else []
        for values in (*self._starts.values(), *grid):
            study.enqueue_trial(values)
        trials: list[Trial] = []
        best = -math.inf
        origins, budget = list(self._starts), len(self._starts) + len(grid) if grid else self._config.trials
        with ThreadPoolExecutor(self._config.jobs or min(8, os.cpu_count() or 1)) as pool:
            while len(trials) < budget:
                # The starts are told before the sampler is first asked.
                size = len(origins) if not trials else min(self._batch, budget - len(trials))
                asked = [study.ask(fixed_distributions=dict(self._space)) for _ in range(size)]
                names = [origins[len(trials) + i] if len(trials) + i < len(origins) else "" for i in range(size)]
                known = self._done[len(trials) : len(trials) + size]
                for trial, record in zip(asked, known, strict=False):
                    if record["parameters"] != trial.params:
                        raise RunError(
                            "a resumed search must be the search that was begun",
                            received=f"{self._journal}: other parameters in trial {trial.number}",
                            mend="undo the change of config or data, or name another --out",
                        )
                fresh = list(pool.map(measured, [dict(t.params) for t in asked[len(known) :]], names[len(known) :]))
                self._write(fresh)
                for trial, result in zip(asked, [*(Trial(**record) for record in known), *fresh], strict=True):
                    self._tell(study, trial, result)
                    trials.append(result)
                now = max(map(goal_of, trials))
                self._bar.advance(size, f"best {now:.4f}" if now > best or len(trials) == budget else "")
                best = now
        return trials

    def _tell(self, study: "optuna.Study", trial: "optuna.Trial", result: Trial) -> None:
        if self._several:
            trial.set_constraint("behaviours", result.violation)
            study.tell(trial, [result.behaviours[name] for name in self._behaviours])
        else:
            study.tell(trial, goal_of(result))

    def _write(self, trials: list[Trial]) -> None:
        if self._journal is None or not trials:
            return
        with self._journal.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(asdict(trial)) + "\n" for trial in trials)
            stream.flush()
            os.fsync(stream.fileno())

    def _grid(self) -> list[Values]:
        """Every combination of as many evenly spaced values a parameter as the budget allows."""
        budget = self._config.trials - len(self._starts)
        levels = int((max(budget, 1) + 1e-9) ** (1 / len(self._space)))
        if levels < 2:
            raise ConfigError(
                "a grid needs two values of every parameter",
                received=f"{len(self._space)} parameters, {budget} trials after the {len(self._starts)} starts",
                mend=f"allow {2 ** len(self._space) + len(self._starts)} trials, or take another method",
            )
        values = [
            (np.geomspace if d.log else np.linspace)(d.low, d.high, levels).clip(d.low, d.high).tolist()
            for d in self._space.values()
        ]
        return [dict(zip(self._space, point, strict=True)) for point in product(*values)]


def _sampler(method: Method, seed: int) -> "optuna.samplers.BaseSampler":
    from optuna import samplers

    makers: dict[Method, Callable[[], samplers.BaseSampler]] = {
        "grid": lambda: samplers.RandomSampler(seed=seed),  # is never asked: all points are enqueued
        "random": lambda: samplers.RandomSampler(seed=seed),
        "sobol": lambda: samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=seed),
        "tpe": lambda: samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=32),
        "motpe": lambda: samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    }
    return makers[method]()


def goal_of(trial: Trial) -> float:
    """The goal; of what violates a constraint, below every goal, the less the more it violates (Deb 2000)."""
    if not math.isfinite(trial.value):
        return -1e9
    return trial.value if trial.violation == 0 else -1.0 - trial.violation


def _read_journal(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; what a killed process left half-written is cut off."""
    whole, records = 0, []
    text = path.read_bytes()
    for line in text.splitlines(keepends=True):
        try:
            records.append(json.loads(line))
        except ValueError:
            break
        if not line.endswith(b"\n"):
            records.pop()
            break
        whole += len(line)
    if whole < len(text):
        os.truncate(path, whole)
    return records
