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
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from polyrank.files import read_json, write_json, write_text
from polyrank.progress import Terminal
from polyrank.simulator.certificate import CertificateConfig, certificate
from polyrank.simulator.world import WorldConfig

MODES = ("a", "c", "b", "d")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Certify what is not certified yet; write after each world."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    config, progress = CertificateConfig(), Terminal()
    path = RESULTS / f"{date.today().isoformat()}-simulator-certificate.json"
    plan = {"config": asdict(config), "world": asdict(WorldConfig())}
    document = read_json(path) if path.exists() else {}
    if any(document.get(name) != value for name, value in plan.items()):
        document = {**plan, "worlds": []}
    known = {(world["mode"], world["seed"]) for world in document["worlds"]}
    todo = [(mode, seed) for mode in MODES for seed in range(seeds) if (mode, seed) not in known]
    with progress.bar("worlds", len(todo), "worlds") as bar:
        for mode, seed in todo:
            began = time.process_time()
            found = certificate(WorldConfig(mode=mode, seed=seed), config, 1_000 * (seed + 1), progress)
            found["cpu_seconds"] = round(time.process_time() - began, 1)
            document["worlds"].append(found)
            document |= {"command": "python " + shlex.join(sys.argv), "python": platform.python_version()}
            write_json(path, document)
            write_text(path.with_suffix(".md"), page(document))
            bar.advance(1, f"{mode} {seed}: headroom {found['oracle']['gain']:+.2%}")
    print(page(document))


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
    return "\n".join([*lines, "", f"{seconds:.0f} seconds of processor time.", ""])


def share(found: dict[str, Any] | None) -> str:
    """`+18.4 % ± 0.4`."""
    return "–" if found is None else f"{found['gain']:+.2%} ± {100 * found['error']:.2f}"


if __name__ == "__main__":
    main()
