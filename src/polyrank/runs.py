"""A run: data → encoders → ranker → training → metrics, all in one directory.

RUN/config.toml        the resolved experiment         RUN/schema.toml     RUN/environment.json
RUN/encoders/          fitted on the training data     RUN/encoded/        the encoded matrices
RUN/checkpoints/       best and last                   RUN/history.jsonl   RUN/metrics.json
"""

import datetime
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from polyrank import config
from polyrank.balancing.balancer import build_balancer
from polyrank.data.encoders import Encoders
from polyrank.data.leaks import find_leaks
from polyrank.data.loader import Loader
from polyrank.data.readers import Source
from polyrank.data.schema import Schema, load_schema, save_schema
from polyrank.data.splits import split
from polyrank.data.store import EncodedData, encode_to
from polyrank.datasets import open_data, open_schema
from polyrank.errors import ConfigError, RunError
from polyrank.evaluation.predict import ScoreTable, score_table, task_metrics
from polyrank.files import read_json, sha256_text, write_json
from polyrank.models.ranker import Ranker
from polyrank.progress import Progress
from polyrank.settings import Settings, parse_settings
from polyrank.training.checkpoint import load_checkpoint
from polyrank.training.loop import Trainer, TrainResult

EVALUATION_BATCH = 8_192


@dataclass(frozen=True)
class Prepared:
    """Data ready to train on: the schema, what was learned to encode it, and the encoded parts by name."""

    schema: Schema
    encoders: Encoders
    parts: Mapping[str, EncodedData]


def open_parts(settings: Settings, schema: Schema, *, test: bool) -> dict[str, Source]:
    """Open train and valid, and test where given or asked for; a part that is not given is set aside from train.

    Raises:
        DataError: a file cannot be read, does not fit the schema, or cannot be split.
    """
    data = settings.data
    given = {"train": data.train, "valid": data.valid, "test": data.test}
    parts = {name: open_data(place, settings.base) for name, place in given.items() if place}
    for name, source in parts.items():
        schema.check(source.schema, f"{name} data {source.name}")
    shares = {"valid": data.valid_share, "test": data.test_share if test else 0.0}
    missing = {name: share for name, share in shares.items() if name not in parts and share > 0}
    if missing:
        parts |= split(parts["train"], {"train": 1.0 - sum(missing.values()), **missing}, schema.time)
    return parts


def prepare(settings: Settings, directory: Path, progress: Progress, *, test: bool) -> Prepared:
    """Fit encoders and encode every part into `directory`, or reuse what is there if it was made from the same.

    Raises:
        RunError: the directory holds a run or a study of another config, or of other data.
        ConfigError, DataError: the schema or the data break a rule.
        StorageError: the disk is full.
    """
    schema = open_schema(settings.data.schema, settings.base)
    _check_tasks(schema, settings)
    _check_config(directory / "config.toml", settings)
    sources = open_parts(settings, schema, test=test)
    key = sha256_text(repr((config.to_table(schema), [(name, part.fingerprint) for name, part in sources.items()])))
    stamp = directory / "encoders/fitted_on.json"
    if stamp.exists() and read_json(stamp) == {"key": key}:
        encoders = Encoders.load(directory / "encoders", schema)
    elif (directory / "config.toml").exists() or (directory / "study.json").exists():
        raise RunError(
            "training goes on only with the schema and the data it began with",
            received=f"they are not those that {directory} was made from",
            mend="restore them, or name another --out",
        )
    else:
        if settings.data.leak_guard:
            for leak in find_leaks(schema, sources["train"]):
                progress.say(
                    f"leak guard: {leak.feature!r} alone predicts {leak.task!r} with AUC {leak.auc:.4f}: "
                    "is it known before the label? Otherwise remove it from the schema."
                )
        encoders = Encoders.fit(schema, sources["train"], progress)
        encoders.save(directory / "encoders")
        write_json(stamp, {"key": key})
    parts = {
        name: encode_to(directory / "encoded" / name, encoders, source, progress) for name, source in sources.items()
    }
    return Prepared(schema, encoders, parts)


def begin(directory: Path, settings: Settings, schema: Schema, *, resume: bool) -> None:
    """Make a run directory, or check that an old one is of the same experiment.

    Raises:
        RunError: it holds a run and `resume` was not asked for, or it holds another experiment.
    """
    saved = directory / "config.toml"
    if saved.exists() and not resume:
        raise RunError(
            "a new run needs a directory of its own",
            received=f"{directory} holds a run",
            mend="name another --out, or go on with it by --resume",
        )
    _check_config(saved, settings)
    save_schema(schema, directory / "schema.toml")
    config.write_toml(saved, {"base": str(settings.base), **settings.table(run=True)})
    write_json(directory / "environment.json", _environment())


def train_run(
    prepared: Prepared, settings: Settings, directory: Path, progress: Progress, *, resume: bool
) -> tuple[Ranker, TrainResult]:
    """Train in a run directory that `begin` made; the ranker as it was at its best."""
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    torch.manual_seed(settings.train.seed)
    names = settings.data.tasks or prepared.schema.task_names
    ranker = build_ranker(prepared.schema, prepared.encoders, settings)
    method = settings.balance.method
    try:
        balancer = build_balancer(method, names, settings.balancers[method])
    except ValueError as error:
        raise ConfigError(f"[balance.{method}] must suit the tasks", received=str(error), mend="correct it") from error
    train, valid = (
        Loader(prepared.schema, prepared.parts[part], size, settings.train.seed, settings.data.tasks)
        for part, size in (("train", settings.train.batch_size), ("valid", EVALUATION_BATCH))
    )
    result = Trainer(ranker, balancer, train, valid, settings.train, directory, progress).fit(resume=resume)
    ranker.load_state_dict(load_checkpoint(directory / "checkpoints/best.safetensors")["model"])
    ranker.eval()
    return ranker, result


def build_ranker(schema: Schema, encoders: Encoders, settings: Settings) -> Ranker:
    """A fresh ranker for the experiment's tasks.

    Raises:
        ConfigError: the architecture cannot take these tasks.
    """
    names = settings.data.tasks or schema.task_names
    positions = [schema.task_names.index(name) for name in names]
    tasks = [schema.tasks[p] for p in positions]
    statistics = [encoders.statistics[p] for p in positions]
    architecture = settings.model.architecture
    try:
        return Ranker(tasks, statistics, encoders.layout, settings.model, settings.options[architecture])
    except ValueError as error:
        raise ConfigError(
            f"model.architecture {architecture!r} must suit the tasks", received=str(error), mend="change one of them"
        ) from error


def evaluate_part(
    ranker: Ranker, prepared: Prepared, settings: Settings, part: str, progress: Progress
) -> tuple[ScoreTable, dict[str, Any]]:
    """Predict a part and measure every task on its own rows; the table, and what `metrics.json` holds."""
    data = prepared.parts[part]
    loader = Loader(prepared.schema, data, EVALUATION_BATCH, tasks=settings.data.tasks)
    with progress.bar(f"evaluating on {part}", data.rows) as bar:
        table = score_table(ranker, loader, bar)
    return table, metrics_document(table, part)


def metrics_document(table: ScoreTable, part: str) -> dict[str, Any]:
    """What `metrics.json` holds."""
    return {"format": 1, "data": part, "rows": len(table.predictions), "tasks": task_metrics(table)}


@dataclass(frozen=True)
class Run:
    """A finished run, loaded."""

    settings: Settings
    schema: Schema
    encoders: Encoders
    ranker: Ranker


def load_run(directory: Path) -> Run:
    """Load a run directory with its best checkpoint.

    Raises:
        RunError: it is missing, damaged or unfinished.
    """
    if not (directory / "config.toml").exists():
        raise RunError(
            "a run must be a directory that polyrank train made", received=str(directory), mend="check the path"
        )
    table = config.read_toml(directory / "config.toml")
    settings = parse_settings({k: v for k, v in table.items() if k != "base"}, Path(table.get("base", ".")))
    schema = load_schema(directory / "schema.toml")
    encoders = Encoders.load(directory / "encoders", schema)
    ranker = build_ranker(schema, encoders, settings)
    state = load_checkpoint(directory / "checkpoints/best.safetensors")["model"]
    try:
        ranker.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        raise RunError(
            "a checkpoint must fit the run's config and encoders", received=f"{directory}: {error}", mend="train again"
        ) from error
    ranker.eval()
    return Run(settings, schema, encoders, ranker)


def _check_config(saved: Path, settings: Settings) -> None:
    """A run that has begun keeps its config, wherever the config's file is now."""
    if not saved.exists():
        return
    old, new = _flat(config.read_toml(saved)), _flat(settings.table(run=True))
    old.pop("base", None)
    if changed := [key for key in {**new, **old} if old.get(key) != new.get(key)]:
        raise RunError(
            "a resumed run must have the config it began with",
            received=f"{saved.parent} differs in {', '.join(changed)}",
            mend="undo the change, or name another --out",
        )


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their whole key, `train.seed`."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _check_tasks(schema: Schema, settings: Settings) -> None:
    for name in settings.data.tasks:
        if name not in schema.task_names:
            raise ConfigError(
                "data.tasks must name tasks of the schema", received=name, mend=config.nearest(name, schema.task_names)
            )
    if len(set(settings.data.tasks)) < len(settings.data.tasks):
        raise ConfigError(
            "data.tasks must name each task once", received=", ".join(settings.data.tasks), mend="remove the repetition"
        )
    names = settings.data.tasks or schema.task_names
    if settings.train.metric not in ("mean", *names):
        raise ConfigError(
            "train.metric must be 'mean' or a task that is trained",
            received=settings.train.metric,
            mend=config.nearest(settings.train.metric, ["mean", *names]),
        )


def _environment() -> dict[str, Any]:
    packages = ("polyrank", "torch", "numpy", "pyarrow", "lightgbm")
    return {
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
    }
