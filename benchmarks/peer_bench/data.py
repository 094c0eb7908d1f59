"""The data that every side gets: encoded once here, handed over as `.npy` files."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyrank.progress import Terminal
from polyrank.runs import prepare
from polyrank.settings import parse_settings

MULTIPLIER = 7_368_787  # prime to every power of ten: rank → id scatters neighbours in popularity all over the table
EXPONENT = 1.1


def write_census(folder: Path) -> None:
    """Census-Income with the MMoE paper's features, encoded and split as Polyrank does, 2 binary tasks.

    38 id columns, of which 7 are binned numbers that are given as scaled numbers too.
    """
    places = {"schema": "builtin:census/paper"} | {
        part: f"builtin:census/{part}" for part in ("train", "valid", "test")
    }
    settings = parse_settings({"data": places | {"leak_guard": False}}, folder)
    with tempfile.TemporaryDirectory() as run:
        prepared = prepare(settings, Path(run), Terminal(), test=True)
        layout = prepared.encoders.layout
        single = all(field.stop == field.start + 1 for field in layout.fields)
        assert single, "the peers are given single-valued features only"
        sizes = [layout.tables[field.table] for field in layout.fields]
        _write_shape(folder, sizes, [field.dense for field in layout.fields])
        for part, data in prepared.parts.items():
            _write(folder, part, data.ids, data.dense, data.labels)


def write_zipf(folder: Path, parts: dict[str, int], features: int, ids: int, tasks: int, seed: int = 0) -> None:
    """Zipf-like ids (exponent 1.1) in every column, and binary labels planted in four hidden columns.

    A label is drawn with the logit −1 + Σ effects, each effect fixed for an id's rank modulo 1,009.

    Args:
        folder: where to.
        parts: rows of each part.
        features: F.
        ids: V, of every column; a power of ten.
        tasks: T.
        seed: of everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    cumulative = np.cumsum(np.arange(1, ids + 1, dtype=np.float64) ** -EXPONENT)
    effects = generator.normal(0.0, 0.7, (4, 1_009, tasks))
    _write_shape(folder, [ids] * features, [-1] * features)
    for part, rows in parts.items():
        matrix = np.empty((rows, features), np.int32)
        logits = np.full((rows, tasks), -1.0)
        for column in range(features):
            ranks = np.searchsorted(cumulative, generator.random(rows) * cumulative[-1])
            matrix[:, column] = (ranks * MULTIPLIER + 1_013 * column) % ids
            if column < len(effects):
                logits += effects[column, ranks % 1_009]
        labels = (generator.random((rows, tasks)) < 1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
        _write(folder, part, matrix, np.zeros((rows, 0), np.float32), labels)


def _write_shape(folder: Path, sizes: Sequence[int], dense: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape.json").write_text(json.dumps({"sizes": list(sizes), "dense": list(dense)}))


def _write(folder: Path, part: str, ids: np.ndarray, numbers: np.ndarray, labels: np.ndarray) -> None:
    for name, array in (("ids", ids), ("numbers", numbers), ("labels", labels)):
        np.save(folder / f"{part}_{name}.npy", array)
