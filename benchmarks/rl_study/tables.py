"""From the units of the study to its numbers: means over worlds with intervals, p-values, rank correlations."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr, t, ttest_1samp

from polyrank.files import read_json
from rl_study.judging import EXITS

ESTIMATORS = ("linear", "fqe", "conservative", "kernel")
LEAST = 0.01  # of headroom, of which a share is told
World = Mapping[str, Any]  # by file name: world, static, a method, graded-…


def read_worlds(out: Path, mode: str, seeds: Sequence[int]) -> dict[int, World]:
    """What there is of each world."""
    found = {}
    for seed in seeds:
        files = sorted((out / f"{mode}-{seed}").glob("*.json"))
        if any(file.stem == "static" for file in files):
            found[seed] = {file.stem: read_json(file) for file in files}
            found[seed]["estimates"] = {f.stem: read_json(f) for f in (out / f"{mode}-{seed}/estimates").glob("*.json")}
    return found


def summary(worlds: Mapping[int, World], methods: Sequence[str]) -> dict[str, Any]:
    """The numbers of one mode; all shares are of the best static formula's value.

    Returns:
        `headroom`: (oracle − static) / static by world. By method: `seeds`, `gain`, `captured` (share of the headroom;
        None where there is none), `personal` (policy − its matched static formula), `exits`, `diverged` (in how many
        worlds), `unsafe` (by world, why), each number as mean, low, high, and p (one-sided, > 0) where it is a gain.
    """
    headroom = {seed: world["world"]["oracle"] / world["static"]["value"] - 1 for seed, world in worlds.items()}
    found: dict[str, Any] = {"headroom": over_seeds(list(headroom.values())), "headrooms": headroom, "methods": {}}
    for name in methods:
        its = {seed: world[name] for seed, world in worlds.items() if name in world}
        fine = {seed: unit for seed, unit in its.items() if unit["value"] is not None}
        gains = {seed: unit["value"] / worlds[seed]["static"]["value"] - 1 for seed, unit in fine.items()}
        found["methods"][name] = {
            "seeds": list(its),
            "diverged": {seed: unit["diverged"] for seed, unit in its.items() if unit["value"] is None},
            "gain": over_seeds(list(gains.values())),
            "gains": gains,
            "captured": over_seeds([gain / headroom[seed] for seed, gain in gains.items() if headroom[seed] > LEAST]),
            "personal": over_seeds(
                [unit["personal"]["mean"] / worlds[seed]["static"]["value"] for seed, unit in fine.items()]
            ),
            "exits": over_seeds([unit["exits"] for unit in fine.values()]),
            "fit_seconds": over_seeds([unit["fit_seconds"] for unit in its.values()]),
            "unsafe": {seed: _reasons(unit, worlds[seed]["estimates"].get(name)) for seed, unit in fine.items()},
        }
    return found


def _reasons(unit: Mapping[str, Any], said: Mapping[str, Any] | None) -> list[str]:
    """Why a policy is not deployed; where the estimators have not judged it, its box-exit rate alone speaks."""
    if said is not None:
        return list(said["unsafe"])
    return [f"it leaves the box in {unit['exits']:.1%} of states"] if unit["exits"] > EXITS else []


def over_seeds(values: Sequence[float], level: float = 0.95) -> dict[str, float | int | None]:
    """Mean over worlds, Student's interval, and p of mean ≤ 0; None where two worlds or more are needed."""
    if not values:
        return {"mean": None, "low": None, "high": None, "p": None, "n": 0}
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.std(values) == 0:
        return {"mean": mean, "low": None, "high": None, "p": None, "n": n}
    half = float(t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": above(values, 0.0), "n": n}


def above(values: Sequence[float], bar: float) -> float:
    """One-sided p of Student's test: were the mean not above the bar, how likely so high a one?"""
    return float(ttest_1samp(values, bar, alternative="greater").pvalue)


def estimated(world: World) -> list[dict[str, Any]]:
    """All policies of a world that were estimated: `policy`, `truth`, and each estimator's entry."""
    return [{"policy": name, "truth": world[name]["value"], **said} for name, said in world["estimates"].items()]


def agreement(world: World) -> dict[str, Any]:
    """Spearman's ρ of estimates with the truth, by estimator, over the policies that it has an estimate of."""
    rows, found = estimated(world), {}
    for estimator in ESTIMATORS:
        pairs = [(row[estimator]["value"], row["truth"]) for row in rows if row[estimator]["value"] is not None]
        many = len(pairs) > 2
        rho = float(spearmanr(*zip(*pairs, strict=True)).statistic) if many else None
        found[estimator] = {"spearman": rho, "policies": len(pairs), "refused": len(rows) - len(pairs)}
    return found
