"""Search of a formula's parameters: for one goal, or for several behaviours at once."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from polyrank.errors import ConfigError
from polyrank.evaluation.pareto import non_dominated
from polyrank.evaluation.requests import Requests
from polyrank.fusion.expression import Known, evaluate
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.objective import Measured, Objective
from polyrank.fusion.plan import fold, ordinal
from polyrank.fusion.sampling import SearchConfig, Trial, Trials, goal_of
from polyrank.fusion.seeds import Values, equal_contribution, heads_alone, match, within
from polyrank.progress import Bar, Silent


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
        trials = Trials(template, config, starts, behaviours, journal, bar).run(measured)
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


def _chosen(trials: list[Trial], behaviours: list[str]) -> tuple[int, list[int]]:
    goals = [goal_of(trial) for trial in trials]
    values = np.array([[trial.behaviours[name] for name in behaviours] for trial in trials])
    values[:, ~np.isfinite(values).any(axis=0)] = 0.0  # a behaviour that no request can measure decides nothing
    members = non_dominated(values)
    return int(np.argmax(goals)), np.flatnonzero(members).tolist()
