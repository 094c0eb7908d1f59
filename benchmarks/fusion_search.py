"""Does the search of fusion weights find what is there, and how fast is it?

Planted weights: requests are ranked by a known weighted log sum; each method gets 300 trials and 10 seeds (which are
not those the search was designed on), and the angle between the weights it found and the true ones is what counts.
Speed: 1,000 trials over 100,000 rows and 6 heads. Latency: ranking a request of 500 candidates by 12 heads with every
preset and every learned ranker.

    python benchmarks/fusion_search.py [--part planted|speed|latency]

writes benchmarks/results/<date>-fusion-<part>.json.
"""

import argparse
import datetime
import os
import platform
import shlex
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.files import write_json
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.learned import LEARNERS, learn
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import PRESETS, preset
from polyrank.fusion.sampling import SearchConfig
from polyrank.fusion.search import search
from polyrank.fusion.seeds import prepared

METHODS = ("random", "sobol", "tpe", "cmaes")
# Learned rankers whose latency is measured: as large as their defaults allow, trained as little as that takes.
RANKERS = {
    "lambdarank": ("lambdarank", {"patience": 500, "threads": 1}),  # all of its 500 trees
    "monotone": ("monotone", {"epochs": 1}),
    "listwise": ("listwise", {"epochs": 1}),
    "listwise, monotone": ("listwise", {"epochs": 1, "monotone": True}),
}


def planted(seed: int, requests: int = 200, size: int = 10, heads: int = 6) -> tuple[Requests, np.ndarray]:
    """Rows whose true order is Σ_k w_k ln(p_k + 1e-4), and w; head k is rarer than head k − 1."""
    rng = np.random.default_rng(seed)
    rows = requests * size
    logits = rng.normal(np.linspace(0, -4, heads), np.linspace(0.6, 1.4, heads), (rows, heads))
    p = 1 / (1 + np.exp(-logits))
    w = np.exp(rng.uniform(np.log(0.2), np.log(5), heads))
    truth = np.log(p + 1e-4) @ w
    names = tuple(f"head{k}" for k in range(heads))
    of = np.arange(rows) // size
    return Requests(
        columns={name: p[:, k] for k, name in enumerate(names)},
        heads=names,
        labels={"order": truth},
        numeric=frozenset({"order"}),
        requests=of,
        users=of,
        reward=np.zeros(rows),
    ), w


def angle(found: np.ndarray, true: np.ndarray) -> float:
    """Between two weight vectors, in degrees."""
    cosine = found @ true / (np.linalg.norm(found) * np.linalg.norm(true))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def recover(method: str, seed: int, trials: int) -> dict[str, float]:
    """Search on one planted problem: the angle of what was found, and its goal (XAUC; 1 is the truth)."""
    data, true = planted(seed)
    objective = Objective(data, "composite", JudgeConfig())
    template = prepared("log_sum", dict.fromkeys(data.heads, "probability"), (), "", data, objective)
    found = search(template, data, objective, SearchConfig(method=method, trials=trials, seed=seed, jobs=1))
    w = np.array([found.parameters.get(f"w_{name}", 1.0) for name in data.heads])
    return {"angle": angle(w, true), "goal": found.trials[found.best].value}


def log(rows: int, heads: int, size: int = 20) -> Requests:
    """A feedback log of `rows` rows, with clicks and rarer behaviours, for the timing."""
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-rng.normal(np.linspace(0, -4, heads), 1.0, (rows, heads))))
    labels = (rng.random((rows, heads)) < p).astype(np.float64)
    names = tuple(f"head{k}" for k in range(heads))
    return Requests(
        columns={name: p[:, k].astype(np.float32) for k, name in enumerate(names)},
        heads=names,
        labels={name: labels[:, k] for k, name in enumerate(names)},
        numeric=frozenset(),
        requests=np.arange(rows) // size,
        users=np.arange(rows) // (5 * size),
        reward=labels.sum(axis=1),
    )


def timed_search(preset_name: str, method: str, trials: int, rows: int, heads: int) -> float:
    """Seconds of one search, with everything that a user waits for but reading the data."""
    data = log(rows, heads)
    begin = time.perf_counter()
    objective = Objective(data, "composite", JudgeConfig())
    template = prepared(preset_name, dict.fromkeys(data.heads, "probability"), (), "", data, objective)
    search(template, data, objective, SearchConfig(method=method, trials=trials))
    return time.perf_counter() - begin


def formula_of(name: str, heads: int) -> Fusion:
    """The preset with its starting weights."""
    kinds = {f"head{k}": "probability" for k in range(heads)}
    return preset(name, kinds, (), "" if PRESETS[name].context == "none" else "seconds").bind()


def ranker_of(name: str, heads: int) -> Fusion:
    """A learned ranker of its default size, with one context column."""
    learner, knobs = RANKERS[name]
    train, valid = (timed_log(rows, heads) for rows in (4_000, 1_000))
    return learn(learner, train, valid, ("seconds",), (), LEARNERS[learner].config(**knobs))


def timed_log(rows: int, heads: int) -> Requests:
    """`log`, with a context column."""
    data = log(rows, heads)
    return replace(data, columns={**data.columns, "seconds": np.random.default_rng(1).random(rows)})


def ranked(fusion: Fusion, candidates: int, heads: int, repeats: int = 300) -> dict[str, float]:
    """Milliseconds of `rank` of one request, by the clock and of processor time (which others' work hardly changes)."""
    rng = np.random.default_rng(0)
    request = {f"head{k}": rng.random(candidates).astype(np.float32) for k in range(heads)}
    request["seconds"] = rng.random(candidates)
    wall, busy = [], []
    for _ in range(repeats):
        begin, used = time.perf_counter(), time.process_time()
        fusion.rank(request)
        wall.append(1e3 * (time.perf_counter() - begin))
        busy.append(1e3 * (time.process_time() - used))
    p90 = statistics.quantiles(wall, n=10)[-1]
    return {"median_ms": statistics.median(wall), "p90_ms": p90, "processor_ms": statistics.median(busy)}


def main() -> None:
    """Run all, print what comes out, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--part", choices=("planted", "speed", "latency", "all"), default="all")
    arguments = parser.parse_args()
    here = Path(__file__).parent / "results"
    environment = {"command": "python " + shlex.join(sys.argv), "python": platform.python_version()}
    environment["cores"] = str(len(os.sched_getaffinity(0)))
    created = datetime.date.today().isoformat()
    if arguments.part in ("planted", "all"):
        seeds = range(1_000, 1_000 + arguments.seeds)
        found = {m: [recover(m, s, arguments.trials) for s in seeds] for m in METHODS}
        wins = sum(c["goal"] >= s["goal"] for c, s in zip(found["cmaes"], found["sobol"], strict=True))
        for method, runs in found.items():
            angles = [run["angle"] for run in runs]
            print(f"{method:8} angle: median {statistics.median(angles):.2f}°, worst {max(angles):.2f}°")
        print(f"cmaes ≥ sobol on {wins} of {arguments.seeds} seeds")
        result = {"trials": arguments.trials, "seeds": list(seeds), "methods": found, "cmaes_at_least_sobol": wins}
        write_json(here / f"{created}-fusion-planted.json", {"created": created, **environment, **result})
    if arguments.part in ("speed", "all"):
        timed_search("log_sum", "cmaes", 20, 2_000, 6)  # compiles
        speed = {
            f"{name}, {method}": timed_search(name, method, 1_000, 100_000, 6)
            for name, method in (("log_sum", "cmaes"), ("ensemble_sort", "cmaes"), ("log_sum", "tpe"))
        }
        for what, seconds in speed.items():
            print(f"1,000 trials over 100,000 rows × 6 heads, {what}: {seconds:.1f} s")
        result = {"search_seconds": speed}
        write_json(here / f"{created}-fusion-speed.json", {"created": created, **environment, **result})
    if arguments.part in ("latency", "all"):
        torch.set_num_threads(1)
        rank = {name: ranked(formula_of(name, 12), 500, 12) for name in PRESETS}
        rank |= {f"learned {name}": ranked(ranker_of(name, 12), 500, 12, 100) for name in RANKERS}
        for name, times in rank.items():
            shown = ", ".join(f"{what} {value:.3f}" for what, value in times.items())
            print(f"rank 500 candidates × 12 heads, {name}: {shown}")
        result = {"candidates": 500, "heads": 12, "threads": 1, "rank": rank}
        write_json(here / f"{created}-fusion-latency.json", {"created": created, **environment, **result})


if __name__ == "__main__":
    main()
