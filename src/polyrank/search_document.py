"""What a search's page shows, for `search.json`: what was asked, tried and found, and what a reader should know."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from polyrank.candidates import Candidates, cohorts, judge_config
from polyrank.evaluation.fused import JudgeConfig, judge
from polyrank.evaluation.requests import Requests
from polyrank.fusion.config import FusionConfig
from polyrank.fusion.expression import Call, Name, walk
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.judged import judged
from polyrank.fusion.parse import write
from polyrank.fusion.presets import PRESETS
from polyrank.fusion.search import Found
from polyrank.metrics.checks import Rows
from polyrank.metrics.concordance import kendall
from polyrank.progress import Progress

FUSED, CURRENT, EQUAL, SOBOL = "searched", "current formula", "equal contributions", "Sobol, equal budget"
SEGMENTED: Final = "searched, by segment"
_LISTS, _ROWS = 4, 12  # example requests of a page, and rows of each


def search_document(
    config: FusionConfig,
    parts: Mapping[str, Candidates],
    template: Template,
    found: Found,
    rankings: Mapping[str, Fusion],
    segments: Mapping[str, Any],
    goals: list[str],
    progress: Progress,
) -> dict[str, Any]:
    """What `search.json` holds.

    Args:
        config: `[fusion]`.
        parts: rows that chose and rows that judge.
        template: what was searched.
        found: what was tried on the rows that chose.
        rankings: what is judged, by name: `FUSED`, `EQUAL`, and perhaps `CURRENT`, `SOBOL` and `SEGMENTED`.
        segments: of each segment its requests, share, parameters and formula.
        goals: the behaviours that count.
        progress: where to report.
    """
    test = parts["test"]
    judge_by = judge_config(config, parts["valid"].requests)
    reference = CURRENT if CURRENT in rankings else EQUAL
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
    formulas = {name: ranking for name, ranking in rankings.items() if isinstance(ranking, Formula)}
    return {
        "format": 1,
        **_setting(config, parts, template),
        **_trials(template, found),
        "goals": goals,
        "formulas": {name: str(ranking) for name, ranking in formulas.items()},
        "directions": dict(formulas[FUSED].directions),
        "reference": reference,
        "judged": table,
        "against": against,
        "segments": dict(segments),
        "agreement": _agreement(test.requests, scores),
        "lists": _lists(test, scores[reference], scores[FUSED], reference),
        "calibration": test.calibration,
        "notes": [*_notes(config, parts, found, formulas[FUSED], template), *_segment_note(against)],
    }


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
    shown: list[dict[str, Any]] = []
    for index in worst.tolist():
        rows = np.flatnonzero(data.requests == tau.groups[index])
        old = np.argsort(np.argsort(-before[rows], kind="stable"), kind="stable")
        new = np.argsort(-after[rows], kind="stable")
        shown.append({
            "name": f"Request {len(shown) + 1} of {sizes[index]} candidates",
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
    notes = list(dict.fromkeys(note for part in parts.values() for note in part.notes))
    notes += _floored(chosen, parts["valid"].requests)
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


def _floored(formula: Formula, data: Requests) -> list[str]:
    """Columns that may be 0 or less where a formula takes their logarithm or a power: there they count as almost 0."""
    notes = []
    for call in walk(formula.expression):
        if isinstance(call, Call) and call.function in ("log", "log1p", "^"):
            column = call.arguments[0]
            if isinstance(column, Name) and column.name in formula.context:
                values = np.asarray(data.columns[column.name])
                share = float((values < 0 if call.function == "log1p" else values <= 0).mean())
                if share:
                    notes.append(
                        f"{column.name} is too low in {share:.1%} of the rows for {write(call)}, which floors it"
                    )
    return notes


def _segment_note(against: Mapping[str, Any]) -> list[str]:
    """What weights by segment bring over the common ones: a reader should know before serving more of them."""
    delta = against.get(FUSED, {}).get(SEGMENTED, {}).get("composite", {}).get("gauc")
    if not delta or delta["mean"] is None:
        return []
    ends = "" if delta["low"] is None else f" [{delta['low']:+.4f}, {delta['high']:+.4f}]"
    return [f"weights by segment against the common ones: composite {delta['mean']:+.4f}{ends}, a {delta['verdict']}"]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
