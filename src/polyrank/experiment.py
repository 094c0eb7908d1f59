"""The verbs: what a command does, from paths to files. The only module that knows everything."""

import datetime
import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyrank.calibrating import calibrate_run
from polyrank.candidates import read_parts, run_directory
from polyrank.config import override, read_toml, to_table
from polyrank.data.infer import infer_schema
from polyrank.data.profile import profile
from polyrank.data.readers import Source
from polyrank.data.store import encode_to
from polyrank.datasets import PREFIX, open_data, open_schema
from polyrank.errors import ConfigError, RunError
from polyrank.evaluation.predict import PRIMARY
from polyrank.files import locked, read_json, scratch, sweep, write_json, write_text
from polyrank.fuse import formula, run_search, write_trials
from polyrank.fuse_learn import run_learn
from polyrank.fusion.calibration import Method
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.store import FILE as FUSION_FILE
from polyrank.fusion.store import load_fusion, save_fusion
from polyrank.fusion_report import calibration_html, fusion_html
from polyrank.learned_report import learned_html
from polyrank.progress import Progress, Silent
from polyrank.report import profile_html, seesaw_html
from polyrank.run_report import run_html
from polyrank.runs import (
    Prepared,
    begin,
    check_new,
    evaluate_part,
    metrics_document,
    per_task_bests,
    prepare,
    train_run,
)
from polyrank.scoring import Attached, attach, formula_of, load_scorable, score_to
from polyrank.settings import Settings, load_settings, parse_settings
from polyrank.study import run_study
from polyrank.training.history import read_history
from polyrank.tune import tune_out
from polyrank.tune_report import tune_html

HERE = Path()
DEMO: dict[str, Any] = {
    "data": {
        "schema": "builtin:census/paper",
        "train": "builtin:census/train",
        "valid": "builtin:census/valid",
        "test": "builtin:census/test",
    },
    "model": {"embedding_width": 8, "embedding_dropout": 0.3},
    "train": {"epochs": 4, "learning_rate": 2e-3, "warmup": 0.1},
    "compare": {"architectures": ["shared_bottom", "mmoe", "ple"], "seeds": [0, 1, 2]},
}


def infer(data: str, out: Path | None, progress: Progress | None = None) -> str:
    """Propose a schema for `data`, commented; also written to `out` where given.

    Raises:
        DataError: nothing usable is there.
        ConfigError: `out` exists: a schema that was edited by hand is not overwritten.
    """
    if out is not None and out.exists():
        raise ConfigError(
            "infer does not overwrite a schema", received=str(out), mend="name another --out, or remove it"
        )
    text = infer_schema(open_data(data, HERE), progress or Silent())
    if out is not None:
        write_text(out, text)
    return text


def make_profile(
    data: str, schema: str, valid: str | None, out: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Describe `data` under a schema, and write the page `out`; what it shows.

    Raises:
        ConfigError, DataError: the schema or the data break a rule, or `out` is a file of the data.
    """
    progress = progress or Silent()
    source = open_data(data, HERE)
    _check_out(out, source)
    if not schema and not data.startswith(PREFIX):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "schema.toml"
            write_text(path, infer_schema(source, progress))
            rules = open_schema(path.name, path.parent)
    else:
        rules = open_schema(schema or "builtin:census", HERE)
    found = profile(rules, source, open_data(valid, HERE) if valid else None, progress)
    write_text(out, profile_html(found))
    return found


def train(
    config: Path, overrides: Sequence[str], out: Path, *, resume: bool, progress: Progress | None = None
) -> dict[str, Any]:
    """Train one ranker into the run directory `out`; what its `metrics.json` holds (on test data if given, else valid).

    Raises:
        PolyrankError: see the classes of `polyrank.errors`.
    """
    return train_settings(load_settings(config, overrides), out, resume=resume, progress=progress)


def train_settings(
    settings: Settings, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """`train`, from settings instead of a file."""
    progress = progress or Silent()
    with locked(out):
        sweep(out)
        if not resume:
            check_new(out)  # before hours of encoding, not after them
        elif not (out / "config.toml").exists():
            progress.say(f"nothing to go on with in {out}: starting anew")
        prepared = prepare(settings, out, progress, test=False)
        begin(out, settings, prepared.schema, progress)
        ranker, result = train_run(prepared, settings, out, progress, resume=resume)
        part = "test" if "test" in prepared.parts else "valid"
        _, document = evaluate_part(ranker, prepared, settings, part, progress)
        document["bests"] = result.bests
        if settings.train.best_per_task:
            for task, found in per_task_bests(ranker, prepared, settings, out, part).items():
                document["bests"]["per_task"][task]["metrics"] = found
        write_json(out / "metrics.json", document)
        write_text(out / "report.html", run_html(_run(settings, prepared, out, document)))
        return document


def _run(settings: Settings, prepared: Prepared, out: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """A finished run as its page shows it."""
    names = settings.data.tasks or prepared.schema.task_names
    environment = read_json(out / "environment.json")
    kinds = {task.name: task.kind for task in prepared.schema.tasks}
    return {
        "format": 1,
        "title": out.name,
        "created": environment["created"],
        "command": shlex.join(map(str, environment["command"])),
        "architecture": settings.model.architecture,
        "balancer": settings.balance.method,
        "metric": settings.train.metric,
        "tasks": [{"name": name, "metric": PRIMARY[kinds[name]]} for name in names],
        "metrics": metrics,
        "history": read_history(out / "history.jsonl", names),
    }


def evaluate(run: Path, data: str, out: Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Measure a run on labelled data; what `metrics.json` holds, also written to `out` where given.

    Of a calibrated run, its calibrated predictions are measured.

    Raises:
        RunError: the run is damaged.
        DataError: the data does not fit the run's schema; its clock is not needed.
        ConfigError: `out` is a file of the data, or of the run.
        StorageError: the run's directory, where the data is encoded for as long as this takes, cannot be written.
    """
    progress = progress or Silent()
    scorable = load_scorable(run)
    loaded = scorable.run
    source = open_data(data, HERE)
    _check_out(out, source)
    if out is not None and out.exists() and out.resolve().is_relative_to(run.resolve()):
        raise ConfigError("--out must not be a file of the run", received=str(out), mend="name another")
    timeless = replace(loaded.encoders, schema=replace(loaded.schema, time=""))  # the clock only splits data
    with scratch(run) as folder:
        encoded = encode_to(folder / "data", timeless, source, progress)
        prepared = Prepared(loaded.schema, loaded.encoders, {data: encoded})
        table, document = evaluate_part(loaded.ranker, prepared, loaded.settings, data, progress)
    if scorable.calibration.tasks:
        predictions = scorable.calibration.apply(scorable.names, table.predictions)
        document = metrics_document(replace(table, predictions=predictions), data)
    if out is not None:
        write_json(out, document)
    return document


def score(run: Path, data: str, out: Path, progress: Progress | None = None) -> int:
    """Predict every row of `data`, in input order, into `out`; the row count.

    Columns (float32): `p_<task>` for each task, given its parent where it has one; and for each binary task with a
    parent `joint_<task>`: the probability that it and all its ancestors happen.

    Predictions are calibrated where the run is, and beside them stands `score` (float64) where a fusion is attached.
    Streams: the next rows are read and encoded while some are predicted; memory does not grow with the data, unless the
    fusion looks at whole requests. Labels are not needed, and not read.

    Raises:
        RunError: the run is damaged.
        DataError: the data does not have the features of the run's schema.
        ConfigError: `out` is not Parquet, or is a file of the data.
        StorageError: `out` cannot be written.
    """
    if out.suffix != ".parquet":
        raise ConfigError("scores are written as Parquet", received=str(out), mend="name a file that ends in .parquet")
    scorable = load_scorable(run)
    source = open_data(data, HERE)
    _check_out(out, source)
    scorable.run.schema.check(source.schema, source.name, labels=False)
    return score_to(out, scorable, source, progress or Silent())


def calibrate(
    run: Path,
    method: Method = "isotonic",
    negative_rates: Mapping[str, float] | None = None,
    data: str | None = None,
    test: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Calibrate a run's predictions: `RUN/calibration.json` and `calibration.html`; what the file holds.

    Raises:
        PolyrankError: see `calibrating.calibrate_run`.
    """
    fitting, judging = (open_data(place, HERE) if place else None for place in (data, test))
    with locked(run):
        document = calibrate_run(run, method, negative_rates or {}, fitting, judging, progress or Silent())
        write_text(run / "calibration.html", calibration_html(document, run.name))
    return document


def fuse_search(
    config: Path, overrides: Sequence[str], out: Path, *, resume: bool, command: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Search a fusion of a run's predictions; what `search.json` holds.

    Raises:
        PolyrankError: see the classes of `polyrank.errors`; formulas that were tried are kept.
    """
    settings, progress = load_settings(config, overrides), progress or Silent()
    directory = run_directory(settings.fusion, settings.base)
    with locked(out):
        sweep(out)
        if not resume and (out / "trials.jsonl").exists():
            raise RunError(
                "a new search needs a directory of its own",
                received=f"{out} holds a search",
                mend="name another --out, or go on with it by --resume",
            )
        parts = read_parts(load_scorable(directory), settings, progress)
        chosen = run_search(settings.fusion, parts, out, progress)
        save_fusion(chosen.fusion, out)
        write_trials(chosen.found, out / "trials.parquet")
        about = {"title": f"Fusion of {directory.name}", "run": str(directory), "command": command}
        return _told({**chosen.document, **about}, out / "search.json", fusion_html)


def fuse_learn(
    config: Path, overrides: Sequence[str], out: Path, *, resume: bool, command: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Train learned rankers over a run's predictions; what `learned.json` holds.

    Raises:
        PolyrankError: see the classes of `polyrank.errors`; rankers that were trained are kept.
    """
    settings, progress = load_settings(config, overrides), progress or Silent()
    fusing, directory = settings.fusion, run_directory(settings.fusion, settings.base)
    against = load_fusion(settings.base / fusing.learn.against) if fusing.learn.against else None
    with locked(out):
        sweep(out)
        table = json.loads(json.dumps(to_table(fusing)))  # as it is read back
        if (out / "config.json").exists() and (not resume or read_json(out / "config.json") != table):
            raise RunError(
                "learned rankers need a directory of their own, and a resumed call the [fusion] it began with",
                received=f"{out} holds rankers" + (" of another [fusion]" if resume else ""),
                mend="name another --out, or go on with them by --resume",
            )
        parts = read_parts(load_scorable(directory), settings, progress)
        write_json(out / "config.json", table)
        current = formula(fusing.current, parts["valid"].kinds, parts["valid"]) if fusing.current else None
        learned = run_learn(fusing, parts, current, against, out, progress)
        save_fusion(learned.fusion, out)
        about = {"title": f"Learned fusions of {directory.name}", "run": str(directory), "command": command}
        return _told({**learned.document, **about}, out / "learned.json", learned_html)


def fuse_attach(run: Path, fusion: str, request: Sequence[str] = ()) -> Attached:
    """Make `score` of `polyrank score RUN` a fusion: one saved in a directory, or a formula as text.

    A saved one brings the columns that name a request, where none are given.

    Raises:
        RunError: the run or the directory is damaged.
        ConfigError: the formula is wrong, or does not suit the run.
    """
    scorable = load_scorable(run)
    directory = Path(fusion)
    made: Fusion
    if (directory / FUSION_FILE).exists():
        made = load_fusion(directory)
        for name in ("search.json", "learned.json"):
            for told in (directory / name, directory.parent / name):  # of what was chosen, or of one of the rankers
                if not request and told.exists():
                    request = read_json(told)["request"]
    else:
        made = formula_of(scorable, fusion)
    with locked(run):
        return attach(run, made, request)


def compare(
    config: Path, overrides: Sequence[str], out: Path, *, resume: bool, command: str, progress: Progress | None = None
) -> dict[str, Any]:
    """The seesaw study of a config file: `seesaw.json` and `report.html` in `out`; what they hold.

    Raises:
        PolyrankError: see the classes of `polyrank.errors`; finished runs are kept.
    """
    settings = load_settings(config, overrides)
    return _compare(settings, out, progress or Silent(), title=config.stem, command=command, resume=resume)


def tune(
    config: Path,
    overrides: Sequence[str],
    out: Path,
    *,
    trials: int = 0,
    resume: bool,
    command: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The search of a config file: `tune.json` and `report.html` in `out`, and `best.toml` where one trial is best.

    Raises:
        PolyrankError: see the classes of `polyrank.errors`; the trials so far are kept.
    """
    table, progress = override(read_toml(config), overrides), progress or Silent()
    with locked(out):
        sweep(out)
        base = config.resolve().parent
        found = tune_out(table, base, out, progress, title=config.stem, command=command, trials=trials, resume=resume)
        return _told(found, out / "tune.json", tune_html)


def demo(
    out: Path, overrides: Sequence[str], *, resume: bool, command: str, progress: Progress | None = None
) -> dict[str, Any]:
    """The seesaw study on the built-in Census-Income data."""
    settings = parse_settings(override(DEMO, overrides), Path.cwd())
    title = "Census-Income: will the income exceed 50K, and was the person never married?"
    return _compare(settings, out, progress or Silent(), title=title, command=command, resume=resume)


def _compare(
    settings: Settings, out: Path, progress: Progress, *, title: str, command: str, resume: bool
) -> dict[str, Any]:
    with locked(out):
        sweep(out)
        study = run_study(settings, out, progress, title=title, command=command, resume=resume)
        return _told(study, out / "seesaw.json", seesaw_html)


def _told(document: dict[str, Any], path: Path, page: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """The document, dated and written, with its page beside it."""
    document["created"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(path, document)
    write_text(path.parent / "report.html", page(document))
    return document


def _check_out(out: Path | None, source: Source) -> None:
    """Never write over what is read."""
    files = getattr(source.dataset, "files", ())  # a table in memory has none
    if out is not None and out.resolve() in {Path(file).resolve() for file in files}:
        raise ConfigError(
            "--out must not be a file that is read", received=f"{out} is part of {source.name}", mend="name another"
        )
