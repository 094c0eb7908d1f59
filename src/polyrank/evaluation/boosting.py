"""A LightGBM per task: the reference that a user would pick instead of a multi-task model."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from polyrank.data.layout import Layout
from polyrank.data.schema import Schema, TaskKind
from polyrank.data.store import EncodedData
from polyrank.data.tabular import tree_columns, tree_matrix
from polyrank.errors import DataError

OBJECTIVES: Mapping[TaskKind, tuple[str, str]] = MappingProxyType(
    {
        "binary": ("binary", "auc"),
        "regression": ("regression", "l2"),
        "count": ("poisson", "poisson"),
        "duration": ("tweedie", "tweedie"),
    }
)


@dataclass(frozen=True)
class Boosted:
    """Predictions `[N]` for every test row, training seconds, bytes of the model text, trees."""

    predictions: np.ndarray
    seconds: float
    model_bytes: int
    trees: int


def boost(
    schema: Schema,
    layout: Layout,
    task: str,
    train: EncodedData,
    valid: EncodedData,
    test: EncodedData,
    *,
    rows: int,
    threads: int,
    seed: int = 0,
) -> Boosted:
    """Train on the task's own rows, stop early on validation, predict the test rows.

    63 leaves, learning rate 0.05, at most 2,000 trees, stopped after 50 without progress on validation: by AUC, by L2
    for regression, by the Poisson likelihood for count, by Tweedie's for duration (many zeros, and a long tail).
    Numbers enter as they are ordered, missing ones as missing; categories of up to 1,000 values as categories; ids as
    their rank by frequency; bags and sequences by their length and their last value.

    Args:
        schema: the schema.
        layout: the encoded matrix.
        task: the task's name.
        train: training data.
        valid: validation data.
        test: what to predict.
        rows: at most so many training rows, chosen at random.
        threads: processor threads.
        seed: of the choice of rows and of LightGBM.

    Raises:
        DataError: training or validation has no row of the task, or one class only of a binary one.
    """
    # Here, because it takes a second to import, which every command and every process of a study would wait.
    import lightgbm

    began = time.perf_counter()
    position = schema.task_names.index(task)
    binary = schema.tasks[position].kind == "binary"
    objective, metric = OBJECTIVES[schema.tasks[position].kind]
    categories = [name for name, kind in tree_columns(layout) if kind == "category"]

    def own(part: str, data: EncodedData, limit: int | None) -> Any:
        chosen = np.flatnonzero(schema.sample_spaces(np.asarray(data.labels), np.asarray(data.weights))[:, position])
        if limit is not None and len(chosen) > limit:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, limit, replace=False))
        labels = data.labels[chosen, position]
        if not len(labels) or (binary and (labels == labels[0]).all()):
            # LightGBM itself would go on: it calls the AUC of one class 1, and stops at the first tree.
            raise DataError(
                f"{part} data must have rows of task {task!r}" + (", of both classes" if binary else ""),
                received=f"{len(labels):,} rows, all with the label {labels[0]:g}" if len(labels) else "none",
                mend="give more of it, or set compare.lightgbm = false",
            )
        weights = data.weights[chosen, position] if data.weights.shape[1] else None
        return lightgbm.Dataset(
            tree_matrix(layout, data.ids[chosen], data.dense[chosen]),
            labels,
            weight=weights,
            feature_name=[name for name, _ in tree_columns(layout)],
            categorical_feature=categories,
            free_raw_data=True,
        )

    parameters = {
        "objective": objective,
        "metric": metric,
        "num_leaves": 63,
        "learning_rate": 0.05,
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    training = own("training", train, rows)
    validation = own("validation", valid, None)
    validation.set_reference(training)
    stop = lightgbm.early_stopping(50, verbose=False)
    booster = lightgbm.train(parameters, training, 2_000, valid_sets=[validation], callbacks=[stop])
    seconds = time.perf_counter() - began
    chunks = np.array_split(np.arange(test.rows), max(1, test.rows // 200_000))
    predictions = np.concatenate(
        [np.asarray(booster.predict(tree_matrix(layout, test.ids[chunk], test.dense[chunk]))) for chunk in chunks]
    )
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return Boosted(predictions.astype(np.float64), seconds, len(text.encode()), booster.best_iteration)
