"""One training of a study, from its name to its result.

OUT/runs/<name>/              one run directory a training, with predictions.npy and result.json when it is done
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyrank.data.encoders import Encoders
from polyrank.data.loader import Loader
from polyrank.data.schema import load_schema
from polyrank.data.store import EncodedData
from polyrank.evaluation.boosting import boost
from polyrank.evaluation.gates import gate_utilisation
from polyrank.files import read_json, write_json, writing
from polyrank.progress import Progress
from polyrank.runs import EVALUATION_BATCH, Prepared, begin, evaluate_part, train_run
from polyrank.settings import Settings
from polyrank.training.pool import peak_memory

_GATE_BATCHES = 25


@dataclass(frozen=True)
class Contender:
    """A multi-task model of a study.

    Attributes:
        name: what it is called: its architecture, and its balancer where that is not simply the config's.
        architecture: a key of ARCHITECTURES.
        balancer: a key of BALANCERS; empty for the config's own, `[balance] method`.
    """

    name: str
    architecture: str
    balancer: str


@dataclass(frozen=True)
class Training:
    """One trained model of a study.

    Attributes:
        model: an architecture's name, "single_task" or "lightgbm".
        seed: of the training.
        task: the only task of a model that is trained for one alone.
        balancer: see `Contender`.
    """

    model: str
    seed: int
    task: str = ""
    balancer: str = ""

    @property
    def name(self) -> str:
        """Its directory."""
        return "-".join(part for part in (self.model, self.balancer, self.task, f"seed{self.seed}") if part)


def contenders(settings: Settings) -> list[Contender]:
    """Every architecture × balancer: `mmoe`, or `mmoe + dwa` where another balancer than the config's is compared."""
    own = settings.balance.method
    balancers = settings.compare.balancers or (own,)
    return [
        Contender(
            architecture if balancers == (own,) else f"{architecture} + {balancer}",
            architecture,
            "" if balancer == own else balancer,
        )
        for architecture in settings.compare.architectures
        for balancer in balancers
    ]


def plan(settings: Settings, tasks: Sequence[str]) -> list[Training]:
    """Every training of the study: references first, then each contender with each seed."""
    seeds = settings.compare.seeds
    return [
        *(Training("lightgbm", seeds[0], task) for task in tasks if settings.compare.lightgbm),
        *(Training("single_task", seed, task) for seed in seeds for task in tasks),
        *(Training(one.architecture, seed, balancer=one.balancer) for one in contenders(settings) for seed in seeds),
    ]


def is_done(training: Training, settings: Settings, out: Path) -> bool:
    """Whether the result is there. LightGBM's depends on a key of [compare], which may change between calls."""
    result = out / "runs" / training.name / "result.json"
    if training.model != "lightgbm" or not result.exists():
        return result.exists()
    return bool(read_json(result).get("rows") == settings.compare.lightgbm_rows)


def train_one(training: Training, settings: Settings, out: Path, threads: int, progress: Progress) -> None:
    """One training from beginning to end; in a process of its own."""
    torch.set_num_threads(threads)
    schema = load_schema(out / "schema.toml")
    encoders = Encoders.load(out / "encoders", schema)
    parts = {part: EncodedData.open(out / "encoded" / part, verify=False) for part in ("train", "valid", "test")}
    prepared = Prepared(schema, encoders, parts)
    directory = out / "runs" / training.name
    work = _boosted if training.model == "lightgbm" else _trained
    predictions, result = work(training, settings, prepared, directory, threads, progress)
    result["cost"]["peak_memory_bytes"] = peak_memory()
    with writing(directory / "predictions.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, predictions)
    write_json(directory / "result.json", result)


def _boosted(
    training: Training, settings: Settings, prepared: Prepared, directory: Path, threads: int, progress: Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    parts = prepared.parts
    with progress.bar("boosting", None):
        boosted = boost(
            prepared.schema,
            prepared.encoders.layout,
            training.task,
            parts["train"],
            parts["valid"],
            parts["test"],
            rows=settings.compare.lightgbm_rows,
            threads=threads,
            seed=training.seed,
        )
    cost = {"train_seconds": boosted.seconds, "model_bytes": boosted.model_bytes, "trees": boosted.trees}
    result = {"format": 1, "rows": settings.compare.lightgbm_rows, "gates": [], "cost": cost}
    return boosted.predictions[:, None], result


def _trained(
    training: Training, settings: Settings, prepared: Prepared, directory: Path, threads: int, progress: Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    tasks = (training.task,) if training.task else ()
    mine = settings.with_model(training.model, training.seed, tasks, training.balancer)
    begin(directory, mine, prepared.schema, progress)
    ranker, result = train_run(prepared, mine, directory, progress, resume=True)
    table, document = evaluate_part(ranker, prepared, mine, "test", progress)
    write_json(directory / "metrics.json", document)
    loader = Loader(prepared.schema, prepared.parts["test"], EVALUATION_BATCH, tasks=mine.data.tasks)
    names = [task.name for task in table.tasks]
    cost = {
        "parameters": ranker.parameter_count(),
        "train_seconds": result.seconds,
        "model_bytes": (directory / "checkpoints/best.safetensors").stat().st_size,
        "rows_per_second": result.rows / max(result.seconds, 1e-9),
    }
    gates = gate_utilisation(ranker, islice(loader.in_order(), _GATE_BATCHES), names)
    return table.predictions, {"format": 1, "gates": gates, "cost": cost}
