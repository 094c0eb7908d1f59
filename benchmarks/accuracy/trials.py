"""Trials: one config and one seed, trained and judged in a process of its own; each leaves a JSON for good."""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyrank.data.encoders import Encoders
from polyrank.data.loader import Loader
from polyrank.data.schema import load_schema, save_schema
from polyrank.data.store import EncodedData
from polyrank.evaluation.boosting import boost
from polyrank.evaluation.predict import ScoreTable, score_table, with_truth
from polyrank.files import read_json, scratch, write_json
from polyrank.metrics.ranking import auc, gauc
from polyrank.progress import Progress
from polyrank.runs import EVALUATION_BATCH, Prepared, prepare, train_run
from polyrank.settings import Settings, load_settings
from polyrank.training.pool import Job, run_all

LIGHTGBM = "lightgbm"


@dataclass(frozen=True)
class Study:
    """Where trials are kept, and what they have in common: a config file and `--set` assignments."""

    config: Path
    sets: tuple[str, ...]
    out: Path

    def settings(self, sets: Sequence[str], seed: int) -> Settings:
        """The experiment of one trial, on one thread."""
        fixed = ("train.threads=1", "data.leak_guard=false", f"train.seed={seed}")
        return load_settings(self.config, [*self.sets, *sets, *fixed])


@dataclass(frozen=True)
class Trial:
    """A named variant of a study's config, and a seed."""

    name: str
    sets: tuple[str, ...]
    seed: int

    def path(self, study: Study) -> Path:
        """Its result, named by what was trained: variants that come to the same share it, a changed one has another."""
        key = json.dumps([study.settings(self.sets, self.seed).table(run=True), self.name == LIGHTGBM], default=str)
        return study.out / "trials" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def run_trials(study: Study, trials: Sequence[Trial], jobs: int, progress: Progress) -> dict[str, list[dict[str, Any]]]:
    """Run the trials that have no result yet, `jobs` at a time; all results by variant, in the order of seeds."""
    paths = {trial: trial.path(study) for trial in trials}
    distinct = {path: trial for trial, path in reversed(paths.items())}
    waiting = [trial for path, trial in reversed(distinct.items()) if not path.exists()]
    places = {}
    for trial in waiting:  # encoded once for all trials that read the same, with every processor
        data = study.settings(trial.sets, 0).data
        place = study.out / "data" / hashlib.sha256(repr(data).encode()).hexdigest()[:12]
        if place not in places.values():
            settings = study.settings(trial.sets, 0)
            settings = replace(settings, train=replace(settings.train, threads=os.cpu_count() or 1))
            prepared = prepare(settings, place, progress, test=True)
            save_schema(prepared.schema, place / "schema.toml")
        places[trial] = place
    run_all([Job(f"{t.name} {t.seed}", _one, (study, t, places[t], paths[t])) for t in waiting], jobs, progress)
    results: dict[str, list[dict[str, Any]]] = {}
    for trial, path in paths.items():
        results.setdefault(trial.name, []).append(read_json(path))
    return results


def finished(study: Study) -> dict[str, list[dict[str, Any]]]:
    """All results that are there, by variant."""
    results: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((study.out / "trials").glob("*.json")):
        one = read_json(path)
        results.setdefault(one["name"], []).append(one)
    return {name: sorted(seeds, key=lambda one: one["seed"]) for name, seeds in results.items()}


def _one(study: Study, trial: Trial, place: Path, path: Path, progress: Progress) -> None:
    """Train, judge on validation and test, write the result."""
    torch.set_num_threads(1)
    settings = study.settings(trial.sets, trial.seed)
    schema = load_schema(place / "schema.toml")
    parts = {part: EncodedData.open(place / "encoded" / part, verify=False) for part in ("train", "valid", "test")}
    prepared = Prepared(schema, Encoders.load(place / "encoders", schema), parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    if trial.name == LIGHTGBM:
        tables, steps = _boosted(prepared, trial.seed), 0
    else:
        with scratch(path.parent) as folder:
            ranker, found = train_run(prepared, settings, folder, progress, resume=False)
        steps = found.best_step
        tables = {
            part: score_table(ranker, Loader(schema, parts[part], EVALUATION_BATCH)) for part in ("valid", "test")
        }
    measured = {part: measures(table) for part, table in tables.items()}
    seconds = round(time.process_time() - began, 1)
    # Where a machine keeps its files says nothing: of a path its last part.
    sets = [re.sub(r"=/.*/", "=", each) for each in trial.sets]
    write_json(path, {"name": trial.name, "sets": sets, "seed": trial.seed, "steps": steps, "cpu": seconds, **measured})


def _boosted(prepared: Prepared, seed: int) -> dict[str, ScoreTable]:
    """A LightGBM per task, as the seesaw study trains it."""
    schema, parts = prepared.schema, prepared.parts
    tables = {}
    for part in ("valid", "test"):
        predictions = [
            boost(
                schema, prepared.encoders.layout, task, parts["train"], parts["valid"], parts[part],
                rows=2_000_000, threads=1, seed=seed,
            ).predictions
            for task in schema.task_names
        ]  # fmt: skip
        data = parts[part]
        labels, groups, weights = (np.asarray(part) for part in (data.labels, data.groups, data.weights))
        tables[part] = with_truth(schema, schema.tasks, np.stack(predictions, axis=1), labels, groups, weights)
    return tables


def measures(table: ScoreTable) -> dict[str, dict[str, float]]:
    """AUC, and where there are groups GAUC, of each binary task: others are there to help them."""
    found = {}
    for index, task in enumerate(table.tasks):
        if task.kind != "binary":
            continue
        predictions, labels, groups = table.rows(index)
        found[task.name] = {"auc": auc(predictions, labels)}
        if groups is not None:
            found[task.name]["gauc"] = gauc(predictions, labels, groups).value
    return found


def quality(results: Sequence[Mapping[str, Any]]) -> float:
    """What is chosen by: on validation data the mean over seeds, tasks and measures."""
    return float(np.mean([value for one in results for task in one["valid"].values() for value in task.values()]))
