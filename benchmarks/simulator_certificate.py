"""Do the worlds of the session simulator have the headroom that they claim?

    python benchmarks/simulator_certificate.py

Five worlds of each mode, by seed of the videos, of what heads get wrong, of the users and of the search. In each: the
best static weights, the best linear policy that follows the state (the oracle), both by CMA-ES with common random
numbers, and static weights that are best for one request (myopic). All are compared on 20,000 sessions that no search
has seen. Accepted are worlds of mode A whose headroom is at most 0.5 %, and of mode C with 10 % at least.

Writes benchmarks/results/<date>-simulator-certificate.json and .md after every world, and goes on where it stopped.
"""

import argparse
import platform
import shlex
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from polyrank.files import read_json, write_json, write_text
from polyrank.fusion.explore import BoundedUniform
from polyrank.fusion.policy import StaticPolicy
from polyrank.progress import Terminal
from polyrank.simulator.certificate import CertificateConfig, certificate
from polyrank.simulator.sessions import simulate
from polyrank.simulator.world import World, WorldConfig

MODES = ("a", "c", "b", "d")
CONFIG = CertificateConfig()
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Certify what is not certified yet, in two processes; write after each world."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    path = RESULTS / f"{date.today().isoformat()}-simulator-certificate.json"
    plan = {"config": asdict(CONFIG), "world": asdict(WorldConfig())}
    document = read_json(path) if path.exists() else {}
    if any(document.get(name) != value for name, value in plan.items()):
        document = {**plan, "worlds": []}
    document |= {"command": "python " + shlex.join(sys.argv), "python": platform.python_version()}
    known = {(world["mode"], world["seed"]) for world in document["worlds"]}
    todo = [(mode, seed) for mode in MODES for seed in range(seeds) if (mode, seed) not in known]
    with Terminal().bar("worlds", len(todo), "worlds") as bar, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for work in as_completed([pool.submit(certified, *each) for each in todo]):
            found = work.result()
            document["worlds"].append(found)
            save(document, path)
            bar.advance(1, f"{found['mode']} {found['seed']}: headroom {found['oracle']['gain']:+.2%}")
    if "speed" not in document:
        document["speed"] = speed()
        save(document, path)
    print(page(document))


def certified(mode: Any, seed: int) -> dict[str, Any]:
    """One world."""
    began = time.process_time()
    found = certificate(WorldConfig(mode=mode, seed=seed), CONFIG, 1_000 * (seed + 1))
    return found | {"cpu_seconds": round(time.process_time() - began, 1)}


def save(document: dict[str, Any], path: Path) -> None:
    """Write the numbers, and the page of them."""
    write_json(path, document)
    write_text(path.with_suffix(".md"), page(document))


def speed(sessions: int = 50_000) -> dict[str, float]:
    """Processor seconds of a log of mode C, on one core, without writing it."""
    world = World(WorldConfig(mode="c"))
    explorer = BoundedUniform(StaticPolicy(world.static_start()), 0.7)
    began = time.process_time()
    log = simulate(world, explorer, sessions, seed=0)
    return {"sessions": sessions, "requests": len(log.rewards), "cpu_seconds": time.process_time() - began}


def page(document: dict[str, Any]) -> str:
    """The tables."""
    worlds = sorted(document["worlds"], key=lambda world: (world["mode"], world["seed"]))
    config = document["config"]
    lines = [
        "# Certificate of the session simulator",
        "",
        f"`{document['command']}`; {config['judged']:,} sessions each, ± standard error of the paired difference.",
        "Per cent are of the mean return of the best static weights; for stale ones, which were searched in the first",
        "half of the days and are judged in the other, of those that are best there. In the box: the oracle whose",
        f"weights stay within ± {config['half']} of the best static ones (of mean |w| = 1).",
        "",
        "| mode | seed | static, return | headroom | in the box | myopic | stale | accepted |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for world in worlds:
        cells = [share(world.get(name)) for name in ("oracle", "bounded", "myopic", "stale")]
        verdict = {True: "yes", False: "**no**", None: ""}[world["accepted"]]
        value = f"{world['static']['value']:.3f}"
        lines.append(f"| {world['mode'].upper()} | {world['seed']} | {value} | {' | '.join(cells)} | {verdict} |")
    lines += ["", "| mode | headroom, mean | least | most | worlds |", "|---|---:|---:|---:|---:|"]
    for mode in sorted({world["mode"] for world in worlds}):
        gains = [world["oracle"]["gain"] for world in worlds if world["mode"] == mode]
        spread = f"{statistics.mean(gains):+.2%} | {min(gains):+.2%} | {max(gains):+.2%}"
        lines.append(f"| {mode.upper()} | {spread} | {len(gains)} |")
    seconds = sum(world["cpu_seconds"] for world in worlds)
    lines += ["", f"{seconds:.0f} seconds of processor time."]
    if "speed" in document:
        own = document["speed"]
        length, pace = own["requests"] / own["sessions"], own["sessions"] / own["cpu_seconds"]
        lines.append(
            f"A log of {own['sessions']:,} sessions of mode C, {length:.2f} requests each, takes "
            f"{own['cpu_seconds']:.1f} seconds of one core: {pace:,.0f} sessions a second."
        )
    return "\n".join([*lines, ""])


def share(found: dict[str, Any] | None) -> str:
    """`+18.4 % ± 0.4`."""
    return "–" if found is None else f"{found['gain']:+.2%} ± {100 * found['error']:.2f}"


if __name__ == "__main__":
    main()
