"""Labelled candidates for a fusion: a run's calibrated predictions of its validation and test rows, by request."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from polyrank.calibrating import shown as calibration_shown
from polyrank.config import nearest
from polyrank.data.columns import plain
from polyrank.data.groups import NO_GROUP
from polyrank.data.labels import read_keys
from polyrank.data.loader import as_batch
from polyrank.data.readers import Source
from polyrank.data.schema import Schema
from polyrank.errors import ConfigError, DataError
from polyrank.evaluation.cohorts import buckets
from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.predict import ScoreTable, given_places, predict, with_truth
from polyrank.evaluation.requests import Requests, request_ids
from polyrank.fusion.config import FusionConfig
from polyrank.fusion.expression import names
from polyrank.fusion.parse import parse
from polyrank.fusion.presets import PRESETS
from polyrank.fusion.reward import RewardConfig, reward
from polyrank.fusion.scope import HeadKind, head_kind
from polyrank.progress import Progress
from polyrank.runs import EVALUATION_BATCH, open_parts
from polyrank.scoring import Scorable, check_columns, context_column, keys_of
from polyrank.settings import Settings


@dataclass(frozen=True)
class Candidates:
    """Rows of one part, ready to be fused.

    Attributes:
        requests: the rows.
        kinds: the tasks that may be fused, and what their predictions are.
        context: the numeric columns that may take part.
        request: the columns that name a request.
        shown: `[N]` text by column: what a candidate is called.
        calibration: by task, before and after (see `calibrating.shown`); empty where there is none.
        notes: what a reader should know.
    """

    requests: Requests
    kinds: Mapping[str, HeadKind]
    context: tuple[str, ...]
    request: tuple[str, ...]
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def select(self, rows: np.ndarray) -> "Candidates":
        """Those rows alone (a mask)."""
        shown = {name: values[rows] for name, values in self.shown.items()}
        return replace(self, requests=self.requests.select(rows), shown=shown)


def read_parts(scorable: Scorable, settings: Settings, progress: Progress) -> dict[str, Candidates]:
    """`valid`, which chooses, and `test`, which judges.

    They are the config's `data.valid` and `data.test`, or else the run's. Without test data the users of `valid` are
    split in two halves: training rows are no test, because their predictions are better than they will be.

    Raises:
        ConfigError, DataError: a column or a task is missing, or no row has a request.
    """
    config, run = settings.fusion, scorable.run
    data = replace(run.settings.data, **{
        part: place for part in ("valid", "test") if (place := getattr(settings.data, part))
    })  # fmt: skip
    given = replace(run.settings, data=data, base=settings.base)
    sources = open_parts(given, run.schema, test=False)
    valid = read(scorable, sources["valid"], config, progress)
    if "test" in sources:
        return {"valid": valid, "test": read(scorable, sources["test"], config, progress)}
    users = np.unique(valid.requests.users)
    first = np.random.default_rng(config.search.seed).permutation(len(users)) < len(users) // 2
    mine = first[np.searchsorted(users, valid.requests.users)]
    note = f"no test data: one half of the validation users ({len(users):,}) chooses, the other half judges"
    return {
        "valid": replace(valid.select(mine), notes=(*valid.notes, note)),
        "test": replace(valid.select(~mine), notes=()),
    }


def read(scorable: Scorable, source: Source, config: FusionConfig, progress: Progress) -> Candidates:
    """Predict the rows of a source, and set labels, requests and context beside.

    Raises:
        ConfigError, DataError: see `read_parts`.
    """
    run = scorable.run
    heads = _heads(config, scorable.names)
    tasks = scorable.tasks
    if not run.schema.group:
        raise ConfigError(
            "a fusion is judged by user, and the run's schema names none",
            received='group = ""',
            mend="set group in the schema to the user's column, and train again",
        )
    request = config.request or (run.schema.group,)
    context = context_columns(config, run.schema)
    check_columns(source, [*request, *context, *config.show], "; a weight to be searched stands in [fusion.parameters]")
    wanted = list(dict.fromkeys([*run.schema.columns(labels=True), *request, *context, *config.show]))
    parts: list[Any] = []
    with progress.bar(f"predicting {source.name}", source.count_rows()) as bar:
        for chunk in source.batches(wanted, coded=True):
            encoded = run.encoders.encode(chunk)
            batch = as_batch(encoded, run.schema)
            raw = predict(run.ranker, batch.parts(EVALUATION_BATCH), len(tasks))
            table = with_truth(run.schema, tasks, raw, encoded.labels, encoded.groups, encoded.weights)
            parts.append((
                raw,
                np.where(table.where, table.labels, np.nan),
                keys_of(chunk, request),
                read_keys(chunk, run.schema.group),
                np.stack([context_column(chunk, name, source) for name in context], axis=1)
                if context else np.zeros((chunk.num_rows, 0)),
                [np.array(plain(chunk.column(name)).to_pylist(), dtype=object) for name in config.show],
            ))  # fmt: skip
            bar.advance(chunk.num_rows)
    raw, labels, keys, users, columns = (np.concatenate([part[i] for part in parts]) for i in range(5))
    shown = {name: np.concatenate([part[5][i] for part in parts]) for i, name in enumerate(config.show)}
    predictions = scorable.calibration.apply(scorable.names, raw)
    kept = (keys != NO_GROUP).all(axis=1) & (users != NO_GROUP)
    if not kept.any():
        raise DataError(
            f"{source.name} must have rows of a request", received=f"no row has {', '.join(request)}", mend="fill it"
        )
    of_name = {name: index for index, name in enumerate(scorable.names)}
    by_name: dict[str, np.ndarray] = {}
    for head in heads:
        label = labels[kept, of_name[head]].astype(np.float64)
        # Of a negative task the wanted behaviour is that it does not happen: so that more is better throughout.
        by_name.update({spared(head): 1.0 - label} if head in config.negative else {head: label})
    data = Requests(
        columns={head: predictions[kept, of_name[head]] for head in heads}
        | {name: columns[kept, index] for index, name in enumerate(context)},
        heads=heads,
        labels=by_name,
        numeric=frozenset(task.name for task in tasks if task.kind != "binary" and task.name in heads),
        requests=request_ids(*keys[kept].T, users[kept]),
        users=users[kept],
        reward=_reward(config, by_name, frozenset(task.name for task in tasks if task.kind == "binary")),
        joint={
            tasks[place].name: predictions[kept][:, steps].prod(axis=1)
            for place, steps in given_places(tasks).items()
            if tasks[place].name in heads
        },
    )
    _, member, sizes = np.unique(data.requests, return_inverse=True, return_counts=True)
    large = sizes[member] >= config.smallest
    if not large.any():
        raise DataError(
            f"{source.name} must have requests of at least {config.smallest} rows",
            received=f"the largest has {sizes.max()}",
            mend="name coarser requests in [fusion] request, or lower fusion.smallest",
        )
    notes = []
    if not scorable.calibration.tasks:
        notes.append("the run is not calibrated (polyrank calibrate RUN): what is expected of first places is raw")
    if not kept.all():
        notes.append(f"{source.name}: {(~kept).sum():,} rows without a request or user are left out")
    if not large.all():
        notes.append(f"{source.name}: {(~large).sum():,} rows of requests of fewer than {config.smallest} are left out")
    truth = ScoreTable(tasks, raw, labels, ~np.isnan(labels), None)
    calibration = calibration_shown(truth, scorable.calibration)
    kinds = {head: head_kind(run.schema.tasks[run.schema.task_names.index(head)]) for head in heads}
    everything = Candidates(
        data, kinds, context, request, {n: v[kept] for n, v in shown.items()}, calibration, tuple(notes)
    )
    return everything.select(large)


def spared(task: str) -> str:
    """The behaviour that a negative task stands for."""
    return f"no {task}"


def judge_config(config: FusionConfig, data: Requests) -> JudgeConfig:
    """How orders are judged: by default every positive behaviour counts alike, and negative ones do not count.

    Raises:
        ConfigError: a name in it is no behaviour of the data.
    """
    judged = config.judge
    away = set(map(spared, config.negative))
    weights = judged.weights or {name: 1.0 for name in data.labels if name not in away}
    for where, chosen in (("weights", tuple(weights)), ("valid", (judged.valid,)), ("minutes", (judged.minutes,))):
        for name in chosen:
            if name and name not in data.labels:
                raise ConfigError(
                    f"fusion.judge.{where} must name tasks that are fused",
                    received=name,
                    mend=nearest(name, data.labels),
                )
    return replace(judged, weights=weights)


def cohorts(config: FusionConfig, data: Requests) -> dict[str, np.ndarray]:
    """By segment, and by buckets of the context columns: long videos are not allowed to win by length alone."""
    found: dict[str, np.ndarray] = {}
    if config.segment:
        found[config.segment] = data.columns[config.segment].astype(np.int64)
    for name in dict.fromkeys([*([config.context] if config.context else []), *config.learn.context]):
        found.setdefault(name, buckets(data.columns[name]))
    return found


def context_columns(config: FusionConfig, schema: Schema) -> tuple[str, ...]:
    """What formulas and learned rankers read besides tasks and parameters, and the segment's column.

    Raises:
        ConfigError: the formula is a word that is no preset, or no formula.
    """
    text = config.formula
    if text.isidentifier() and text not in (*PRESETS, *schema.task_names):
        raise ConfigError("a preset must be known", received=text, mend=nearest(text, PRESETS))
    found = [config.context] if config.context else []
    for text in (config.formula, config.current):
        if text and text not in PRESETS:
            known = {*schema.task_names, *config.parameters}
            found += [name for name in names(parse(text)) if name not in known]
    return tuple(dict.fromkeys([*found, *config.learn.context, *([config.segment] if config.segment else [])]))


def _heads(config: FusionConfig, tasks: Sequence[str]) -> tuple[str, ...]:
    for where, chosen in (("heads", config.heads), ("negative", config.negative)):
        for name in chosen:
            if name not in tasks:
                raise ConfigError(
                    f"fusion.{where} must name tasks of the run", received=name, mend=nearest(name, tasks)
                )
    return config.heads or tuple(tasks)


def _reward(config: FusionConfig, labels: Mapping[str, np.ndarray], binary: frozenset[str]) -> np.ndarray:
    default = {name: 1.0 for name in labels if name in binary}  # what is negative is no reward
    weights = config.reward.weights or default
    try:
        return reward(labels, RewardConfig(weights, config.reward.caps))
    except ValueError as error:
        raise ConfigError(
            "[fusion.reward] must suit the tasks that are fused", received=str(error), mend="correct it"
        ) from error


def run_directory(config: FusionConfig, base: Path) -> Path:
    """The run that is fused.

    Raises:
        ConfigError: none is named.
    """
    if not config.run:
        raise ConfigError(
            "a fusion needs a run whose predictions it fuses",
            received="[fusion] without run",
            mend="train one (polyrank train CONFIG --out RUN), then set run in [fusion]",
        )
    return Path(os.path.normpath(base / config.run))
