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

from polyrank.candidates import Candidates, judge_config
from polyrank.errors import ConfigError
from polyrank.evaluation.requests import Requests
from polyrank.files import writing
from polyrank.fusion.config import FusionConfig
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import PRESETS
from polyrank.fusion.sampling import SEVERAL, SearchConfig
from polyrank.fusion.scope import HeadKind, Parameter, Scope
from polyrank.fusion.search import Found, search
from polyrank.fusion.seeds import centred, equal_contribution, prepared, within
from polyrank.fusion.segments import Segmented, shrunk
from polyrank.progress import Progress
from polyrank.search_document import CURRENT, EQUAL, FUSED, SEGMENTED, SOBOL, search_document


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
    valid = parts["valid"]
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
    document = search_document(config, parts, template, found, rankings, segments, objective.behaviours, progress)
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


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four significant digits: what is served is what a person can read and copy."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}
