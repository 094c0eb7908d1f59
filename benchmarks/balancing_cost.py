"""What each balancer costs: time of a training step and memory, relative to static weights.

    python benchmarks/balancing_cost.py [--rounds 15] [--batch 4096]

MMoE (8 experts of 128 and 64 units), float32, on Census-Income (2 tasks) and on a synthetic log of 8 tasks and 30
features, one of them with 100,000 values. All methods take turns step by step on the same batches, so that a busy
moment hits all alike; what is reported is the ratio of the medians over rounds. Each has a ranker of its own.
`usual way` is what a library does that knows nothing of the network: torchjd's Jacobian of all shared parameters
(embeddings of the batch among them), Aligned-MTL on it.

Memory is the growth of the resident memory during eight steps in a process of its own.

Also measured: the cosine between the two tasks' gradients on Census, at the representation (rows side by side), summed
over rows, and at all shared parameters, every fifth step of an epoch. Writes
benchmarks/results/<date>-balancing-cost.json and .md as it goes; the same command on the same day goes on where it was
cut off.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torchjd.aggregation import AlignedMTLWeighting
from torchjd.autojac import jac

from polyrank.allocator import keep_memory
from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.config import override
from polyrank.data.loader import Batch, Loader
from polyrank.data.schema import Feature, Schema, Task, save_schema
from polyrank.experiment import DEMO
from polyrank.progress import Terminal
from polyrank.runs import EVALUATION_BATCH, Prepared, build_ranker, prepare
from polyrank.settings import Settings, parse_settings
from polyrank.training.loop import Trainer
from polyrank.training.step import TrainingStep

HERE = Path(__file__).parent
TARGET = HERE / f"results/{date.today().isoformat()}-balancing-cost"
KNOBS = (
    "model.embedding_dropout=0.0",
    "model.architecture=mmoe",
    "model.mmoe.experts=8",
    "model.mmoe.widths=[128, 64]",
    "train.precision=float32",
    "train.warmup=0.0",
    "data.leak_guard=false",
)
USUAL, DEEP = "usual way", "mgda, parameters"
REMEMBER = ("gradnorm", "famo", "mgda", "graddrop", "excess_mtl", DEEP, USUAL)
ROWS, TASKS = 100_000, 8


def synthetic(folder: Path) -> dict[str, Any]:
    """A log of 8 binary tasks that share some of what decides them; its config."""
    rng = np.random.default_rng(0)
    sizes = [100_000, 20_000, 5_000, 1_000, 500, 200, 100, 50, *[20] * 12]
    columns: dict[str, Any] = {f"id_{i}": rng.integers(0, size, ROWS) for i, size in enumerate(sizes)}
    numbers = rng.normal(size=(ROWS, 10))
    columns |= {f"number_{i}": numbers[:, i] for i in range(10)}
    effects = rng.normal(size=(10, TASKS)) * 0.4 + rng.normal(size=(10, 1)) * 0.3
    chance = 1 / (1 + np.exp(1.5 - numbers @ effects))
    columns |= {f"task_{t}": (rng.random(ROWS) < chance[:, t]).astype(np.int8) for t in range(TASKS)}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    features = [Feature(f"id_{i}", "id") for i in range(len(sizes))]
    features += [Feature(f"number_{i}", "number", bins=20) for i in range(10)]
    save_schema(
        Schema(tuple(features), tuple(Task(f"task_{t}", "binary") for t in range(TASKS))), folder / "schema.toml"
    )
    return {"data": {"schema": str(folder / "schema.toml"), "train": str(folder / "log.parquet")}}


def trainer_of(
    name: str, prepared: Prepared, settings: Settings, folder: Path
) -> tuple[Trainer, Callable[[Batch], None]]:
    """A trainer with the balancer `name`, and its step."""
    method = {USUAL: "static", DEEP: "mgda"}.get(name, name)
    knobs = {"gradient_scope": "parameters"} if name == DEEP else {}
    torch.manual_seed(0)
    ranker = build_ranker(prepared.schema, prepared.encoders, settings, folder)
    names = prepared.schema.task_names
    train, valid = (
        Loader(prepared.schema, prepared.parts[part], size, 0)
        for part, size in (("train", settings.train.batch_size), ("valid", EVALUATION_BATCH))
    )
    balancer = build_balancer(method, names, BALANCERS[method].config(**knobs))
    trainer = Trainer(ranker, balancer, train, valid, settings.train, folder / "none", Terminal())
    ranker.train()
    if name != USUAL:
        return trainer, trainer._step
    ranker.architecture._forward_hooks.clear()  # nothing is cut
    return trainer, lambda batch: usual_step(trainer, batch)


def usual_step(trainer: Trainer, batch: Batch) -> None:
    """Jacobians of every task's loss over all shared parameters, aggregated; towers get their own gradients."""
    ranker = trainer.ranker
    losses, _ = trainer._losses(batch, batch)
    for parameter in trainer.dense_parameters:
        parameter.grad = None
    taken = ranker.embeddings._taken
    assert taken is not None
    leaves = [leaf for leaf in (taken.wide, taken.narrow and taken.narrow.tables) if leaf is not None]
    shared = [*ranker.architecture.parameters(), *leaves]
    parts = jac(list(losses), shared, retain_graph=True, parallel_chunk_size=1)
    flat = [part.flatten(1) for part in parts]
    gramian = sum((part @ part.T for part in flat), torch.zeros(len(losses), len(losses)))
    weights = AlignedMTLWeighting()(gramian.double()).float()
    weights *= len(weights) / weights.sum()
    for leaf, part in zip(shared, parts, strict=True):
        leaf.grad = torch.tensordot(weights, part, dims=1)
    towers = list(ranker.towers.parameters())
    for parameter, own in zip(towers, torch.autograd.grad(losses.sum(), towers), strict=True):
        parameter.grad = own
    trainer.dense.step()
    trainer.sparse.step(trainer.embedding_rate)
    trainer.place.step += 1


def measure(settings: Settings, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of static's step, and every method's time relative to it."""
    names = [*BALANCERS, DEEP, USUAL]
    prepared = prepare(settings, folder, Terminal(), test=False)
    made = {name: trainer_of(name, prepared, settings, folder) for name in names}
    train = made["static"][0].train
    with train.epoch(0) as loaded:
        batches = [batch for batch, _ in zip(loaded, range(4), strict=False)]
    for batch in batches[:3]:
        for _, step in made.values():
            step(batch)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        batch = batches[number % len(batches)]
        for name in names if number % 2 else reversed(names):
            for _ in range(2 if name != USUAL else 1):
                began = time.perf_counter()
                made[name][1](batch)
                taken[name].append(time.perf_counter() - began)
    plain = np.median(taken["static"])
    return {name: {"ms": 1e3 * float(np.median(t)), "ratio": float(np.median(t) / plain)} for name, t in taken.items()}


def resident(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def remember(name: str, settings: Settings, folder: Path) -> None:
    """Print how far resident memory grows in eight steps."""
    prepared = prepare(settings, folder, Terminal(), test=False)
    trainer, step = trainer_of(name, prepared, settings, folder)
    with trainer.train.epoch(0) as loaded:
        batches = [batch for batch, _ in zip(loaded, range(3), strict=False)]
    before = resident("VmRSS")
    for number in range(8):
        step(batches[number % 3])
    print(json.dumps({"grown": resident("VmHWM") - before, "peak": resident("VmHWM")}))


def cosines(settings: Settings, folder: Path) -> dict[str, dict[str, float]]:
    """Of the two tasks' gradients over one epoch, by where they are compared."""
    found: dict[str, list[float]] = {"representation": [], "summed over rows": [], "shared parameters": []}
    trainer, _ = trainer_of("static", prepare(settings, folder, Terminal(), test=False), settings, folder)
    pull = TrainingStep.pull

    def watched(step: TrainingStep, scale: Any = None) -> None:
        pull(step, scale)
        if trainer.place.step % 5 == 0:
            summed, deep = step.summed()[0].double(), step.summed(1, "parameters")[0].double()
            for where, gramian in zip(found, (step.gramian(), summed @ summed.T, deep @ deep.T), strict=True):
                found[where].append(float(gramian[0, 1] / (gramian[0, 0] * gramian[1, 1]).sqrt()))

    TrainingStep.pull = watched  # type: ignore[method-assign]
    with trainer.train.epoch(0) as loaded:
        for batch in loaded:
            trainer._step(batch)
    TrainingStep.pull = pull  # type: ignore[method-assign]
    return {w: {"mean": float(np.mean(c)), "std": float(np.std(c)), "steps": len(c)} for w, c in found.items()}


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--remember", nargs=3, metavar=("METHOD", "LOG", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_memory()
    knobs = [*KNOBS, f"train.batch_size={arguments.batch}"]
    if arguments.remember:
        method, log, where = arguments.remember
        table = DEMO if log == "census" else json.loads((Path(where) / "synthetic.json").read_text(encoding="utf-8"))
        remember(method, parse_settings(override(table, knobs), Path.cwd()), Path(where) / log)
        return
    command = " ".join(["python", "benchmarks/balancing_cost.py", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = synthetic(folder)
        (folder / "synthetic.json").write_text(json.dumps(table), encoding="utf-8")
        settings = {
            log: parse_settings(override(which, knobs), Path.cwd())
            for log, which in (("census", DEMO), ("synthetic", table))
        }
        result: dict[str, Any] = {"command": command, "batch": arguments.batch, "threads": torch.get_num_threads()}
        result |= {"time": {}, "cosines": {}, "memory": {}}
        if TARGET.with_suffix(".json").exists():
            before = json.loads(TARGET.with_suffix(".json").read_text(encoding="utf-8"))
            result = before if before["command"] == command else result
        for log, each in settings.items():
            if log not in result["time"]:
                result["time"][log] = measure(each, folder / log, arguments.rounds)
                write(result)
        if not result["cosines"]:
            result["cosines"] = cosines(settings["census"], folder / "census")
            write(result)
        for log in settings:
            for method in ("static", *REMEMBER):
                if method in result["memory"].get(log, {}):
                    continue
                call = [sys.executable, __file__, "--batch", str(arguments.batch), "--remember", method, log, name]
                lines = subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()
                result["memory"].setdefault(log, {})[method] = json.loads(lines[-1])
                write(result)
    write(result)
    print("\n".join(table_of(result)))


def write(result: dict[str, Any]) -> None:
    """What is known so far."""
    TARGET.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TARGET.with_suffix(".md").write_text("\n".join(table_of(result)) + "\n", encoding="utf-8")


def table_of(result: dict[str, Any]) -> list[str]:
    """Markdown."""
    times, memory = result["time"], result["memory"]
    lines = [
        f"`{result['command']}`: MMoE, batch {result['batch']:,}, {result['threads']} threads. Time of a step and "
        "growth of resident memory in eight steps (in brackets: the process's peak), relative to static weights.",
        "",
        "| method | Census, 2 tasks | synthetic, 8 tasks | memory, 2 | memory, 8 |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in times["census"]:
        cells = [f"{times[log][method]['ratio']:.2f}" for log in times]
        if method == "static":
            cells = [f"{times[log][method]['ms']:.1f} ms" for log in times]
        for log in times:
            found = memory.get(log, {}).get(method)
            grown = memory.get(log, {}).get("static", {}).get("grown", 0)
            if method == "static":
                cells.append(f"{grown / 2**20:.0f} MiB")
            else:
                peak = memory.get(log, {}).get("static", {}).get("peak", 1)
                cells.append("" if found is None else f"{found['grown'] / grown:.2f} ({found['peak'] / peak:.2f})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", "Cosine of the two tasks' gradients on Census over an epoch:", ""]
    lines += ["| compared at | mean | standard deviation | steps |", "|---|---:|---:|---:|"]
    lines += [f"| {w} | {c['mean']:+.4f} | {c['std']:.4f} | {c['steps']} |" for w, c in result["cosines"].items()]
    return lines


if __name__ == "__main__":
    main()
