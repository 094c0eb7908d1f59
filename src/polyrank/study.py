"""The seesaw study: architectures × balancers × seeds beside single-task models and LightGBM.

Each is trained in a process of its own, into a directory below OUT/runs; OUT/encoders and OUT/encoded are shared.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from polyrank.data.schema import save_schema
from polyrank.errors import RunError
from polyrank.evaluation.pareto import front
from polyrank.evaluation.predict import PRIMARY, task_metrics, with_truth
from polyrank.evaluation.seesaw import Difference, Sweep, differences, lack, sweep
from polyrank.files import read_json, write_json
from polyrank.metrics.calibration import calibration_curve
from polyrank.progress import Bar, Progress
from polyrank.runs import Prepared, changed_keys, prepare
from polyrank.settings import Settings
from polyrank.training.history import read_history
from polyrank.training.pool import Job, run_all
from polyrank.trainings import Contender, Training, contenders, is_done, plan, train_one

_MOST_JOBS = 8  # side by side, unless more are asked for: each holds a model and its optimiser


def run_study(
    settings: Settings, out: Path, progress: Progress, *, title: str, command: str, resume: bool
) -> dict[str, Any]:
    """Train what is not yet trained, judge all on test data, and give the study as `seesaw.json` holds it.

    Raises:
        RunError: `out` holds a study and `resume` was not asked for, or it was made from other data or with another
            config outside [compare]. A change of [compare] extends a study: what is there and still fits is used.
        PolyrankError: whatever stopped one of the runs; finished runs are kept.
    """
    stamp = out / "study.json"
    table = settings.table(run=False)
    if stamp.exists():
        if not resume:
            raise RunError(
                "a new study needs a directory of its own",
                received=f"{out} holds one",
                mend="name another --out, or go on with it by --resume",
            )
        if changed := changed_keys(read_json(stamp), table):
            raise RunError(
                "a resumed study must have the config it began with, outside [compare]",
                received=f"{out} differs in {', '.join(changed)}",
                mend="undo the change, or name another --out",
            )
    elif resume:
        progress.say(f"nothing to go on with in {out}: starting anew")
    prepared = prepare(settings, out, progress, test=True)
    write_json(stamp, table)
    save_schema(prepared.schema, out / "schema.toml")
    tasks = settings.data.tasks or prepared.schema.task_names
    trainings = plan(settings, tasks)
    cores = _processors()
    workers = min(settings.compare.jobs or min(cores, _MOST_JOBS), len(trainings))
    threads = max(1, cores // workers)
    waiting = [t for t in trainings if not is_done(t, settings, out)]
    if len(waiting) < len(trainings):
        progress.say(f"{len(trainings) - len(waiting)} of {len(trainings)} runs are already there")
    jobs = [Job(t.name, train_one, (t, settings, out, threads)) for t in waiting]
    run_all(jobs, workers, progress)
    with progress.bar("judging", len(tasks) * settings.compare.replicates, unit="replicates") as bar:
        return _Judge(settings, prepared, out, tasks).study(title, command, bar)


def _processors() -> int:
    """How many this process may use, which a container or a scheduler may have made fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Judge:
    """Reads the finished runs of a study and compares them."""

    def __init__(self, settings: Settings, prepared: Prepared, out: Path, tasks: Sequence[str]) -> None:
        self.settings, self.compare, self.prepared, self.out = settings, settings.compare, prepared, out
        self.contenders = {one.name: one for one in contenders(settings)}
        schema, self.test = prepared.schema, prepared.parts["test"]
        self.tasks = [schema.tasks[schema.task_names.index(name)] for name in tasks]
        labels = np.asarray(self.test.labels)
        nothing, groups = np.zeros((len(labels), 0)), np.asarray(self.test.groups)
        self.truth = with_truth(schema, self.tasks, nothing, labels, groups, np.asarray(self.test.weights))
        self.unjudged: dict[str, str] = {}  # task → why

    def study(self, title: str, command: str, bar: Bar) -> dict[str, Any]:
        """The whole of `seesaw.json`, but for when it was made."""
        compare, parts = self.compare, self.prepared.parts
        models = [self._model(one) for one in self.contenders.values()]
        references: dict[str, dict[str, Any]] = {"single_task": {}}
        if compare.lightgbm:
            references["lightgbm"] = {}
        for index, task in enumerate(self.tasks):
            found = {name: self._predictions(name, index) for name in (*self.contenders, *references)}
            where = self.truth.where[:, index]
            labels = self.truth.labels[where, index]
            groups = None if self.truth.groups is None else self.truth.groups[where]
            why = lack(task.kind, labels, groups)
            sweeps = {name: [sweep(task.kind, p[where], labels) for p in each] for name, each in found.items()}
            deltas = differences(
                {name: sweeps[name] for name in self.contenders},
                {name: sweeps[name] for name in references},
                groups,
                len(labels),
                replicates=0 if why else compare.replicates,
                level=compare.level,
                bar=bar,
            )
            if why:
                bar.advance(compare.replicates)
            if any(delta.low is None for of_model in deltas.values() for delta in of_model.values()):
                self.unjudged[task.name] = (
                    why or "a metric is undefined on too many bootstrap replicates, or never varies"
                )
            for name in references:
                references[name][task.name] = self._measured(index, found[name], sweeps[name])
            for model in models:
                each, own = found[model["name"]], sweeps[model["name"]]
                delta = {name: _delta(value) for name, value in deltas[model["name"]].items()}
                model["tasks"][task.name] = self._measured(index, each, own) | {"delta": delta}
                if task.kind == "binary":
                    curve = calibration_curve(each[0][where], labels)
                    model["calibration"][task.name] = {k: v.tolist() for k, v in vars(curve).items()}
        return {
            "format": 1,
            "title": title,
            "command": command,
            "rows": {name: parts[name].rows for name in ("train", "valid", "test")},
            "seeds": list(compare.seeds),
            "level": compare.level,
            "notes": self._notes(),
            "tasks": [self._task(index) for index in range(len(self.tasks))],
            "references": references,
            "models": models,
            "pareto": self._pareto(models, references["single_task"]),
            "costs": {name: self._reference_cost(name) for name in references},
            "config": json.loads(json.dumps(self.settings.table(run=False))),
        }

    def _task(self, index: int) -> dict[str, Any]:
        task = self.tasks[index]
        labels = self.truth.labels[self.truth.where[:, index], index]
        binary = task.kind == "binary"
        return {
            "name": task.name,
            "kind": task.kind,
            "metric": PRIMARY[task.kind],
            "rows": len(labels),
            "positives": int(labels.sum()) if binary else None,
            "given": task.given or None,
            "base_rate": float(labels.mean()) if binary and len(labels) else None,
        }

    def _model(self, one: Contender) -> dict[str, Any]:
        """What does not depend on a task: gates, curves, cost (means over seeds)."""
        directories = list(self._directories(one.name))
        results = [read_json(path / "result.json") for path in directories]
        costs = [result["cost"] for result in results]
        cost = {key: float(np.mean([c[key] for c in costs])) for key in costs[0]}
        for key in ("parameters", "peak_memory_bytes", "model_bytes"):
            cost[key] = round(cost[key])
        # Of the first seed: experts have no identity across seeds, a mean would blur every preference.
        gates = results[0]["gates"]
        names = [task.name for task in self.tasks]
        curves = [
            {"seed": seed} | read_history(directory / "history.jsonl", names)
            for seed, directory in zip(self.compare.seeds, directories, strict=True)
        ]
        for curve in curves[1:]:
            curve.pop("balance", None)  # large, and shown of the first seed only
        return {
            "name": one.name,
            "architecture": one.architecture,
            "balancer": one.balancer or self.settings.balance.method,
            "tasks": {},
            "gates": gates,
            "calibration": {},
            "curves": curves,
            "cost": cost,
        }

    def _pareto(self, models: Sequence[dict[str, Any]], single: dict[str, Any]) -> dict[str, Any] | None:
        """Which models no other one beats on every task; None where there is one task, or a metric is undefined.

        The volume is measured from the worst of all models and of the single-task ones, less a tenth of the range.
        """
        names = [task.name for task in self.tasks]
        means = [[cells[name]["mean"] for name in names] for cells in (*(model["tasks"] for model in models), single)]
        if len(names) < 2 or any(value is None for row in means for value in row):
            return None
        corner = front(means).reference
        judged = front(means[:-1], corner)
        return {
            "reference": dict(zip(names, corner.tolist(), strict=True)),
            "hypervolume": judged.volume,
            "models": {
                model["name"]: {
                    "front": bool(member),
                    "share": float(share),
                    "alone": front([row], corner).volume / judged.volume if judged.volume > 0 else None,
                }
                for model, row, member, share in zip(models, means, judged.members, judged.shares, strict=False)
            },
        }

    def _directories(self, name: str, task: str = "") -> Iterator[Path]:
        seeds = self.compare.seeds[:1] if name == "lightgbm" else self.compare.seeds
        one = self.contenders.get(name) or Contender(name, name, "")
        return (self.out / "runs" / Training(one.architecture, seed, task, one.balancer).name for seed in seeds)

    def _predictions(self, name: str, index: int) -> list[np.ndarray]:
        """A task's predictions `[N]` for every test row, one array a seed."""
        alone = name in ("single_task", "lightgbm")
        directories = self._directories(name, self.tasks[index].name if alone else "")
        return [np.load(d / "predictions.npy", mmap_mode="r")[:, 0 if alone else index] for d in directories]

    def _measured(self, index: int, each: Sequence[np.ndarray], sweeps: Sequence[Sweep]) -> dict[str, Any]:
        """The primary metric by seed, and the mean of all metrics over seeds."""
        per_seed = [s.value() for s in sweeps]
        found = []
        for predictions in each:
            table = with_truth(
                self.prepared.schema,
                [self.tasks[index]],
                np.asarray(predictions)[:, None],
                np.asarray(self.test.labels),
                np.asarray(self.test.groups),
                np.asarray(self.test.weights),
            )
            found.append(task_metrics(table, replicates=0)[self.tasks[index].name])
        means = {
            key: None if any(f[key] is None for f in found) else float(np.mean([f[key] for f in found]))
            for key, value in found[0].items()
            if not isinstance(value, list)
        }
        return {
            "mean": _finite(np.mean(per_seed)),
            "std": _finite(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None,
            "per_seed": [_finite(value) for value in per_seed],
            "metrics": means,
        }

    def _reference_cost(self, name: str) -> dict[str, Any]:
        """Summed over the tasks' models, means over seeds; memory is the largest: they run one after another."""
        by_task = [
            [read_json(d / "result.json")["cost"] for d in self._directories(name, task.name)] for task in self.tasks
        ]

        def over_tasks(key: str, combine: Callable[[list[float]], float]) -> float:
            return combine([float(np.mean([cost[key] for cost in costs])) for costs in by_task])

        keys = [key for key in by_task[0][0] if key != "rows_per_second"]
        total = {key: over_tasks(key, max if key == "peak_memory_bytes" else sum) for key in keys}
        return {key: value if key == "train_seconds" else round(value) for key, value in total.items()}

    def _notes(self) -> list[str]:
        compare = self.compare
        notes = [f"Too little data to judge {task}: {why}." for task, why in self.unjudged.items()]
        seeds = len(compare.seeds)
        # The shares are measured, by simulation of models that do not differ: see docs/seesaw.md.
        if seeds == 1:
            notes.append(
                "One seed only: the randomness of training is not in the intervals; where trainings vary much, a gain "
                "or loss may well be chance (in simulations of models that do not differ, up to 44 % were called so)."
            )
        elif seeds == 2:
            notes.append(
                "2 seeds: the randomness of training is hardly known (in simulations of models that do not differ, up "
                "to 9 % were called gain or loss at 95 %; with 5 seeds up to 6 %)."
            )
        elif seeds < 5:
            notes.append(f"{seeds} seeds: the randomness of training is known roughly; 5 or more are better.")
        if compare.lightgbm:
            notes.append("LightGBM is trained once a task; its own randomness is not in the intervals.")
        if compare.lightgbm and self.prepared.parts["train"].rows > compare.lightgbm_rows:
            notes.append(f"LightGBM was trained on {compare.lightgbm_rows:,} random rows, the models on all.")
        comparisons = len(self.contenders) * len(self.tasks)
        if comparisons > 1:
            notes.append(
                f"Each interval covers {compare.level:.0%} by itself; of {comparisons} verdicts against single-task "
                f"models, about {comparisons * (1 - compare.level):.1f} would be gain or loss by chance alone."
            )
        return notes


def _delta(value: Difference) -> dict[str, Any]:
    return asdict(value) | {"mean": _finite(value.mean)}


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
