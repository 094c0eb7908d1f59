"""A run: data → encoders → ranker → training → metrics, all in one directory.

RUN/config.toml        the resolved experiment         RUN/schema.toml     RUN/environment.json
RUN/encoders/          fitted on the training data     RUN/encoded/        the encoded matrices
RUN/checkpoints/       best and last                   RUN/history.jsonl   RUN/metrics.json
"""

import datetime
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyrank import config
from polyrank.balancing.balancer import Balancer, build_balancer
from polyrank.data.encoders import Encoders
from polyrank.data.layout import Encoded
from polyrank.data.leaks import find_leaks
from polyrank.data.leaves import Leaves
from polyrank.data.loader import Loader
from polyrank.data.readers import Source
from polyrank.data.schema import Schema, load_schema, save_schema
from polyrank.data.splits import split
from polyrank.data.store import EncodedData, encode_to
from polyrank.datasets import open_data, open_schema
from polyrank.errors import ConfigError, RunError
from polyrank.evaluation.predict import ScoreTable, joint_metrics, score_table, task_metrics
from polyrank.files import read_json, scratch, sha256_text, write_json
from polyrank.models.ranker import Ranker
from polyrank.nn.embeddings import kernels
from polyrank.progress import Progress
from polyrank.rankers import build_ranker
from polyrank.settings import Settings, load_settings
from polyrank.training.checkpoint import load_checkpoint
from polyrank.training.loop import Trainer, TrainResult
from polyrank.training.precision import Precision, multiplies_bf16, resolve
from polyrank.warm_start import OldRun

EVALUATION_BATCH = 8_192
# What a resumed run may have otherwise: places (the data itself is compared), and what changes no result but its bits.
_FREE = ("data.schema", "data.train", "data.valid", "data.test", "train.threads")


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
        RunError: the directory holds a run of another config, or a run or a study of other data.
        ConfigError, DataError: the schema or the data break a rule.
        StorageError: the disk is full.
    """
    schema = open_schema(settings.data.schema, settings.base)
    check_tasks(schema, settings)
    _check_config(directory / "config.toml", settings)
    old = _old_run(settings)
    if old is not None:
        old.check(settings, schema)
    sources = open_parts(settings, schema, test=test)
    made_from = {"schema": sha256_text(repr(config.to_table(schema)))}
    if settings.data.leaves.trees:
        made_from["data.leaves"] = sha256_text(repr(settings.data.leaves))
    made_from |= {f"{name} data": source.fingerprint for name, source in sources.items()}
    if old is not None:
        made_from["the old run's encoders"] = old.encoders.digest
    stamp = directory / "encoders/fitted_on.json"
    before = read_json(stamp) if stamp.exists() else {}
    if before == made_from:
        encoders = Encoders.load(directory / "encoders", schema)
    elif (directory / "config.toml").exists() or (directory / "study.json").exists():
        other = [name for name in {**made_from, **before} if before.get(name) != made_from.get(name)]
        raise RunError(
            "training goes on only with the schema and the data it began with",
            received=f"not what {directory} was made from: {', '.join(other)}",
            mend="restore it (a file counts as another when its size or its time of change differs), or name another "
            "--out",
        )
    else:
        if settings.data.leak_guard:
            for leak in find_leaks(schema, sources["train"]):
                progress.say(
                    f"leak guard: {leak.feature!r} alone predicts {leak.task!r} with AUC {leak.auc:.4f}: "
                    "is it known before the label? Otherwise remove it from the schema."
                )
        encoders = (old.fit if old is not None else Encoders.fit)(schema, sources["train"], progress)
        if settings.data.leaves.trees:
            encoders = with_leaves(encoders, sources["train"], settings, directory, progress)
        encoders.save(directory / "encoders")
        write_json(stamp, made_from)
    parts = {
        name: encode_to(directory / "encoded" / name, encoders, source, progress) for name, source in sources.items()
    }
    return Prepared(schema, encoders, parts)


def with_leaves(
    encoders: Encoders, source: Source, settings: Settings, directory: Path, progress: Progress
) -> Encoders:
    """The encoders with trees grown on the training data, which is encoded into `directory` for as long as that takes.

    Raises:
        DataError: a task has too few labels.
        StorageError: the disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with scratch(directory) as folder:
        data = encode_to(folder / "data", encoders, source, progress)
        rows = Encoded(*(np.asarray(getattr(data, part.name)) for part in fields(Encoded)))
        threads = settings.train.threads or torch.get_num_threads()
        leaves = Leaves.grow(settings.data.leaves, encoders.schema, encoders.layout, rows, threads, progress)
    return replace(encoders, leaves=leaves)


def begin(directory: Path, settings: Settings, schema: Schema, progress: Progress) -> None:
    """Make a run directory, or go on with one of the same experiment.

    Raises:
        RunError: it holds another experiment.
    """
    saved = directory / "config.toml"
    _check_config(saved, settings)
    threads = settings.train.threads or torch.get_num_threads()
    precision = resolve(_decided(directory, settings.train.precision))
    environment = _environment(directory, threads, precision, progress)
    save_schema(schema, directory / "schema.toml")
    old = _old_run(settings)
    if old is not None:
        old.note(directory)
    config.write_toml(saved, settings.table(run=True))
    write_json(directory / "environment.json", environment)


def check_new(directory: Path) -> None:
    """Refuse a directory that holds a run.

    Raises:
        RunError: it does.
    """
    if (directory / "config.toml").exists():
        raise RunError(
            "a new run needs a directory of its own",
            received=f"{directory} holds a run",
            mend="name another --out, or go on with it by --resume",
        )


def train_run(
    prepared: Prepared,
    settings: Settings,
    directory: Path,
    progress: Progress,
    *,
    resume: bool,
    observer: Callable[[dict[str, Any]], None] = lambda record: None,
) -> tuple[Ranker, TrainResult]:
    """Train in a run directory that `begin` made; the ranker as it was at its best. For `observer` see `Trainer`."""
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    torch.manual_seed(settings.train.seed)
    names = settings.data.tasks or prepared.schema.task_names
    ranker = build_ranker(prepared.schema, prepared.encoders, settings, directory)
    old = _old_run(settings)
    if old is not None:
        ranker.base.load_state_dict(old.weights())
    balancer = _build_balancer(names, settings)
    train, valid = (
        Loader(prepared.schema, prepared.parts[part], size, settings.train.seed, settings.data.tasks)
        for part, size in (("train", settings.train.batch_size), ("valid", EVALUATION_BATCH))
    )
    asked = replace(settings.train, precision=_decided(directory, settings.train.precision))
    trainer = Trainer(ranker, balancer, train, valid, asked, directory, progress, observer)
    result = trainer.fit(resume=resume)
    ranker.load_state_dict(load_checkpoint(directory / "checkpoints/best.safetensors")["model"])
    ranker.eval()
    return ranker, result


def _decided(directory: Path, asked: Precision) -> Precision:
    """What a run was begun in, for `auto`, which is decided once: measured again, it might come out otherwise."""
    saved = directory / "environment.json"
    decided: Precision = read_json(saved).get("precision", asked) if asked == "auto" and saved.exists() else asked
    return decided


def _old_run(settings: Settings) -> OldRun | None:
    place = settings.train.warm_start
    return OldRun.open(settings.base / place) if place else None


def _build_balancer(tasks: Sequence[str], settings: Settings) -> Balancer:
    method = settings.balance.method
    for name in getattr(settings.balancers[method], "weights", ()):
        if name not in tasks:
            raise ConfigError(
                f"[balance.{method}.weights] must name tasks that are trained",
                received=name,
                mend=config.nearest(name, tasks),
            )
    try:
        return build_balancer(method, tasks, settings.balancers[method])
    except ValueError as error:
        raise ConfigError(f"[balance.{method}] must suit the tasks", received=str(error), mend="correct it") from error


def evaluate_part(
    ranker: Ranker, prepared: Prepared, settings: Settings, part: str, progress: Progress
) -> tuple[ScoreTable, dict[str, Any]]:
    """Predict a part and measure every task on its own rows; the table, and what `metrics.json` holds."""
    data = prepared.parts[part]
    loader = Loader(prepared.schema, data, EVALUATION_BATCH, tasks=settings.data.tasks)
    with progress.bar(f"evaluating on {part}", data.rows) as bar:
        table = score_table(ranker, loader, bar)
    return table, metrics_document(table, part)


def per_task_bests(
    ranker: Ranker, prepared: Prepared, settings: Settings, directory: Path, part: str
) -> dict[str, dict[str, Any]]:
    """Each task's metrics on a part with the weights that were best for it alone; the ranker then has its own again."""
    own = {name: value.clone() for name, value in ranker.state_dict().items()}
    loader = Loader(prepared.schema, prepared.parts[part], EVALUATION_BATCH, tasks=settings.data.tasks)
    found = {}
    for task in settings.data.tasks or prepared.schema.task_names:
        path = directory / f"checkpoints/best-{task}.safetensors"
        if path.exists():  # a task that validation cannot rank was never best
            ranker.load_state_dict(load_checkpoint(path)["model"])
            found[task] = task_metrics(score_table(ranker, loader))[task]
    ranker.load_state_dict(own)
    return found


def metrics_document(table: ScoreTable, part: str) -> dict[str, Any]:
    """What `metrics.json` holds."""
    document = {"format": 1, "data": part, "rows": len(table.predictions), "tasks": task_metrics(table)}
    joint = joint_metrics(table)
    return document | ({"joint": joint} if joint else {})


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
    settings = load_settings(directory / "config.toml")
    schema = load_schema(directory / "schema.toml")
    encoders = Encoders.load(directory / "encoders", schema)
    ranker = build_ranker(schema, encoders, settings, directory)
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
    if saved.exists() and (changed := changed_keys(config.read_toml(saved), settings.table(run=True))):
        raise RunError(
            "a resumed run must have the config it began with",
            received=f"{saved.parent} differs in {', '.join(changed)}",
            mend="undo the change, or name another --out",
        )


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of an experiment's table that must not change on resume, but differ; [compare] may be extended."""
    before, now = _flat(old), _flat(new)
    fixed = (key for key in {**now, **before} if key not in _FREE and not key.startswith("compare."))
    return [key for key in fixed if before.get(key) != now.get(key)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their whole key, `train.seed`."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def check_tasks(schema: Schema, settings: Settings) -> None:
    """Refuse an experiment that names tasks which the schema does not have, or a balancer that does not suit them.

    Raises:
        ConfigError: it does.
    """
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
    for method in {
        settings.balance.method,
        *settings.compare.balancers,
    }:  # what they refuse, before anything is encoded
        _build_balancer(names, replace(settings, balance=replace(settings.balance, method=method)))


def _environment(directory: Path, threads: int, precision: str, progress: Progress) -> dict[str, Any]:
    """What the run began in; of a run that goes on, with this call in the list `resumed`."""
    call = {
        "command": sys.argv,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": threads,
    }
    saved = directory / "environment.json"
    if (directory / "config.toml").exists() and saved.exists():
        first: dict[str, Any] = read_json(saved)
        calls = [first, *first.get("resumed", [])]
        if any(before.get("threads") != threads for before in calls):
            progress.say(
                f"{threads} threads, where {directory} has had {calls[-1].get('threads')}: what is trained from here "
                "on is as good, but not bit for bit what an uninterrupted run would give"
            )
        if first.get("precision") == "bf16" and not multiplies_bf16():
            progress.say(
                f"{directory} was begun in bf16 and goes on in it, several times slower, since this processor has no "
                "instructions for it: go on where it was begun, or train anew elsewhere"
            )
        return first | {"resumed": [*calls[1:], call]}
    packages = ["polyrank", "torch", "numpy", "pyarrow", "lightgbm"]
    if kernels is not None:
        packages.append("numba")
    else:
        progress.say("numba cannot be imported: training goes on without compiled kernels, several times slower")
    return {
        "format": 1,
        **call,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "kernels": "plain torch: numba cannot be imported" if kernels is None else "compiled",
        "precision": precision,
        "packages": {name: version(name) for name in packages},
    }
