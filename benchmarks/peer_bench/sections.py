"""What is measured, section by section; each gives raw values and their summary, ready for JSON."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from peer_bench.data import write_zipf
from peer_bench.sides import Bench, Side, alternate
from polyrank.metrics.ranking import auc

Note = Callable[[str], None]
Rounds = list[dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Amounts:
    """How much work: rounds, and rows a unit (None: the whole training part)."""

    rounds: int = 5
    census_rows: int | None = None
    large_rows: int = 4 * 4_096  # the peers'; they take seconds a step
    large_rows_ours: int = 128 * 4_096
    predict_rows: int = 131_072
    calls: int = 200
    seeds: int = 5
    epochs: int = 3
    products: int = 40
    growth_rows: int = 64 * 4_096
    growth_ids: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    growth_tasks: tuple[int, ...] = (1, 2, 4, 8)
    memory_runs: int = 3


QUICK = Amounts(
    rounds=2,
    census_rows=20 * 1_024,
    large_rows=4_096,
    large_rows_ours=8 * 4_096,
    predict_rows=16_384,
    calls=30,
    seeds=1,
    epochs=1,
    products=5,
    growth_rows=8 * 4_096,
    growth_ids=(10_000, 100_000, 1_000_000),
    growth_tasks=(1, 2),
    memory_runs=1,
)


@dataclass(frozen=True)
class Case:
    """A data set and a model on it."""

    folder: str
    model: str
    batch: int
    embedding_optimizer: str

    def build(self, side: Side, seed: int = 0, **more: Any) -> dict[str, Any]:
        """Make the model on one side."""
        return side.ask(
            "build",
            folder=self.folder,
            model=self.model,
            batch=self.batch,
            embedding_optimizer=self.embedding_optimizer,
            seed=seed,
            **more,
        )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def compare(rounds: Rounds, value: Callable[[dict[str, Any]], float], *, higher: bool = True) -> dict[str, Any]:
    """Each side's values, and the ratio of ours to the better peer of the same round (above 1: ours is better)."""
    sides = list(rounds[0])
    values = {name: [value(found[name]) for found in rounds] for name in sides}
    peers = [name for name in sides if not name.startswith("ours")]
    summary: dict[str, Any] = {"values": values, "sides": {name: spread(v) for name, v in values.items()}}
    for name in (name for name in sides if name not in peers):
        best = [(max if higher else min)(values[peer][i] for peer in peers) for i in range(len(rounds))]
        ratios = [v / b if higher else b / v for v, b in zip(values[name], best, strict=True)]
        summary[f"ratio_{name}"] = {"values": ratios, **spread(ratios)}
    return summary


def rate(found: Mapping[str, Any]) -> float:
    """Rows a second."""
    return float(found["rows"] / found["seconds"])


def speed(bench: Bench, case: Case, amounts: Amounts, note: Note, *, large: bool) -> dict[str, Any]:
    """Training, prediction and latency of one model on one data set, all sides alternating."""
    with bench.sides() as sides:
        built = {}
        for side in sides.values():
            built[side.name] = case.build(side)
            note(f"{side.name} built")

        def rows(side: Side) -> int | None:
            if not large:
                return amounts.census_rows
            return amounts.large_rows_ours if side.name.startswith("ours") else amounts.large_rows

        part, predict_rows = ("test", amounts.predict_rows) if large else ("train", amounts.census_rows)
        units: dict[str, Callable[[Side], dict[str, Any]]] = {
            "train": lambda side: side.ask("train", rows=rows(side)),
            "predict": lambda side: side.ask("predict", part=part, rows=predict_rows, batch=8_192),
            "latency": lambda side: side.ask("latency", rows=500, calls=amounts.calls),
        }
        measured: dict[str, Rounds] = {}
        for name, unit in units.items():
            alternate(sides, 1, unit, f"{name}, warm-up", note)
            measured[name] = alternate(sides, amounts.rounds, unit, name, note)
    return {
        "batch": case.batch,
        "embedding_optimizer": case.embedding_optimizer,
        "built": built,
        "precision": {name: found["precision"] for name, found in measured["train"][0].items() if "precision" in found},
        "units": {
            name: {side: reply["rows"] for side, reply in measured[name][0].items()} for name in ("train", "predict")
        },
        "train": compare(measured["train"], rate),
        "predict": compare(measured["predict"], rate),
        "latency": compare(measured["latency"], lambda found: found["milliseconds"], higher=False),
    }


def memory(bench: Bench, case: Case, amounts: Amounts, note: Note) -> dict[str, Any]:
    """Peak resident memory of a fresh process that builds the large model and trains on the same few rows."""
    runs: Rounds = []
    for number in range(amounts.memory_runs):
        found: dict[str, dict[str, Any]] = {}
        for name in bench.names:
            with bench.sides([name]) as sides:
                side = sides[name]
                case.build(side)
                trained = side.ask("train", rows=max(2 * case.batch, amounts.large_rows // 2))
                found[name] = side.ask("peak") | {"in_steps": trained.get("peak_in_steps")}
                note(f"run {number + 1} of {amounts.memory_runs}: {name} {found[name]['peak'] / 2**20:,.0f} MiB")
        runs.append(found)
    result = compare(runs, lambda found: found["peak"], higher=False)
    result["in_steps"] = {name: [run[name]["in_steps"] for run in runs] for name in runs[0] if "ours" in name}
    # Here ours over the leaner peer: the part of its memory that we need.
    for key in [key for key in result if key.startswith("ratio_")]:
        shares = [1 / value for value in result.pop(key)["values"]]
        result[key.replace("ratio", "share")] = {"values": shares, **spread(shares)}
    return result


def accuracy(bench: Bench, cases: Mapping[str, Case], amounts: Amounts, note: Note) -> dict[str, Any]:
    """Test AUC of every task after equal epochs.

    DeepCTR-Torch also with a larger initial scale than its default, Polyrank also with row-wise Adagrad for embeddings.
    """
    result: dict[str, Any] = {"epochs": amounts.epochs, "seeds": amounts.seeds}
    names = [*bench.names, "ours:adagrad", "deepctr:init_std"]
    for label, case in cases.items():
        labels = np.load(Path(case.folder) / "test_labels.npy")
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        with bench.sides(names) as sides, tempfile.TemporaryDirectory() as folder:
            for seed in range(amounts.seeds):
                for name, side in sides.items():
                    options = {"init_std": 0.05} if name.endswith("init_std") else {}
                    updates = replace(case, embedding_optimizer="adagrad") if name.endswith("adagrad") else case
                    updates.build(side, seed, options=options)
                    side.ask("train", rows=amounts.census_rows, epochs=amounts.epochs)
                    target = Path(folder) / "found.npy"
                    side.ask("predict", part="test", batch=8_192, save=str(target))
                    scores = np.load(target)
                    found[name].append([auc(scores[:, t], labels[:, t]) for t in range(labels.shape[1])])
                    values = " ".join(f"{value:.4f}" for value in found[name][-1])
                    note(f"{label}, seed {seed}: {name} {values}")
        result[label] = {"values": found, "tasks": [_judge(found, task) for task in range(labels.shape[1])]}
    return result


def _judge(found: Mapping[str, list[list[float]]], task: int) -> dict[str, Any]:
    """Mean and standard deviation a side, and each of ours less the best peer's mean."""
    values = {name: np.array(of)[:, task] for name, of in found.items()}
    sides = {
        name: {"mean": float(v.mean()), "std": float(v.std(ddof=1)) if len(v) > 1 else None}
        for name, v in values.items()
    }
    best = max((name for name in values if not name.startswith("ours")), key=lambda name: sides[name]["mean"] or 0.0)
    peer = values[best]
    for name in (name for name in values if name.startswith("ours")):
        ours = values[name]
        error = np.sqrt(ours.var(ddof=1) / len(ours) + peer.var(ddof=1) / len(peer)) if len(ours) > 1 else None
        sides[name]["difference"] = float(ours.mean() - peer.mean())
        sides[name]["standard_error"] = None if error is None else float(error)
    return {"sides": sides, "best_peer": best}


def roofline(
    bench: Bench, cases: Mapping[str, Case], amounts: Amounts, precisions: Sequence[str], note: Note
) -> dict[str, Any]:
    """The bare matrix products of a step beside the step, in one process, alternating."""
    result: dict[str, Any] = {}
    for label, case in cases.items():
        for precision in precisions:
            with bench.sides(["ours"]) as sides:
                ours = sides["ours"]
                more = {"precision": precision} if len(precisions) > 1 else {}
                case.build(ours, **more)
                unit = max(8, (amounts.census_rows or 48 * 4_096) // case.batch)
                kind = "bfloat16" if precision == "bf16" else "float32"
                train = {"rows": unit * case.batch}
                used = ours.ask("train", **train)["precision"]
                ours.ask("products", repeats=3, dtype=kind)
                pairs, waits = [], []
                for _ in range(amounts.rounds):
                    step = ours.ask("train", **train)
                    waits.append(step["waited"] / step["seconds"])
                    product = ours.ask("products", repeats=amounts.products, dtype=kind)["seconds"]
                    pairs.append((step["seconds"] / step["steps"], product))
                note(f"{label}, {precision}: {median(s / p for s, p in pairs):.2f} × its products")
            result[f"{label}_{precision}"] = {
                "batch": case.batch,
                "precision": used,
                "steps_a_unit": unit,
                "step_seconds": {"values": (steps := [step for step, _ in pairs]), **spread(steps)},
                "product_seconds": {"values": (products := [product for _, product in pairs]), **spread(products)},
                "multiple": spread([step / product for step, product in pairs]),
                "share": spread([product / step for step, product in pairs]),
                "waiting": spread(waits),
            }
    return result


def growth(bench: Bench, folder: Path, amounts: Amounts, note: Note) -> dict[str, Any]:
    """Our cost by the number of ids and of tasks: 8 Zipf-like features, one fresh process a point, alternating."""
    parts = {"train": amounts.growth_rows, "valid": 4_096}
    by_ids = {f"{ids}": (ids, 2) for ids in amounts.growth_ids}
    by_tasks = {f"{tasks}": (amounts.growth_ids[1], tasks) for tasks in amounts.growth_tasks}
    result: dict[str, Any] = {}
    for label, points in (("ids", by_ids), ("tasks", by_tasks)):
        names = {f"ours:{name}": point for name, point in points.items()}
        warm: dict[str, dict[str, Any]] = {}
        with bench.sides(list(names)) as sides:
            for name, (ids, tasks) in names.items():
                place = folder / f"growth_{ids}_{max(amounts.growth_tasks)}"
                if not place.exists():
                    write_zipf(place, parts, features=8, ids=ids, tasks=max(amounts.growth_tasks))
                Case(str(place), "mmoe", 4_096, "adagrad").build(sides[name], tasks=tasks)
                warm[name] = sides[name].ask("train")
                note(f"{label}: {name} warmed up")
            found = alternate(sides, amounts.rounds, lambda side: side.ask("train"), label, note)
            first = next(iter(names))
            result[label] = {
                name.partition(":")[2]: {
                    "rows_per_second": {"values": (rates := [rate(of[name]) for of in found]), **spread(rates)},
                    "cost": spread([rate(of[first]) / rate(of[name]) for of in found]),
                    "peak_in_steps": warm[name]["peak_in_steps"],
                    "peak": sides[name].ask("peak")["peak"],
                    "precision": found[0][name]["precision"],
                }
                for name in names
            }
    return result
