"""Which balancer is worth it? Every method on MMoE; on PLE equal weights and the five that weigh most differently.

    python benchmarks/balancing.py [--kuairand FOLDER] [--out runs/balancing] [--seeds 3] [--more-seeds 5] [--epochs 1]

Census-Income (built in, two tasks) and, where its folder with `train.parquet` and `valid.parquet` is given, KuaiRand
(five tasks). A method is trained with every seed on the same initial weights and batches as static weights with that
seed, chosen on validation and measured on test data; differences of AUC are paired by seed, intervals are Student's at
95 %, over seeds: the test rows are the same ones. Twenty such intervals leave out the truth once by chance: `noise`
says that 0 is inside, `differs` no more than that it is not.

The six methods are found by the weights that MMoE trained with: static, then again and again the one that is farthest
from all that were taken.

Resumable: what is done stays in --out, and a training that was cut off goes on. `--log` does one of the two alone: two
such commands side by side, and then one without it, which reads what they found. Writes
benchmarks/results/<date>-balancing.json and .md.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from polyrank.allocator import keep_memory
from polyrank.balancing.balancer import BALANCERS
from polyrank.config import override, read_toml
from polyrank.experiment import DEMO
from polyrank.files import read_json, write_json
from polyrank.progress import Terminal
from polyrank.runs import Prepared, evaluate_part, prepare, train_run
from polyrank.settings import Settings, parse_settings

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"
CENSUS_KNOBS = ("model.embedding_dropout=0.3", "train.learning_rate=0.002", "train.batch_size=1024")
# Without the leaves, target attention, width and members of configs/kuairand.toml: a small part of its time.
KUAIRAND_KNOBS = (
    "data.leaves.trees=0", "model.sequence.pooling=mean", "model.embedding_width=16", "model.ensemble.members=1",
    "train.batch_size=1024",
)  # fmt: skip
KUAIRAND_TASKS = ["click", "long_view", "like", "profile_enter", "comment_stay"]
SIX = 6
_PREPARED: dict[str, Prepared] = {}  # the same for all methods, architectures and seeds


def settings_of(log: str, architecture: str, method: str, seed: int, arguments: argparse.Namespace) -> Settings:
    """An experiment of the study."""
    knobs = [
        f"model.architecture={architecture}",
        f"balance.method={method}",
        f"train.seed={seed}",
        f"train.epochs={arguments.epochs}",
        "train.patience=0",
        "train.threads=1",  # two logs side by side would be in each other's way with more
    ]
    if log == "census":
        return parse_settings(override(DEMO, [*CENSUS_KNOBS, *knobs]), Path.cwd())
    table = read_toml(CONFIGS / "kuairand.toml")
    table["balance"] = {}  # static means equal weights here
    table["data"] = {"schema": str(CONFIGS / "kuairand_schema.toml"), "tasks": KUAIRAND_TASKS}
    folder = Path(arguments.kuairand).resolve()
    knobs += [f'data.train="{folder}/train.parquet"', f'data.test="{folder}/valid.parquet"']
    return parse_settings(override(table, [*KUAIRAND_KNOBS, *knobs]), Path.cwd())


def trained(
    log: str, architecture: str, method: str, seed: int, arguments: argparse.Namespace, progress: Terminal
) -> dict[str, Any]:
    """Test AUC of every task, and the mean weights over training; from disk where it is there."""
    folder = Path(arguments.out) / log
    name = f"{architecture}-{method}-{seed}"
    done = folder / f"{name}.json"
    if not done.exists():
        settings = settings_of(log, architecture, method, seed, arguments)
        if log not in _PREPARED:
            _PREPARED[log] = prepare(settings, folder, progress, test=True)
        prepared, run = _PREPARED[log], folder / name
        ranker, result = train_run(prepared, settings, run, progress, resume=True)
        tasks = evaluate_part(ranker, prepared, settings, "test", progress)[1]["tasks"]
        lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
        points = [point["weights"] for line in lines for point in line["balance"]]
        write_json(
            done,
            {
                "auc": {task: metrics["auc"] for task, metrics in tasks.items()},
                "weights": [list(point.values()) for point in points],
                "seconds": result.seconds,
            },
        )
        shutil.rmtree(run)
    found: dict[str, Any] = read_json(done)
    return found


def most_different(weights: dict[str, np.ndarray], count: int) -> list[str]:
    """Static, then whichever method's relative weights are farthest from all that were taken."""
    shares = {name: each / each.sum(axis=1, keepdims=True) for name, each in weights.items()}
    taken = ["static"]
    while len(taken) < min(count, len(shares)):
        rest = [name for name in shares if name not in taken]
        taken.append(max(rest, key=lambda name: min(float(np.abs(shares[name] - shares[t]).mean()) for t in taken)))
    return taken


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By method and task: mean AUC, mean difference to static, half its 95 % interval, verdict."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for method, runs in found.items():
        for task in runs[0]["auc"]:
            own, plain = (np.array([run["auc"][task] for run in each]) for each in (runs, found["static"]))
            delta = own - plain
            count = len(delta)
            half = float(stats.t.ppf(0.975, count - 1) * delta.std(ddof=1) / count**0.5) if count > 1 else None
            entry = {"auc": float(own.mean()), "delta": float(delta.mean()), "half": half}
            if method != "static" and half is not None:
                entry["verdict"] = "noise" if abs(entry["delta"]) <= half else "differs"
                entry["p"] = float(stats.ttest_1samp(delta, 0.0).pvalue) if delta.any() else 1.0
            result.setdefault(method, {})[task] = entry
    return result


def table_of(name: str, found: dict[str, dict[str, dict[str, Any]]], seeds: int) -> list[str]:
    """Markdown: a row a method, a column a task."""
    tasks = list(next(iter(found.values())))
    lines = ["", f"**{name}**, {seeds} seeds: test AUC of static weights, and differences to it.", ""]
    lines += [f"| method | {' | '.join(tasks)} |", "|---|" + "---:|" * len(tasks)]
    for method, by_task in found.items():
        cells = []
        for task in tasks:
            entry = by_task[task]
            if method == "static":
                cells.append(f"{entry['auc']:.4f}")
            else:
                half = "" if entry["half"] is None else f" ± {entry['half']:.5f}"
                bold = "**" if entry.get("verdict") == "differs" else ""
                cells.append(f"{bold}{entry['delta']:+.5f}{half}{bold}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    judged = [(m, task, e) for m, by_task in found.items() for task, e in by_task.items() if "verdict" in e]
    differing = [e for _, _, e in judged if e["verdict"] == "differs"]
    sure = [f"{m} on {task} ({e['delta']:+.5f})" for m, task, e in judged if e["p"] <= 0.05 / len(judged)]
    lines += [
        "",
        f"{len(differing)} of {len(judged)} differences leave 0 out of their interval (bold); "
        f"about {0.05 * len(judged):.1f} would if no method did anything. All others are noise. "
        f"Corrected for that many comparisons (Bonferroni) remain: {', '.join(sure) or 'none'}.",
    ]
    return lines


def study(
    log: str, architecture: str, methods: Sequence[str], seeds: int, arguments: argparse.Namespace, progress: Terminal
) -> dict[str, list[dict[str, Any]]]:
    """Every method with every seed, seed by seed."""
    found: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    with progress.bar(f"{log}, {architecture}", seeds * len(methods)) as bar:
        for seed in range(seeds):
            for method in methods:
                found[method].append(trained(log, architecture, method, seed, arguments, progress))
                bar.advance(1, method)
    return found


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kuairand", help="the folder with train.parquet and valid.parquet; without it Census alone")
    parser.add_argument("--out", default="runs/balancing")
    parser.add_argument("--seeds", type=int, default=3, help="of every method on MMoE")
    parser.add_argument("--more-seeds", type=int, default=5, help="of the six on PLE")
    parser.add_argument("--epochs", type=int, default=1, help="the budget: all methods act within one")
    parser.add_argument("--log", choices=("census", "kuairand"), help="this one alone; nothing is written but to --out")
    parser.add_argument("--methods", nargs="+", choices=BALANCERS, default=list(BALANCERS), metavar="METHOD")
    arguments = parser.parse_args()
    methods = ["static", *(method for method in arguments.methods if method != "static")]
    keep_memory()
    progress = Terminal()
    given = ["FOLDER" if argument == arguments.kuairand else argument for argument in sys.argv[1:]]
    command = " ".join(["python", "benchmarks/balancing.py", *given])
    result: dict[str, Any] = {"command": command, "epochs": arguments.epochs}
    lines = [f"`{command}`"]
    logs = ("census", "kuairand") if arguments.kuairand else ("census",)
    for log in (arguments.log,) if arguments.log else logs:
        every = study(log, "mmoe", methods, arguments.seeds, arguments, progress)
        weights = {m: np.mean([np.array(run["weights"]) for run in runs], axis=0) for m, runs in every.items()}
        six = most_different(weights, SIX)
        some = study(log, "ple", six, arguments.more_seeds, arguments, progress)
        for name, found, seeds in (("mmoe", every, arguments.seeds), ("ple", some, arguments.more_seeds)):
            tables = summary(found)
            result.setdefault(log, {})[name] = tables
            lines += table_of(f"{log}, {name}", tables, seeds)
    if arguments.log:
        return
    target = HERE / f"results/{date.today().isoformat()}-balancing"
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
