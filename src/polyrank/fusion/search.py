"""Search of a formula's parameters with Optuna: for one goal, or for several behaviours at once.

Trials are asked for in batches, measured side by side, and told in order, so that the same seed gives the same search
whatever the number of threads. Each is a line of a journal. A search that is resumed replays its sampler from the
journal, measuring only what is not in it: killed and resumed equals uninterrupted.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Interval

from polyrank.errors import ConfigError, RunError
from polyrank.evaluation.pareto import non_dominated
from polyrank.evaluation.requests import Requests
from polyrank.fusion.expression import Known, evaluate
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.objective import Goal, Measured, Objective
from polyrank.fusion.plan import fold, ordinal
from polyrank.fusion.seeds import Values, equal_contribution, heads_alone, match, within
from polyrank.progress import Bar, Silent

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


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        trials: all, in order.
        best: the trial that was chosen, of those that violate nothing (of all, where every one does).
        front: the trials that no other dominates in the behaviours' GAUC.
    """

    trials: list[Trial]
    best: int
    front: list[int] = field(default_factory=list)

    @property
    def parameters(self) -> Values:
        """Those of the best."""
        return self.trials[self.best].parameters


class Problem:
    """A template's parameters → the goal, on some rows: everything that no parameter touches is worked out once.

    Raises:
        DataError, ValueError: see `Objective` and `Fusion.score`.
    """

    def __init__(self, template: Template, data: Requests, objective: Objective) -> None:
        self.template, self._objective = template, objective
        order = objective.order
        context = {name: np.asarray(values, np.float64)[order] for name, values in data.columns.items()}
        known = Known(context, data.requests[order], template.tables)
        with np.errstate(over="ignore", under="ignore"):
            expression = ordinal(template.expression, template.scope)
            self._node, self._values = fold(expression, known, frozenset(template.parameters))
        self._rows = data.rows

    def __call__(self, parameters: Mapping[str, float]) -> Measured:
        """Measure the formula with these parameters."""
        with np.errstate(over="ignore", under="ignore"):
            scores = np.asarray(evaluate(self._node, Known({**self._values, **parameters})))
        return self._objective.measure(np.broadcast_to(scores, (self._rows,)))

    def formula(self, formula: Formula, data: Requests) -> Measured:
        """Measure another formula on the same rows."""
        return self._objective.measure(formula.order(data.columns, data.requests)[self._objective.order])


def search(
    template: Template,
    data: Requests,
    objective: Objective,
    config: SearchConfig,
    *,
    current: Formula | None = None,
    journal: Path | None = None,
    bar: Bar | None = None,
) -> Found:
    """Search the template's parameters.

    Args:
        template: fitted, with at least one parameter.
        data: the rows that choose: never those that judge.
        objective: the goal on these rows.
        config: method and budget.
        current: the formula in production: a start where the template can be it, and what `epsilon` is measured from.
        journal: where trials are written down, and read back on resume; None: nowhere.
        bar: is advanced by 1 a trial.

    Raises:
        ConfigError: no parameter, a grid larger than the budget, or a constraint without a current formula.
        RunError: the journal is of another search.
    """
    if not template.parameters:
        raise ConfigError(
            "a search needs a formula with parameters",
            received=str(template.bind()),
            mend="name a preset, or write a name in place of a number and describe it in [fusion.parameters]",
        )
    if config.epsilon >= 0 and current is None:
        raise ConfigError("epsilon is measured from the current formula", received="none", mend="set [fusion] current")
    problem, bar = Problem(template, data, objective), bar or Silent()
    floors: dict[str, float] = {}
    if config.epsilon >= 0 and current is not None:
        now = problem.formula(current, data).behaviours
        floors = {name: (1 - config.epsilon) * value for name, value in now.items() if math.isfinite(value)}
    starts = seeds(template, data, current)
    behaviours = objective.behaviours

    def measured(parameters: Values, origin: str) -> Trial:
        found = problem(parameters)
        violation = sum(max(0.0, floor - found.behaviours[name]) for name, floor in floors.items())
        return Trial(origin, parameters, found.value, dict(found.behaviours), violation)

    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        trials = _Loop(template, config, starts, behaviours, journal, bar).run(measured)
    return Found(trials, *_chosen(trials, behaviours))


def seeds(template: Template, data: Requests, current: Formula | None = None) -> dict[str, Values]:
    """The formulas a search tries first, by what they are."""
    starts = {"start": {name: parameter.value for name, parameter in template.parameters.items()}}
    if data.rows:
        starts["equal contribution"] = equal_contribution(template, data.columns, data.requests)
    starts |= {f"{head} alone": values for head, values in heads_alone(template).items()}
    now = match(template, current) if current is not None else None
    if now is not None:
        starts["current"] = now
    inside = {origin: within(template, values) for origin, values in starts.items()}
    last = {tuple(values.items()): origin for origin, values in inside.items()}  # each point once, by its last name
    return {origin: inside[origin] for origin in last.values()}


class _Loop:
    """Ask, measure, tell; written down."""

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
                now = max(map(_goal, trials))
                self._bar.advance(size, f"best {now:.4f}" if now > best or len(trials) == budget else "")
                best = now
        return trials

    def _tell(self, study: "optuna.Study", trial: "optuna.Trial", result: Trial) -> None:
        if self._several:
            trial.set_constraint("behaviours", result.violation)
            study.tell(trial, [result.behaviours[name] for name in self._behaviours])
        else:
            study.tell(trial, _goal(result))

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


def _goal(trial: Trial) -> float:
    """The goal; of what violates a constraint, below every goal, the less the more it violates (Deb 2000)."""
    if not math.isfinite(trial.value):
        return -1e9
    return trial.value if trial.violation == 0 else -1.0 - trial.violation


def _chosen(trials: list[Trial], behaviours: list[str]) -> tuple[int, list[int]]:
    goals = [_goal(trial) for trial in trials]
    values = np.array([[trial.behaviours[name] for name in behaviours] for trial in trials])
    values[:, ~np.isfinite(values).any(axis=0)] = 0.0  # a behaviour that no request can measure decides nothing
    members = non_dominated(values)
    return int(np.argmax(goals)), np.flatnonzero(members).tolist()


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
