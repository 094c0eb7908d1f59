"""What each balancer costs: processor time of a training step and memory, relative to static weights.

    python benchmarks/balancing_cost.py [--rounds 4] [--batch 4096] [--measure time cosines architectures memory]

MMoE (8 experts of 128 and 64 units), float32, on Census-Income (2 tasks) and on a synthetic log of 8 tasks and 30
features, one of them with 100,000 values. Time is that of one thread on the processor, whatever else the machine does.
A method and static weights take turns step by step on the same batches, so that a busy moment hits both alike; ten
steps each, which is as long as it takes until all methods have done what they do now and then. What is reported is the
median of the ratio over rounds. Each method has a ranker of its own, and static weights have two, one held against the
other: what their ratio is off 1 by is noise.
`usual way` is what a library does that knows nothing of the network: torchjd's Jacobian of all shared parameters
(embeddings of the batch among them), Aligned-MTL on it. What a run records of its balancer, at fifty points an epoch,
is left out: epochs of these logs are so short that it would be every step, static's too.

Memory is the resident memory of a training process of its own at its peak, after eight steps on encoded data, and in
brackets how far it grew in these steps, relative to static weights. Growth is loaded code, batches read ahead and a
step's activations, and varies from process to process: static is measured three times, and the spread is given.

Also measured: MGDA on Census with every architecture: where tasks read no common experts in `Level`s, gradients are
compared at the shared parameters, which costs a backward pass a task. And the cosine between the two tasks' gradients
on Census, at the representation (rows side by side), summed over rows, and at all shared parameters, every fifth step
of an epoch. Writes benchmarks/results/<date>-balancing-cost.json and .md as it goes; the same command on the same day
goes on where it was cut off. `--measure` names what to do now.
"""

import argparse
import json
import multiprocessing
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
from polyrank.models.ranker import ARCHITECTURES
from polyrank.progress import Silent, Terminal
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
TURN = 10  # steps
PROCESSES = 3  # in which static's memory is measured
WEIGHTS = [name for name, entry in BALANCERS.items() if not entry.kind.combines]
ROWS, TASKS = 100_000, 8
NEVER = 10**9
Pair = tuple[float, float]
PARTS = ("time", "cosines", "architectures", "memory")


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
    trainer.balancing.log.window = NEVER
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
    """Milliseconds of static's step, and every method's time relative to it (static's own: to itself, as a check)."""
    names = [*BALANCERS, DEEP, USUAL]
    prepared = prepare(settings, folder, Terminal(), test=False)
    made = {name: trainer_of(name, prepared, settings, folder) for name in names}
    trainer, plainly = trainer_of("static", prepared, settings, folder)
    with trainer.train.epoch(0) as loaded:
        batches = [batch for batch, _ in zip(loaded, range(4), strict=False)]
    for batch in batches[:3]:
        for step in (plainly, *(step for _, step in made.values())):
            step(batch)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(turn(made[name][1], plainly, batches, TURN if name in BALANCERS else 2))
    return {name: medians(each) for name, each in found.items()}


def turn(step: Callable[[Batch], None], plainly: Callable[[Batch], None], batches: list[Batch], steps: int) -> Pair:
    """The mean processor seconds of a step, and of another that takes turns with it."""
    torch.set_num_threads(1)
    spent = [0.0, 0.0]
    for index in range(steps):
        for which in (0, 1) if index % 2 else (1, 0):
            began = time.process_time()
            (step, plainly)[which](batches[index % len(batches)])
            spent[which] += time.process_time() - began
    return spent[0] / steps, spent[1] / steps


def medians(pairs: list[Pair]) -> dict[str, float]:
    """Of the other step's milliseconds, and of the ratio."""
    each = np.array(pairs)
    return {"ms": 1e3 * float(np.median(each[:, 1])), "ratio": float(np.median(each[:, 0] / each[:, 1]))}


def by_architecture(knobs: list[str], folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """The ratio of MGDA's step to static's with each architecture as it is by default, and where it compares."""
    found = {}
    for name in ARCHITECTURES:
        if name == "single_task":
            continue
        settings = parse_settings(override(DEMO, [*knobs, f"model.architecture={name}"]), Path.cwd())
        prepared = prepare(settings, folder, Terminal(), test=False)
        (trainer, step), (_, plainly) = (trainer_of(m, prepared, settings, folder) for m in ("mgda", "static"))
        with trainer.train.epoch(0) as loaded:
            batches = [batch for batch, _ in zip(loaded, range(3), strict=False)]
        turn(step, plainly, batches, 2)
        where = "parameters" if trainer.balancing.junction.columns is None else "representation"
        found[name] = medians([turn(step, plainly, batches, 5) for _ in range(rounds)]) | {"compared": where}
    return found


def resident(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def remember(name: str, table: dict[str, Any], knobs: list[str], folder: Path) -> dict[str, int]:
    """How far this process's resident memory grows in eight steps, and its peak, in bytes."""
    keep_memory()
    settings = parse_settings(override(table, knobs), Path.cwd())
    prepared = prepare(settings, folder, Silent(), test=False)
    trainer, step = trainer_of(name, prepared, settings, folder)
    with trainer.train.epoch(0) as loaded:
        batches = [batch for batch, _ in zip(loaded, range(3), strict=False)]
    before = resident("VmRSS")
    for number in range(8):
        step(batches[number % 3])
    return {"grown": resident("VmHWM") - before, "peak": resident("VmHWM")}


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
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--measure", nargs="+", choices=PARTS, default=PARTS, help="all by default")
    arguments = parser.parse_args()
    keep_memory()
    knobs = [*KNOBS, f"train.batch_size={arguments.batch}"]
    command = f"python benchmarks/balancing_cost.py --rounds {arguments.rounds} --batch {arguments.batch}"
    result: dict[str, Any] = {"command": command, "batch": arguments.batch}
    result |= {"time": {}, "cosines": {}, "memory": {}}
    if TARGET.with_suffix(".json").exists():
        before = json.loads(TARGET.with_suffix(".json").read_text(encoding="utf-8"))
        result = before if before["command"] == command else result
    processes = multiprocessing.get_context("forkserver")  # each begins with all code loaded, and nothing run
    processes.set_forkserver_preload(["polyrank.runs", "torchjd.aggregation", "torchjd.autojac"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for log, which in (("census", DEMO), ("synthetic", synthetic(folder))):
            settings = parse_settings(override(which, knobs), Path.cwd())
            prepare(settings, folder / log, Terminal(), test=False)  # so that no process below has to
            if "time" in arguments.measure and log not in result["time"]:
                result["time"][log] = measure(settings, folder / log, arguments.rounds)
                write(result)
            if "cosines" in arguments.measure and log == "census" and not result["cosines"]:
                result["cosines"] = cosines(settings, folder / log)
                write(result)
            if "architectures" in arguments.measure and log == "census" and not result.get("architectures"):
                result["architectures"] = by_architecture(knobs, folder / log, arguments.rounds)
                write(result)
            found = result["memory"].setdefault(log, {})
            for method in ("static", *BALANCERS, DEEP, USUAL) if "memory" in arguments.measure else ():
                runs = found.setdefault(method, [])
                while len(runs) < (PROCESSES if method == "static" else 1):
                    with processes.Pool(1) as pool:
                        runs.append(pool.apply(remember, (method, which, knobs, folder / log)))
                    write(result)
    write(result)
    print("\n".join(table_of(result)))


def write(result: dict[str, Any]) -> None:
    """What is known so far."""
    TARGET.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TARGET.with_suffix(".md").write_text("\n".join(table_of(result)) + "\n", encoding="utf-8")


def table_of(result: dict[str, Any]) -> list[str]:
    """Markdown."""
    times, memory = result["time"], {log: found for log, found in result["memory"].items() if found}
    lines = [
        f"`{result['command']}`: MMoE, batch {result['batch']:,}. Processor time of a step, and "
        "peak resident memory (in brackets: its growth in eight steps), relative to static weights.",
        "",
        "| method | Census, 2 tasks | synthetic, 8 tasks | memory, 2 | memory, 8 |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in (*BALANCERS, DEEP, USUAL):
        cells = []
        for log in ("census", "synthetic"):
            found = times.get(log, {}).get(method, {})
            cells.append(
                "" if not found else f"{found['ms']:.1f} ms" if method == "static" else f"{found['ratio']:.2f}"
            )
        for log in ("census", "synthetic"):
            found = memory.get(log, {}).get(method, [])
            if not found:
                cells.append("")
            elif method == "static":
                peaks, grown = ([run[key] >> 20 for run in found] for key in ("peak", "grown"))
                cells.append(f"{min(peaks)} – {max(peaks)} MiB ({min(grown)} – {max(grown)})")
            else:
                cells.append(f"{share(memory[log], method, 'peak'):.2f} ({share(memory[log], method, 'grown'):.2f})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", "| bar | most | by |", "|---|---:|---|", *bars(times, memory)]
    lines += ["", "Cosine of the two tasks' gradients on Census over an epoch:", ""]
    lines += ["| compared at | mean | standard deviation | steps |", "|---|---:|---:|---:|"]
    lines += [f"| {w} | {c['mean']:+.4f} | {c['std']:.4f} | {c['steps']} |" for w, c in result["cosines"].items()]
    if "architectures" in result:
        lines += ["", "MGDA relative to static weights on Census, by architecture:", ""]
        lines += ["| architecture | compared at | static | mgda |", "|---|---|---:|---:|"]
        for name, each in result["architectures"].items():
            lines.append(f"| {name} | {each['compared']} | {each['ms']:.1f} ms | {each['ratio']:.2f} |")
    return lines


def share(memory: dict[str, list[dict[str, int]]], method: str, key: str) -> float:
    """A method's `peak` or `grown` over static's median."""
    return float(np.median([run[key] for run in memory[method]]) / np.median([run[key] for run in memory["static"]]))


def bars(times: dict[str, Any], memory: dict[str, Any]) -> list[str]:
    """What was asked, and the method that costs most."""
    combining = [name for name in BALANCERS if name not in WEIGHTS]
    asked = [(log, "weights", WEIGHTS, 1.05) for log in times]
    asked += [(log, "gradients", combining, {"census": 1.6, "synthetic": 3.0}[log]) for log in times]
    lines = []
    for log, what, names, bar in asked:
        most = max(names, key=lambda name: times[log][name]["ratio"])
        lines.append(f"| {what}, {log}: at most {bar} × the time | {times[log][most]['ratio']:.2f} | {most} |")
    for log, found in memory.items():
        most = max((name for name in found if name in BALANCERS), key=lambda name: share(found, name, "peak"))
        lines.append(f"| all, {log}: at most 1.2 × the peak memory | {share(found, most, 'peak'):.2f} | {most} |")
    return lines


if __name__ == "__main__":
    main()
