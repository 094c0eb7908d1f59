"""The search of a fusion, from a run's predictions to a document: chosen on validation rows, reported on test rows.

OUT/fusion.json      what was chosen       OUT/search.json    all that the page shows      OUT/report.html
OUT/trials.jsonl     every formula tried, also what a resumed search goes on from          OUT/trials.parquet
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyrank.candidates import Candidates, cohorts, judge_config
from polyrank.errors import ConfigError
from polyrank.evaluation.fused import JudgeConfig, judge
from polyrank.evaluation.requests import Requests
from polyrank.files import writing
from polyrank.fusion.config import FusionConfig
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.judged import judged
from polyrank.fusion.objective import Objective
from polyrank.fusion.parse import write
from polyrank.fusion.presets import PRESETS
from polyrank.fusion.sampling import SEVERAL, SearchConfig
from polyrank.fusion.scope import HeadKind, Parameter, Scope
from polyrank.fusion.search import Found, search
from polyrank.fusion.seeds import centred, equal_contribution, prepared, within
from polyrank.fusion.segments import Segmented, shrunk
from polyrank.metrics.checks import Rows
from polyrank.metrics.concordance import kendall
from polyrank.progress import Progress

FUSED, CURRENT, EQUAL, SOBOL = "searched", "current formula", "equal contributions", "Sobol, equal budget"
SEGMENTED = "searched, by segment"
_LISTS, _ROWS = 4, 12  # example requests of a page, and rows of each


@dataclass(frozen=True)
class Chosen:
    """A search's outcome.

    Attributes:
        fusion: what is served.
        document: what the page shows, for `search.json`.
        found: every trial.
    """

    fusion: Fusion
    document: dict[str, Any]
    found: Found


def run_search(config: FusionConfig, parts: Mapping[str, Candidates], out: Path, progress: Progress) -> Chosen:
    """Search on `parts["valid"]`, report on `parts["test"]`.

    Raises:
        ConfigError: the config does not suit the run or the data.
        DataError: no request has rows that differ.
        RunError: the journals in `out` are of another search.
    """
    valid, test = parts["valid"], parts["test"]
    rows, judge_by = valid.requests, judge_config(config, valid.requests)
    objective = Objective(rows, config.search.goal, judge_by)
    current = formula(config.current, valid.kinds, valid) if config.current else None
    template = template_of(config, valid.kinds, valid, objective)
    found = _searched("searching", template, rows, objective, config.search, current, out / "trials.jsonl", progress)
    chosen = template.bind(_rounded(found.parameters))
    rankings: dict[str, Fusion] = {FUSED: chosen}
    if current is not None:
        rankings[CURRENT] = current
    equal = within(template, equal_contribution(template, rows.columns, rows.requests))
    rankings[EQUAL] = template.bind(_rounded(equal))
    if config.search.method != "sobol":
        control = replace(config.search, method="sobol")
        sobol = _searched("control: Sobol", template, rows, objective, control, current, out / "sobol.jsonl", progress)
        rankings[SOBOL] = template.bind(_rounded(sobol.parameters))
    segments: dict[str, Any] = {}
    if config.segment:
        rankings[SEGMENTED], segments = _by_segment(config, template, found, valid, out, progress)
    reference = CURRENT if current is not None else EQUAL
    table = judged(
        test.requests,
        rankings,
        reference,
        judge_by,
        negative=config.negative,
        cohorts=cohorts(config, test.requests),
        seed=config.search.seed,
        progress=progress,
    )
    scores = {name: ranking.score(test.requests.columns, test.requests.requests) for name, ranking in rankings.items()}
    against = _against(test.requests, scores, judge_by, config.search.seed)
    document = {
        "format": 1,
        **_setting(config, parts, template),
        **_trials(template, found),
        "goals": objective.behaviours,
        "formulas": {name: str(ranking) for name, ranking in rankings.items() if isinstance(ranking, Formula)},
        "directions": dict(chosen.directions),
        "reference": reference,
        "judged": table,
        "against": against,
        "segments": segments,
        "agreement": _agreement(test.requests, scores),
        "lists": _lists(test, scores[reference], scores[FUSED], reference),
        "calibration": test.calibration,
        "notes": [*_notes(config, parts, found, chosen, template), *_segment_note(against)],
    }
    return Chosen(rankings.get(SEGMENTED, chosen), document, found)


def template_of(
    config: FusionConfig, kinds: Mapping[str, HeadKind], data: Candidates, objective: Objective
) -> Template:
    """The template that `[fusion] formula` names or writes, fitted, its ranges centred where it is a preset."""
    rows = data.requests
    if config.formula in PRESETS:
        if config.parameters:
            raise ConfigError(
                "a preset brings its own parameters",
                received=f"formula = {config.formula!r} with [fusion.parameters]",
                mend="remove them, or write the formula out",
            )
        return prepared(config.formula, kinds, config.negative, config.context, rows, objective)
    template = Template.parse(config.formula, _scope(kinds, data, config.parameters))
    return template.fit(rows.columns, rows.reward)


def formula(text: str, kinds: Mapping[str, HeadKind], data: Candidates) -> Formula:
    """A formula without parameters, fitted on the rows."""
    made = Formula.parse(text, _scope(kinds, data, {}))
    return made.fit(data.requests.columns, data.requests.reward)


def write_trials(found: Found, path: Path) -> None:
    """Every trial as a row: origin, goal, violation, `w:<parameter>`, `gauc:<behaviour>`."""
    columns: dict[str, Any] = {
        "origin": [t.origin for t in found.trials],
        "value": [t.value for t in found.trials],
        "violation": [float(t.violation) for t in found.trials],
        "front": np.isin(np.arange(len(found.trials)), found.front),
    }
    for name in found.trials[0].parameters:
        columns[f"w:{name}"] = [t.parameters[name] for t in found.trials]
    for name in found.trials[0].behaviours:
        columns[f"gauc:{name}"] = [t.behaviours[name] for t in found.trials]
    with writing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _scope(kinds: Mapping[str, HeadKind], data: Candidates, parameters: Mapping[str, Parameter]) -> Scope:
    return Scope(kinds, data.context, parameters)


def _searched(
    label: str,
    template: Template,
    data: Requests,
    objective: Objective,
    config: SearchConfig,
    current: Formula | None,
    journal: Path,
    progress: Progress,
) -> Found:
    with progress.bar(label, config.trials, "trials") as bar:
        return search(template, data, objective, config, current=current, journal=journal, bar=bar)


def _by_segment(
    config: FusionConfig, template: Template, common: Found, data: Candidates, out: Path, progress: Progress
) -> tuple[Segmented, dict[str, Any]]:
    """Each segment's own search from the common weights, drawn back towards them the fewer requests it has."""
    segments, parts, told = data.requests.columns[config.segment], {}, {}
    if not np.array_equal(segments, np.round(segments)) or len(values := np.unique(segments)) > 20:
        raise ConfigError(
            "a segment must be a column of at most 20 whole numbers",
            received=f"{config.segment}: {len(np.unique(segments)):,} values",
            mend="make a column that counts the segments",
        )
    around = centred(template, common.parameters)
    for value in values.astype(int).tolist():
        rows = data.requests.select(segments == value)
        count = len(np.unique(rows.requests))
        share = count / (count + config.shrinkage)
        objective = Objective(rows, config.search.goal, judge_config(config, rows))
        single = config.search if config.search.method not in SEVERAL else replace(config.search, method="cmaes")
        found = _searched(
            f"segment {value}",
            around,
            rows,
            objective,
            replace(single, epsilon=-1.0),
            None,
            out / f"segment-{value}.jsonl",
            progress,
        )
        weights = _rounded(shrunk(found.parameters, common.parameters, template.parameters, share))
        parts[value] = template.bind(weights)
        told[str(value)] = {"requests": count, "share": share, "parameters": weights, "formula": str(parts[value])}
    return Segmented(config.segment, parts, template.bind(_rounded(common.parameters))), told


def _setting(config: FusionConfig, parts: Mapping[str, Candidates], template: Template) -> dict[str, Any]:
    """What was asked, and of which rows."""
    valid = parts["valid"]
    return {
        "goal": config.search.goal,
        "method": config.search.method,
        "epsilon": config.search.epsilon,
        "rows": {name: part.requests.rows for name, part in parts.items()},
        "requests": {name: len(np.unique(part.requests.requests)) for name, part in parts.items()},
        "users": {name: len(np.unique(part.requests.users)) for name, part in parts.items()},
        "heads": list(valid.kinds),
        "negative": list(config.negative),
        "request": list(valid.request),
        "behaviours": list(valid.requests.labels),
        "template": write(template.expression),
        "source": PRESETS[config.formula].source if config.formula in PRESETS else "",
    }


def _trials(template: Template, found: Found) -> dict[str, Any]:
    """What was tried, and what came of it on the rows that chose."""
    return {
        "parameters": {
            name: {"chosen": found.parameters[name], "low": p.low, "high": p.high, "log": p.log}
            for name, p in template.parameters.items()
        },
        "trials": [
            {
                "origin": trial.origin,
                "value": _number(trial.value),
                "violation": trial.violation,
                "parameters": trial.parameters,
                "behaviours": {name: _number(value) for name, value in trial.behaviours.items()},
            }
            for trial in found.trials
        ],
        "best": found.best,
        "front": found.front,
    }


def _against(data: Requests, scores: Mapping[str, Rows], config: JudgeConfig, seed: int) -> dict[str, Any]:
    """The searched orders against the control, and the segments' weights against the common ones."""
    found: dict[str, Any] = {}
    for other in (SOBOL, FUSED):
        new = [name for name in (FUSED, SEGMENTED) if name in scores and name != other]
        if other in scores and new:
            table = judge(data, {name: scores[name] for name in (other, *new)}, other, config, seed=seed)
            found[other] = {entry["name"]: entry["against"] for entry in table["rankings"] if entry["name"] in new}
    return found


def _agreement(data: Requests, scores: Mapping[str, Rows]) -> dict[str, Any]:
    """Kendall's τ within requests between every two orders, heads alone among them."""
    every = {head: np.asarray(data.columns[head], np.float64) for head in data.heads} | dict(scores)
    names, grid = list(every), np.eye(len(every))
    for i, first in enumerate(names):
        for j in range(i):
            grid[i, j] = grid[j, i] = kendall(every[first], every[names[j]], data.requests).mean()
    return {"names": names, "values": [[_number(value) for value in row] for row in grid]}


def _lists(part: Candidates, before: Rows, after: Rows, reference: str) -> list[dict[str, Any]]:
    """A few real requests in both orders: those in which the two differ most, among the longer ones."""
    data = part.requests
    tau = kendall(before, after, data.requests)
    _, sizes = np.unique(data.requests, return_counts=True)
    long = sizes >= min(6, int(np.max(sizes, initial=0)))
    worst = np.argsort(np.where(long & ~np.isnan(tau.values), tau.values, 2.0), kind="stable")[:_LISTS]
    shown = []
    for index in worst.tolist():
        rows = np.flatnonzero(data.requests == tau.groups[index])
        old = np.argsort(np.argsort(-before[rows], kind="stable"), kind="stable")
        new = np.argsort(-after[rows], kind="stable")
        shown.append({
            "name": f"request {tau.groups[index]}",
            "kendall": _number(tau.values[index]),
            "before": reference,
            "rows": [
                {
                    "was": int(old[place]) + 1,
                    "show": {name: str(values[rows[place]]) for name, values in part.shown.items()},
                    "heads": {head: _number(data.columns[head][rows[place]]) for head in data.heads},
                    "labels": {name: _number(values[rows[place]]) for name, values in data.labels.items()},
                }
                for place in new[:_ROWS]
            ],
        })  # fmt: skip
    return shown


def _notes(
    config: FusionConfig, parts: Mapping[str, Candidates], found: Found, chosen: Formula, template: Template
) -> list[str]:
    notes = [note for part in parts.values() for note in part.notes]
    unproved = [head for head, sign in chosen.directions.items() if sign != (-1 if head in config.negative else 1)]
    if unproved:
        notes.append(f"it cannot be proved that the score rises with {', '.join(unproved)} (falls, of a negative task)")
    if found.trials[found.best].violation > 0:
        notes.append("no formula that was tried keeps every behaviour above (1 − epsilon) of the current formula's")
    for name, parameter in template.parameters.items():
        if (
            parameter.log
            and min(abs(np.log(found.parameters[name] / b)) for b in (parameter.low, parameter.high)) < 0.02
        ):
            notes.append(
                f"{name} = {found.parameters[name]:.4g} lies at the end of its range: a wider one may be better"
            )
    return notes


def _segment_note(against: Mapping[str, Any]) -> list[str]:
    """What weights by segment bring over the common ones: a reader should know before serving more of them."""
    delta = against.get(FUSED, {}).get(SEGMENTED, {}).get("composite", {}).get("gauc")
    if not delta or delta["mean"] is None:
        return []
    ends = "" if delta["low"] is None else f" [{delta['low']:+.4f}, {delta['high']:+.4f}]"
    return [f"weights by segment against the common ones: composite {delta['mean']:+.4f}{ends}, a {delta['verdict']}"]


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four significant digits: what is served is what a person can read and copy."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
