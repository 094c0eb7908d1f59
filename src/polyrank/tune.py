"""A search for loss weights and other settings: trials on validation data, the best of them judged on test data.

OUT/trials.journal            every trial, as Optuna keeps it    OUT/encoders, OUT/encoded     shared by all trials
OUT/trials/<number>/          one run directory a trial; checkpoints are kept of those that may still be chosen
OUT/best.toml                 the best trial's config, whole (where there is one objective)

A trial that was cut off goes on from its checkpoint, so that a search that was killed and resumed equals one that was
never interrupted.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna import TrialPruned
from optuna.trial import Trial

from polyrank.config import Table, nearest, to_table, write_toml
from polyrank.datasets import open_schema
from polyrank.errors import ConfigError, RunError, RunFailed, TrainingDiverged
from polyrank.evaluation.pareto import front
from polyrank.evaluation.predict import PRIMARY, ScoreTable
from polyrank.evaluation.seesaw import differences, lack, sweep
from polyrank.files import read_json, write_json
from polyrank.progress import Bar, Progress
from polyrank.rankers import build_ranker
from polyrank.runs import Prepared, begin, changed_keys, check_tasks, evaluate_part, prepare, train_run
from polyrank.search_space import applied, check_space, own_values, usual_space
from polyrank.settings import Range, Settings, TuneConfig, parse_settings
from polyrank.training.checkpoint import load_checkpoint
from polyrank.training.history import read_history
from polyrank.trials import Trials


def tune_out(
    table: Table, base: Path, out: Path, progress: Progress, *, title: str, command: str, trials: int, resume: bool
) -> dict[str, Any]:
    """Try settings until there are `trials` of them, and give the search as `tune.json` holds it.

    Args:
        table: the experiment, as it was read, with overrides.
        base: the directory that its relative paths start from.
        out: the search's directory, which must be `locked`.
        progress: where to report.
        title: of the report.
        command: how it was called.
        trials: how many there shall be in the end; 0 for the config's number.
        resume: go on with what is there.

    Raises:
        ConfigError: the config, its space or its objectives break a rule.
        RunError: `out` holds a search and `resume` was not asked for, or one of another config or of other data.
        RunFailed: no trial reached its end.
        Interrupted: ctrl-C; the trial under way goes on from its checkpoint when the search is resumed.
    """
    settings = parse_settings(table, base)
    schema = open_schema(settings.data.schema, base)
    tasks = settings.data.tasks or schema.task_names
    check_tasks(schema, settings)
    _check_objectives(settings.tune, tasks)
    space = settings.tune.space or usual_space(settings, tasks)
    check_space(space, table, base, lambda changed: check_tasks(schema, changed))
    _check_stamp(out, settings, progress, resume=resume)
    prepared = prepare(settings, out, progress, test=True)
    write_json(out / "study.json", _stamp(settings))
    search = _Search(table, settings, prepared, out, space)
    search.run(trials or settings.tune.trials, progress)
    return search.document(title, command, progress)


class _Search:
    """Trains trials, and judges those that were chosen."""

    def __init__(
        self, table: Table, settings: Settings, prepared: Prepared, out: Path, space: Mapping[str, Range]
    ) -> None:
        self.table, self.settings, self.prepared, self.out, self.space = table, settings, prepared, out, space
        self.objectives = settings.tune.objectives
        self.tasks = settings.data.tasks or prepared.schema.task_names
        self.first = own_values(space, settings)
        self.trials = Trials(out / "trials.journal", settings.tune, space, self.first)

    def run(self, total: int, progress: Progress) -> None:
        """Train trials until there are `total`."""
        if self.first is None:
            progress.say("the config's own values lie outside the space: they are not among the trials")
        done = len(self.trials.ended)
        with progress.bar("trials", total, unit="trials") as bar:
            bar.advance(min(done, total))
            for _ in range(done, total):
                progress.say(self._one(progress))
                self._forget()
                bar.advance(1, self._standing())

    def _one(self, progress: Progress) -> str:
        """One trial from proposal to verdict; what it came to, in words."""
        trial, values = self.trials.next()
        mine, directory = self._settings(values), self._directory(trial.number)
        tried = ", ".join(f"{key} {_short(value)}" for key, value in values.items())

        def observe(record: dict[str, Any]) -> None:
            lines = (directory / "history.jsonl").read_text(encoding="utf-8").count("\n")
            if self.trials.report(trial, record["metric"], lines - 1):
                raise TrialPruned

        try:
            begin(directory, mine, self.prepared.schema, progress)
            train_run(self.prepared, mine, directory, progress, resume=True, observer=observe)
        except TrialPruned:
            self.trials.prune(trial)
            return f"trial {trial.number}: pruned ({tried})"
        except TrainingDiverged as error:
            return self._failed(trial, str(error), tried)
        reached = self._reached(directory)
        if missing := [name for name, value in reached.items() if value is None]:
            return self._failed(trial, f"validation cannot rank {', '.join(missing)}", tried)
        self.trials.complete(trial, [float(value) for value in reached.values() if value is not None])
        said = ", ".join(f"{name} {value:.4f}" for name, value in reached.items())
        return f"trial {trial.number}: {said} ({tried})"

    def _failed(self, trial: Trial, why: str, tried: str) -> str:
        self.trials.fail(trial, why)
        return f"trial {trial.number}: failed, {why.splitlines()[0]} ({tried})"

    def _reached(self, directory: Path) -> dict[str, float | None]:
        """The objectives at the checkpoint that was kept."""
        history = read_history(directory / "history.jsonl", self.tasks)
        place = max(index for index, best in enumerate(history["best"]) if best)
        columns = {"mean": history["metric"], **history["valid"]}
        return {name: columns[name][place] for name in self.objectives}

    def _settings(self, values: Mapping[str, Any]) -> Settings:
        """The experiment of a trial; with one objective, it chooses the best checkpoint too."""
        changes = dict(values)
        if len(self.objectives) == 1:
            changes["train.metric"] = self.objectives[0]
        return parse_settings(applied(self.table, changes), self.settings.base)

    def _directory(self, number: int) -> Path:
        return self.out / f"trials/{number:04d}"

    def _forget(self) -> None:
        """Remove checkpoints that nothing will ask for again: a front only ever advances."""
        kept = {*self.trials.chosen, self.trials.baseline}
        for trial in self.trials.ended:
            checkpoints = self._directory(trial.number) / "checkpoints"
            if trial.number in kept:
                (checkpoints / "last.safetensors").unlink(missing_ok=True)
            else:
                shutil.rmtree(checkpoints, ignore_errors=True)

    def _standing(self) -> str:
        """A short word on the best so far."""
        chosen = self.trials.chosen
        if len(self.objectives) > 1 or not chosen:
            return f"{len(chosen)} on the front" if chosen else ""
        best = next(trial for trial in self.trials.completed if trial.number == chosen[0])
        return f"best {self.objectives[0]} {best.values[0]:.4f} (trial {best.number})"

    def document(self, title: str, command: str, progress: Progress) -> dict[str, Any]:
        """The whole of `tune.json`, but for when it was made; also writes the best trial's config.

        Raises:
            RunFailed: no trial reached its end.
        """
        trials, chosen, baseline = self.trials.described(), self.trials.chosen, self.trials.baseline
        if not chosen:
            raise RunFailed(
                "a search needs a trial that reaches its end",
                received="; ".join(
                    f"trial {t['number']}: {' '.join(t['why'].split()) or t['state']}" for t in trials[:3]
                ),
                mend="narrow tune.space: too high a learning rate diverges",
            )
        for trial in trials:
            history = self._directory(trial["number"]) / "history.jsonl"
            lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
            trial["seconds"] = json.loads(lines[-1])["seconds"] if lines else None
        if len(self.objectives) == 1:
            write_toml(self.out / "best.toml", self._settings(self.trials.values(chosen[0])).table(run=True))
        metrics, against = self._judge(dict.fromkeys([*chosen, *(() if baseline is None else (baseline,))]), progress)
        judged = front(np.array([trial.values for trial in self.trials.completed]))
        shares = zip(self.trials.completed, judged.shares, strict=True)
        kinds = {task.name: task.kind for task in self.prepared.schema.tasks}
        return {
            "format": 1,
            "title": title,
            "command": command,
            "rows": {name: part.rows for name, part in self.prepared.parts.items()},
            "tasks": [{"name": name, "metric": PRIMARY[kinds[name]]} for name in self.tasks],
            "objectives": [
                {"name": name, "metric": PRIMARY[kinds[name]] if name in kinds else ""} for name in self.objectives
            ],
            "sampler": self.settings.tune.sampler,
            "level": self.settings.compare.level,
            "space": {key: to_table(span) for key, span in self.space.items()},
            "trials": trials,
            "chosen": chosen,
            "baseline": baseline,
            "reference": judged.reference.tolist(),
            "hypervolume": judged.volume,
            "shares": {str(trial.number): float(share) for trial, share in shares if trial.number in chosen},
            "importance": self.trials.importance(),
            "test": metrics,
            "against_config": against,
            "config": json.loads(json.dumps(_stamp(self.settings))),
        }

    def _judge(self, numbers: Mapping[int, Any], progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        """Test metrics of these trials' best checkpoints, and their differences from the config as it is, by task."""
        tables, metrics = {}, {}
        for number in numbers:
            mine, directory = self._settings(self.trials.values(number)), self._directory(number)
            ranker = build_ranker(self.prepared.schema, self.prepared.encoders, mine, directory)
            ranker.load_state_dict(load_checkpoint(directory / "checkpoints/best.safetensors")["model"])
            tables[number], found = evaluate_part(ranker, self.prepared, mine, "test", progress)
            write_json(directory / "metrics.json", found)
            metrics[str(number)] = found["tasks"]
        baseline = self.trials.baseline
        if baseline is None or len(tables) < 2:
            return metrics, {}
        compare = self.settings.compare
        with progress.bar("judging", len(self.tasks) * compare.replicates, unit="replicates") as bar:
            by_task = {
                name: against(tables, baseline, index, compare.replicates, compare.level, bar)
                for index, name in enumerate(self.tasks)
            }
        return metrics, {str(n): {name: by_task[name][n] for name in by_task} for n in tables if n != baseline}


def against(
    tables: Mapping[int, ScoreTable], baseline: int, task: int, replicates: int, level: float, bar: Bar
) -> dict[int, dict[str, Any]]:
    """Δ of every table but the baseline's against it on one task, paired over one bootstrap of the rows.

    Each is one training: the randomness of training is not in the intervals.
    """
    kind = tables[baseline].tasks[task].kind
    _, labels, groups = tables[baseline].rows(task)
    sweeps = {str(number): [sweep(kind, table.rows(task)[0], labels)] for number, table in tables.items()}
    reference = {"baseline": sweeps.pop(str(baseline))}
    if lack(kind, labels, groups):
        bar.advance(replicates)
        replicates = 0
    found = differences(sweeps, reference, groups, len(labels), replicates=replicates, level=level, bar=bar)
    rows = {int(number): vars(delta["baseline"]) for number, delta in found.items()}
    return {n: row | {"mean": row["mean"] if np.isfinite(row["mean"]) else None} for n, row in rows.items()}


def _check_objectives(config: TuneConfig, tasks: Sequence[str]) -> None:
    known, chosen = ["mean", *tasks], config.objectives
    for name in chosen:
        if name not in known:
            raise ConfigError("tune.objectives must name tasks, or 'mean'", received=name, mend=nearest(name, known))
    if len(set(chosen)) < len(chosen) or ("mean" in chosen and len(chosen) > 1):
        raise ConfigError(
            "tune.objectives must be 'mean' alone, or tasks, each once",
            received=", ".join(chosen),
            mend="name one for the best trial, two tasks or more for their Pareto front",
        )


def _stamp(settings: Settings) -> dict[str, Any]:
    """What a search is made from: all but how many trials there shall be."""
    tune = {key: value for key, value in to_table(settings.tune).items() if key != "trials"}
    return settings.table(run=False) | {"tune": tune}


def _check_stamp(out: Path, settings: Settings, progress: Progress, *, resume: bool) -> None:
    saved = out / "study.json"
    if not saved.exists():
        if resume:
            progress.say(f"nothing to go on with in {out}: starting anew")
        return
    if not resume:
        raise RunError(
            "a new search needs a directory of its own",
            received=f"{out} holds one",
            mend="name another --out, or go on with it by --resume",
        )
    if changed := changed_keys(read_json(saved), _stamp(settings)):
        raise RunError(
            "a resumed search must have the config it began with, but for tune.trials and [compare]",
            received=f"{out} differs in {', '.join(changed)}",
            mend="undo the change, or name another --out",
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
