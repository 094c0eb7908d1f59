"""The search: options one by one, those that help together, then architectures, then more seeds of the best."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.trials import LIGHTGBM, Study, Trial, quality, run_trials
from polyrank.allocator import keep_memory
from polyrank.models.ranker import ARCHITECTURES
from polyrank.progress import Progress, Terminal


@dataclass(frozen=True)
class Plan:
    """What a search tries.

    Attributes:
        ablations: named assignments that take something away from the config: with one seed, to see what it was worth.
        options: named assignments, each tried alone on top of the config.
        architectures: those of the registry that are tried with the config as it is; the two best of them again with
            the best options.
        seeds: of the search.
        final: of the best.
        refit: assignments for the last stage alone.
    """

    ablations: Mapping[str, tuple[str, ...]]
    options: Mapping[str, tuple[str, ...]]
    architectures: tuple[str, ...]
    seeds: tuple[int, ...]
    final: tuple[int, ...]
    refit: tuple[str, ...] = ()


def search(study: Study, plan: Plan, jobs: int, progress: Progress) -> dict[str, Any]:
    """Run all stages; what the results file holds. Every choice is by validation data."""
    variants: dict[str, tuple[str, ...]] = {"config": (), **plan.options}
    models = {
        f"config, {name}": (f"model.architecture={name}", f"model.{name}.dropout=0.5")
        for name in plan.architectures
        if name in ARCHITECTURES
    }
    first = [Trial(name, sets, seed) for seed in plan.seeds for name, sets in {**variants, **models}.items()]
    first += [Trial(name, sets, plan.seeds[0]) for name, sets in plan.ablations.items()]
    results = run_trials(study, [*first, Trial(LIGHTGBM, (), 0)], jobs, progress)

    helping = [name for name in plan.options if quality(results[name]) > quality(results["config"])]
    variants["all that help"] = tuple(part for name in helping for part in plan.options[name])
    single = max(plan.options, key=lambda name: quality(results[name]))
    two = sorted(models, key=lambda name: quality(results[name]))[-2:]
    second = {
        f"{option}{model.removeprefix('config')}": (*variants[option], *models[model])
        for option in (single, "all that help")
        for model in two
    }
    results |= run_trials(study, [Trial(n, sets, s) for s in plan.seeds for n, sets in second.items()], jobs, progress)

    tried = {**variants, **models, **second}
    chosen = max((name for name in tried if name in results), key=lambda name: quality(results[name]))
    progress.say(f"chosen by validation: {chosen}")
    sets = (*tried[chosen], *plan.refit)
    results |= run_trials(study, [Trial(f"final: {chosen}", sets, seed) for seed in plan.final], jobs, progress)
    return {"chosen": chosen, "sets": sets, "helping": helping, "results": results}


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
    seeds = tuple(range(given.seeds)) if given.seeds else plan.seeds
    plan = replace(plan, seeds=seeds, final=tuple(range(given.final)) if given.final else plan.final)
    found = search(study, plan, given.jobs, Terminal())
    target = Path(__file__).parents[1] / f"results/{date.today().isoformat()}-accuracy-{name}"
    target.with_suffix(".json").write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(found, command))
    print(markdown(found, command))
