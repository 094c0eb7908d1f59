"""The two stages: a search over options and architectures, and the seeds of what it chose, which the config file holds.

The search tries options one by one on top of the config and architectures with it; then what helps, together, with the
two best architectures. What it chooses by validation data is written into the config file by hand, and the final stage
trains that file: with many seeds, and with some for other architectures.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.trials import LIGHTGBM, Study, Trial, finished, quality, run_trials
from polyrank.allocator import keep_memory
from polyrank.models.ranker import ARCHITECTURES
from polyrank.progress import Progress, Terminal

Results = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Plan:
    """What a study tries.

    Attributes:
        ablations: named assignments that take something away from the config: with one seed, to see what it was worth.
        options: named assignments, each tried alone on top of the config.
        architectures: those of the registry that are tried with the config as it is; in the search the two best of
            them again with the best options.
        seeds: of the search, and of other architectures in the final stage.
        final: of the config in the final stage.
        refit: assignments for the final stage.
        contrasts: named assignments on top of the config, in both stages with as many seeds as the config: what moves
            the tasks against one another.
    """

    ablations: Mapping[str, tuple[str, ...]]
    options: Mapping[str, tuple[str, ...]]
    architectures: tuple[str, ...]
    seeds: tuple[int, ...]
    final: tuple[int, ...]
    refit: tuple[str, ...] = ()
    contrasts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def models(self) -> dict[str, tuple[str, ...]]:
        """The config with each architecture."""
        known = [name for name in self.architectures if name in ARCHITECTURES]
        return {f"config, {name}": (f"model.architecture={name}", f"model.{name}.dropout=0.5") for name in known}


def search(study: Study, plan: Plan, jobs: int, progress: Progress) -> Results:
    """Options, architectures, and what helps together."""
    variants: dict[str, tuple[str, ...]] = {"config": (), **plan.contrasts, **plan.options}
    models = plan.models()
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
    best = max((name for name in tried if name in results), key=lambda name: quality(results[name]))
    progress.say(f"best on validation: {best}: {' '.join(tried[best])}")
    return results


def final(study: Study, plan: Plan, jobs: int, progress: Progress) -> Results:
    """The config with many seeds, other architectures with some."""
    variants = {"final": (), **{f"final, {name}": sets for name, sets in plan.contrasts.items()}}
    trials = [Trial(name, (*sets, *plan.refit), seed) for seed in plan.final for name, sets in variants.items()]
    own = study.settings((), 0).model.architecture
    for name, sets in plan.models().items():
        if name != f"config, {own}":
            trials += [Trial(name.replace("config", "final"), (*sets, *plan.refit), seed) for seed in plan.seeds]
    return run_trials(study, trials, jobs, progress)


def markdown(results: Results, command: str, *, validated: bool) -> str:
    """A row a variant, best on validation first; for each task the test measures, mean ± deviation over seeds.

    Args:
        results: by variant.
        command: what made them.
        validated: whether validation data was held out: it says nothing of those that have trained on it.
    """
    tasks = list(next(iter(results.values()))[0]["test"])
    lines = [
        f"`{command}`: test data: AUC (GAUC within users, where there are users), mean ± standard deviation over seeds."
        + (" Validation: the mean over tasks and measures, by which everything is chosen." if validated else ""),
        "",
        "| variant | seeds | validation | " + " | ".join(tasks) + " | CPU s a seed |",
        "|---|---:|---:|" + "---:|" * (len(tasks) + 1),
    ]
    for name, seeds in sorted(results.items(), key=lambda item: -quality(item[1])):
        cells = [_cell([one["test"][task] for one in seeds]) for task in tasks]
        held_out = f"{quality(seeds):.5f}" if validated else ""
        cpu = np.mean([one["cpu"] for one in seeds])
        lines.append(f"| {name} | {len(seeds)} | {held_out} | {' | '.join(cells)} | {cpu:.0f} |")
    return "\n".join(lines) + "\n"


def _cell(measured: Sequence[Mapping[str, float]]) -> str:
    values = [one["auc"] for one in measured]
    text = f"{np.mean(values):.5f}" + (f" ± {np.std(values, ddof=1):.5f}" if len(values) > 1 else "")
    return text + (f" ({np.mean([one['gauc'] for one in measured]):.4f})" if "gauc" in measured[0] else "")


def arguments(parser: argparse.ArgumentParser, name: str, *, path: str = "") -> argparse.Namespace:
    """What both studies take from the command line; `path` explains a folder that must be given."""
    keep_memory()
    here = Path(__file__).parents[2]
    parser.add_argument("stage", choices=("search", "final", "report"), help="report: write what is there already")
    if path:
        parser.add_argument("path", type=Path, help=path)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    parser.add_argument(
        "--out", type=Path, default=here / f"runs/accuracy_{name}", help="finished trials are kept here"
    )
    parser.add_argument("--seeds", type=int, help="seeds of the search and of other architectures, not the plan's")
    parser.add_argument("--final", type=int, help="seeds of the config in the final stage, not the plan's")
    return parser.parse_args()


def conclude(study: Study, plan: Plan, given: argparse.Namespace, name: str, command: str) -> None:
    """Run a stage, print its table, and write it beside the other results."""
    seeds = tuple(range(given.seeds)) if given.seeds else plan.seeds
    plan = replace(plan, seeds=seeds, final=tuple(range(given.final)) if given.final else plan.final)
    if given.stage == "report":
        results = finished(study)
    else:
        results = (search if given.stage == "search" else final)(study, plan, given.jobs, Terminal())
    table = markdown(results, command, validated=given.stage != "final" or not plan.refit)
    target = Path(__file__).parents[1] / f"results/{date.today().isoformat()}-accuracy-{name}-{given.stage}"
    target.with_suffix(".json").write_text(json.dumps({"command": command, "results": results}, indent=1) + "\n")
    target.with_suffix(".md").write_text(table)
    print(table)
