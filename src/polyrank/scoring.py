"""What a run says of rows: calibrated predictions, and the score of the fusion that is attached to it.

RUN/calibration.json   of `polyrank calibrate`       RUN/fusion/   of `polyrank fuse attach`
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyrank.config import nearest
from polyrank.data.columns import numbers
from polyrank.data.labels import read_keys
from polyrank.data.loader import as_batch
from polyrank.data.prefetch import prefetched
from polyrank.data.readers import Source
from polyrank.data.schema import Task
from polyrank.datasets import open_data
from polyrank.errors import ConfigError, DataError, RunError
from polyrank.evaluation.predict import joint_places, joint_probabilities, predict
from polyrank.evaluation.requests import request_ids
from polyrank.files import read_json, write_json, writing
from polyrank.fusion.calibration import Calibration
from polyrank.fusion.formula import Formula, scope_of
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.scope import head_kind
from polyrank.fusion.store import load_fusion, save_fusion
from polyrank.progress import Progress
from polyrank.runs import EVALUATION_BATCH, Run, load_run

FORMAT = 1
_PATH = re.compile(r"[\w.~-]*(/[\w.~-]*)+")  # a division with spaces, or of a task, is none


@dataclass(frozen=True)
class Attached:
    """The fusion of a run, and the columns that together name a request."""

    fusion: Fusion
    request: tuple[str, ...]


@dataclass(frozen=True)
class Scorable:
    """A run with all that was added to it after training.

    Attributes:
        run: the run.
        calibration: empty where it is not calibrated.
        attached: None where no fusion is attached.
    """

    run: Run
    calibration: Calibration
    attached: Attached | None

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks it predicts."""
        return self.run.settings.data.tasks or self.run.schema.task_names

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The same, as the schema has them."""
        return tuple(self.run.schema.tasks[self.run.schema.task_names.index(name)] for name in self.names)


def load_scorable(directory: Path) -> Scorable:
    """Load a run with its calibration and fusion.

    Raises:
        RunError: a part is damaged.
    """
    run, calibration, attached = load_run(directory), Calibration(), None
    path = directory / "calibration.json"
    if path.exists():
        document = read_json(path)
        try:
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']}, not {FORMAT}")
            calibration = Calibration.restore(document["tasks"])
        except (KeyError, TypeError, ValueError) as error:
            mend = "run polyrank calibrate again, or remove the file"
            raise RunError("a calibration must be whole", received=f"{path}: {error}", mend=mend) from error
    if (directory / "fusion/attached.json").exists():
        about = read_json(directory / "fusion/attached.json")
        attached = Attached(load_fusion(directory / "fusion"), tuple(about["request"]))
    return Scorable(run, calibration, attached)


def attach(directory: Path, fusion: Fusion, request: Sequence[str]) -> Attached:
    """Make `score` of a run's rows this fusion, in the place of an earlier one.

    Raises:
        RunError: the run is damaged.
        ConfigError: the fusion reads what the run does not predict, or ranks in requests that are not named.
    """
    names = load_scorable(directory).names
    for head in fusion.heads:
        if head not in names:
            raise ConfigError("a fusion may read tasks that the run predicts", received=head, mend=nearest(head, names))
    if fusion.within_request and not request:
        raise ConfigError(
            "this fusion ranks within the request, so it must be known which rows are one",
            received="no columns that name a request",
            mend="name them: --request user_id --request day",
        )
    save_fusion(fusion, directory / "fusion")
    write_json(directory / "fusion/attached.json", {"format": FORMAT, "request": list(request)})
    return Attached(fusion, tuple(request))


def formula_of(scorable: Scorable, text: str) -> Formula:
    """A formula of a run's tasks and the columns of its data.

    Raises:
        RunError: the text is a path, of nothing that can be attached.
        ConfigError: the formula is wrong, or reads what there is not.
    """
    run, place = scorable.run, Path(text)
    if place.is_dir() or (_PATH.fullmatch(text) and not set(place.parts) & set(scorable.names)):
        what = "holds no fusion" if place.is_dir() else "no such directory"
        raise RunError(
            "what is attached must be a directory of polyrank fuse, or a formula of the run's tasks",
            received=f"{text}: {what}",
            mend="check the path",
        )
    tasks = {task.name: head_kind(task) for task in run.schema.tasks if task.name in scorable.names}
    made = Formula.parse(text, scope_of(tasks, text))
    try:
        known = [*scorable.names, *open_data(run.settings.data.train, run.settings.base).schema.names]
    except DataError:
        return made  # the training data is gone; scoring will say what is missing
    for name in made.context:
        if name not in known:  # most often a task's name that is misspelt
            raise ConfigError(
                "a formula may name tasks of the run and columns of its data", received=name, mend=nearest(name, known)
            )
    return made


def score_to(out: Path, scorable: Scorable, source: Source, progress: Progress) -> int:
    """Write `p_<task>`, `joint_<task>` (float32) and, of an attached fusion, `score` (float64), in input order.

    Streams. Only a fusion that looks at whole requests holds what it reads of all rows in memory, 8 bytes a value.

    Raises:
        DataError: a column is missing, or a value of a context column is.
        StorageError: `out` cannot be written.
    """
    attached, names = scorable.attached, scorable.names
    tasks = scorable.tasks
    joint = [f"joint_{tasks[place].name}" for place in joint_places(tasks)]
    fields = [(name, pa.float32()) for name in [*(f"p_{name}" for name in names), *joint]]
    fields += [("score", pa.float64())] * (attached is not None)
    schema, rows = pa.schema(fields), 0
    context = () if attached is None else attached.fusion.context
    request = attached.request if attached is not None and attached.fusion.within_request else ()
    held: list[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]] = []
    with (
        progress.bar(f"scoring {source.name}", source.count_rows()) as bar,
        writing(out) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
        prefetched(predictions(scorable, source, context, request)) as parts,
    ):
        for part in parts:
            if request:
                held.append(part)
            else:
                writer.write_table(_table(scorable, schema, *part))
            rows += len(part[0])
            bar.advance(len(part[0]))
        if held:
            every = {name: np.concatenate([columns[name] for _, columns, _ in held]) for name in context}
            of = np.concatenate([keys for _, _, keys in held])
            predicted = np.concatenate([p for p, _, _ in held])
            writer.write_table(_table(scorable, schema, predicted, every, request_ids(*of.T)))
    return rows


def predictions(
    scorable: Scorable, source: Source, context: Sequence[str], request: Sequence[str]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
    """Chunk by chunk: calibrated predictions `[n, T]`, context columns `[n]`, and the request's keys `[n, R]` int64."""
    run = scorable.run
    wanted = list(dict.fromkeys([*run.schema.columns(labels=False), *context, *request]))
    check_columns(source, [*context, *request])
    for chunk in source.batches(wanted, coded=True):
        batch = as_batch(run.encoders.encode(chunk, labels=False), run.schema)
        predicted = predict(run.ranker, batch.parts(EVALUATION_BATCH), len(scorable.names))
        columns = {name: context_column(chunk, name, source) for name in context}
        yield scorable.calibration.apply(scorable.names, predicted), columns, keys_of(chunk, request)


def check_columns(source: Source, columns: Sequence[str], otherwise: str = "") -> None:
    """Refuse data without a column; `otherwise` is what else may mend it.

    Raises:
        DataError: it lacks one.
    """
    for column in columns:
        if column not in source.schema.names:
            raise DataError(
                f"{source.name} must have the column {column!r}, which the fusion reads",
                received=f"{len(source.schema.names)} columns without it",
                mend=nearest(column, source.schema.names) + otherwise,
            )


def context_column(chunk: pa.RecordBatch, name: str, source: Source) -> np.ndarray:
    """A numeric column `[n]` without gaps.

    Raises:
        DataError: a value is missing or not finite.
    """
    values = numbers(chunk.column(name), name)
    if not np.isfinite(values).all():
        raise DataError(
            f"{source.name}: the column {name!r} that the fusion reads must have a number in every row",
            received=f"{(~np.isfinite(values)).sum():,} of {len(values):,} rows without",
            mend="fill the column, or fuse without it",
        )
    return np.asarray(values, np.float64)


def keys_of(chunk: pa.RecordBatch, columns: Sequence[str]) -> np.ndarray:
    """What the columns hold, as `[n, R]` int64; NO_GROUP where null."""
    found = [read_keys(chunk, column) for column in columns]
    return np.stack(found, axis=1) if found else np.zeros((chunk.num_rows, 0), np.int64)


def _table(
    scorable: Scorable, schema: pa.Schema, predicted: np.ndarray, context: dict[str, np.ndarray], requests: np.ndarray
) -> pa.Table:
    joint = joint_probabilities(scorable.tasks, predicted).values()
    columns = [np.ascontiguousarray(column) for column in [*predicted.T, *joint]]
    if scorable.attached is not None:
        heads = dict(zip(scorable.names, columns, strict=False))
        of = requests if requests.ndim == 1 else None
        columns.append(scorable.attached.fusion.score({**heads, **context}, of))
    return pa.table(columns, schema=schema)
