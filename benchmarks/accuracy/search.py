"""The search: options one by one, those that help together, then architectures, then more seeds of the best."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.trials import LIGHTGBM, Study, Trial, quality, run_trials
from polyrank.allocator import keep_memory
from polyrank.progress import Progress, Terminal


@dataclass(frozen=True)
class Plan:
    """What a search tries.

    Attributes:
        options: named assignments, each tried alone on top of the config.
        architectures: those tried with the best options.
        seeds: of the search.
        final: of the best.
        refit: assignments for the last stage alone.
    """

    options: Mapping[str, tuple[str, ...]]
    architectures: tuple[str, ...]
    seeds: tuple[int, ...]
    final: tuple[int, ...]
    refit: tuple[str, ...] = ()


def search(study: Study, plan: Plan, jobs: int, progress: Progress) -> dict[str, Any]:
    """Run all stages; what the results file holds. Every choice is by validation data."""
    results: dict[str, list[dict[str, Any]]] = {}

    def run(variants: Mapping[str, tuple[str, ...]], seeds: Sequence[int]) -> None:
        trials = [Trial(name, sets, seed) for name, sets in variants.items() for seed in seeds]
        results.update(run_trials(study, trials, jobs, progress))

    run({"base": (), **plan.options}, plan.seeds)
    run({LIGHTGBM: ()}, plan.seeds[:1])
    base = quality(results["base"])
    helping = [name for name in plan.options if quality(results[name]) > base]
    together = tuple(part for name in helping for part in plan.options[name])
    variants = {"base": (), **plan.options, "all that help": together}
    if len(helping) > 1:
        run({"all that help": together}, plan.seeds)
    best = max((name for name in variants if name in results), key=lambda name: quality(results[name]))
    progress.say(f"options: {best} ({', '.join(variants[best]) or 'the config itself'})")
    models = {f"{name}, {best}": (*variants[best], f"model.architecture={name}") for name in plan.architectures}
    run(models, plan.seeds)
    chosen = max(models, key=lambda name: quality(results[name]))
    progress.say(f"architecture: {chosen}")
    run({f"final: {chosen}": (*models[chosen], *plan.refit)}, plan.final)
    return {"chosen": chosen, "sets": [*models[chosen], *plan.refit], "helping": helping, "results": results}


def markdown(found: Mapping[str, Any], command: str) -> str:
    """A row a variant: validation quality, and each task's test measures, mean ± standard deviation over seeds."""
    results = found["results"]
    tasks = list(next(iter(results.values()))[0]["test"])
    lines = [
        f"`{command}`: chosen by validation data, measured on test data: AUC (GAUC within users), mean ± standard"
        f" deviation over seeds. Chosen: {found['chosen']}.",
        "",
        "| variant | seeds | validation | " + " | ".join(tasks) + " | CPU s a seed |",
        "|---|---:|---:|" + "---:|" * (len(tasks) + 1),
    ]
    for name, seeds in results.items():
        cells = [_cell([one["test"][task] for one in seeds]) for task in tasks]
        cpu = np.mean([one["cpu"] for one in seeds])
        lines.append(f"| {name} | {len(seeds)} | {quality(seeds):.4f} | {' | '.join(cells)} | {cpu:.0f} |")
    return "\n".join(lines) + "\n"


def _cell(measured: Sequence[Mapping[str, float]]) -> str:
    values = [one["auc"] for one in measured]
    text = f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")
    return text + (f" ({np.mean([one['gauc'] for one in measured]):.4f})" if "gauc" in measured[0] else "")


def arguments(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """What both studies take from the command line."""
    keep_memory()
    here = Path(__file__).parents[2]
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    parser.add_argument(
        "--out", type=Path, default=here / f"runs/accuracy_{name}", help="finished trials are kept here"
    )
    parser.add_argument("--seeds", type=int, help="seeds of the search, instead of the plan's")
    parser.add_argument("--final", type=int, help="seeds of the last stage, instead of the plan's")
    return parser.parse_args()


def conclude(study: Study, plan: Plan, given: argparse.Namespace, name: str, command: str) -> None:
    """Search, print the table, and write it beside the other results."""
    plan = Plan(
        plan.options,
        plan.architectures,
        tuple(range(given.seeds)) if given.seeds else plan.seeds,
        tuple(range(given.final)) if given.final else plan.final,
        plan.refit,
    )
    found = search(study, plan, given.jobs, Terminal())
    target = Path(__file__).parents[1] / f"results/{date.today().isoformat()}-accuracy-{name}"
    target.with_suffix(".json").write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(found, command))
    print(markdown(found, command))
