"""Calibrating a run: fitted on its validation rows, shown on its test rows, saved as RUN/calibration.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polyrank.config import nearest
from polyrank.data.loader import as_batch
from polyrank.data.readers import Source
from polyrank.errors import ConfigError
from polyrank.evaluation.predict import ScoreTable, predict, with_truth
from polyrank.files import write_json
from polyrank.fusion.calibration import Calibration, Method, fit
from polyrank.metrics.calibration import calibration_curve, expected_calibration_error
from polyrank.metrics.ranking import auc
from polyrank.progress import Progress
from polyrank.runs import EVALUATION_BATCH, Run, load_run, open_parts


def calibrate_run(
    directory: Path,
    method: Method,
    negative_rates: Mapping[str, float],
    fitting: Source | None,
    judging: Source | None,
    progress: Progress,
) -> dict[str, Any]:
    """Fit a run's calibration and write it into the run; what the file holds.

    Args:
        directory: the run.
        method: see `fusion.calibration`.
        negative_rates: the share of its negatives that training kept, by task; 1 where nothing is said.
        fitting: the rows to fit on; None for the run's validation rows.
        judging: the rows that show what it did; None for the run's test rows, or no other rows where it has none.
        progress: what is being done.

    Raises:
        RunError: the run is damaged.
        ConfigError: a rate is of an unknown task or not within (0, 1].
        DataError: the data does not fit the run, or a task has rows of one class only.
    """
    run = load_run(directory)
    names = run.settings.data.tasks or run.schema.task_names
    for name, rate in negative_rates.items():
        if name not in names:
            raise ConfigError("a rate must be of a task of the run", received=name, mend=nearest(name, names))
        if not 0 < rate <= 1:
            raise ConfigError(
                "the share of negatives that training kept must be within (0, 1]",
                received=f"{name}={rate}",
                mend="0.1 where one in ten was kept",
            )
    own = open_parts(run.settings, run.schema, test=False) if fitting is None or judging is None else {}
    parts = {"fitted": fitting or own["valid"], "judged": judging or own.get("test")}
    table = score_table_of(run, parts["fitted"], progress)  # type: ignore[arg-type]
    calibration = fit(table, method, negative_rates)
    document: dict[str, Any] = {"format": 1, "method": method, "tasks": calibration.document(), "shown": {}}
    for part, source in parts.items():
        if source is not None:
            rows = table if part == "fitted" else score_table_of(run, source, progress)
            document["shown"][part] = {"data": source.name, "tasks": shown(rows, calibration)}
    write_json(directory / "calibration.json", document)
    return document


def score_table_of(run: Run, source: Source, progress: Progress) -> ScoreTable:
    """The run's raw predictions of labelled rows, beside the truth."""
    tasks = tuple(t for t in run.schema.tasks if t.name in (run.settings.data.tasks or run.schema.task_names))
    run.schema.check(source.schema, source.name)
    parts = []
    with progress.bar(f"predicting {source.name}", source.count_rows()) as bar:
        for chunk in source.batches(run.schema.columns(labels=True), coded=True):
            encoded = run.encoders.encode(chunk)
            batch = as_batch(encoded, run.schema)
            raw = predict(run.ranker, batch.parts(EVALUATION_BATCH), len(tasks))
            parts.append((raw, encoded.labels, encoded.groups, encoded.weights))
            bar.advance(chunk.num_rows)
    raw, labels, groups, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return with_truth(run.schema, tasks, raw, labels, groups, weights)


def shown(table: ScoreTable, calibration: Calibration) -> dict[str, Any]:
    """Of every calibrated task: rows, and AUC, ECE and the reliability curve before and after."""
    names = tuple(task.name for task in table.tasks)
    after = calibration.apply(names, table.predictions)
    found: dict[str, Any] = {}
    for index, name in enumerate(names):
        if name in calibration.tasks:
            p, y, _ = table.rows(index)
            found[name] = {
                "rows": len(p),
                "before": reliability(p, y),
                "after": reliability(after[table.where[:, index], index], y),
            }
    return found


def reliability(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """AUC, ECE, and predicted against observed rates in 20 equal-mass bins."""
    curve, area, error = calibration_curve(p, y), auc(p, y), expected_calibration_error(p, y)
    return {
        "auc": float(area) if np.isfinite(area) else None,
        "ece": float(error) if np.isfinite(error) else None,
        "predicted": curve.predicted.tolist(),
        "observed": curve.observed.tolist(),
        "count": curve.count.tolist(),
    }
