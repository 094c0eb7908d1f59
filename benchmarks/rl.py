"""Learners of policies beside d3rlpy 2.8.1, on one log of a problem whose optimum is known.

    python benchmarks/rl.py [--only values speed latency] [--steps 8000] [--seeds 3] [--sessions 20000] [--quick]

Values: BCQ (BatchRL-MTF), CQL, IQL and TD3+BC with the same networks, rates, batches and constants on the same log: how
much of the optimum's value each reaches, and of what the optimum gains over the best fixed weights. Speed: updates of
BCQ a second, the two sides taking turns in one run. Latency: one state through a saved policy. Makes d3rlpy's
environment in benchmarks/.d3rlpy.
Writes benchmarks/results/<date>-rl-learners.json and a table beside it, anew after each part; `--quick` writes to
benchmarks/.d3rlpy. Speed asks for an idle machine.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyrank.fusion.learners.learning import Experience
from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import Box, Policy, load_policy, save_policy
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent
from polyrank.simulator.linear_quadratic import LinearQuadratic

HERE = Path(__file__).parent
ENVIRONMENT, REQUIREMENTS = HERE / ".d3rlpy/env", HERE / "d3rlpy_requirements.txt"
PROBLEM, WIDTH = LinearQuadratic(), 1.5  # the optimum leaves ±1.5 in 0.2 % of its steps, as they are discounted
COMMON: dict[str, Any] = {
    "gamma": 0.95, "hidden": (64, 64), "learning_rate": 1e-3, "batch_size": 128, "averaging": 0.01,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "batchrl_mtf": {"rho": 1.0, "candidates": 10},  # the log is even over the box: nothing to hold to within it
    "cql": {"conservative": 0.2, "samples": 10},
    "iql": {"temperature": 10.0, "expectile": 0.7},
    "td3_bc": {"alpha": 20.0},
}
OURS: dict[str, Any] = {"hidden": (64, 64), "candidates": 10, "batch_size": 256}  # BatchRL-MTF's by default
MORE = OURS | {"candidates": 100}  # d3rlpy's number, with small networks
THEIRS: dict[str, Any] = {"hidden": (256, 256), "candidates": 100, "batch_size": 100}  # d3rlpy's by default
FEW = THEIRS | {"candidates": 4}  # its networks and batches: the log is even over the box, and ρ reaches all of it
BOTH = ("ours", "d3rlpy")
# What is learned: the method, its knobs, and the sides that know it. The last: BCQ by its sizes.
LEARNED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    **{method: (method, COMMON | own, BOTH) for method, own in OWN.items()},
    "unified_rl": ("unified_rl", COMMON | {"reach": 1.0, "critics": 8, "every": 1}, ("ours",)),
    "BCQ, our sizes": ("batchrl_mtf", COMMON | OWN["batchrl_mtf"] | OURS, ("ours",)),
    "BCQ, d3rlpy's sizes": ("batchrl_mtf", COMMON | OWN["batchrl_mtf"] | THEIRS, ("d3rlpy",)),
    "BCQ, d3rlpy's but four candidates": ("batchrl_mtf", COMMON | OWN["batchrl_mtf"] | FEW, BOTH),
}
SIZES = ((OURS, OURS), (MORE, MORE), (THEIRS, THEIRS), (FEW, FEW), (FEW, THEIRS), (OURS, THEIRS))  # ours, d3rlpy's


def their_python() -> Path:
    """The interpreter of d3rlpy's environment, made anew where its requirements have changed."""
    stamp, python = ENVIRONMENT / "made_from.txt", ENVIRONMENT / "bin/python"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        print("making d3rlpy's environment (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        subprocess.run([*install, str(REQUIREMENTS)], check=True)
        stamp.write_text(REQUIREMENTS.read_text())
    return python


class Theirs:
    """d3rlpy's process; acts as a policy of the problem."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, data: Experience) -> None:
        self.process, self.folder, self.data = process, folder, data

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request, its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("d3rlpy's process has ended: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def act(self, states: Any) -> Any:
        """`[N, S]` → `[N, K]`."""
        of, to = self.folder / "states.npy", self.folder / "actions.npy"
        np.save(of, self.data.standard(states))
        self.ask(do="act", of=str(of), to=str(to))
        return self.data.box.weights(np.clip(np.load(to), -1, 1))


@contextmanager
def theirs(log: SessionLog, threads: int) -> Iterator[Theirs]:
    """Their process with the log that our learners see: standardised, of [−1, 1] actions, rewards of deviation 1."""
    box = Box.of(log)
    data = Experience(log, box)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        last = np.zeros(len(log.done), np.bool_)
        last[log.starts[1:] - 1] = True
        arrays = {"states": data.standard(log.states), "actions": box.normalised(log.actions)}
        rewards = (log.rewards / data.unit).astype(np.float32)
        np.savez(folder / "log.npz", rewards=rewards, terminals=log.done, timeouts=last & ~log.done, **arrays)
        command = [str(their_python()), str(HERE / "rl_theirs.py"), str(threads), str(folder / "log.npz")]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            yield Theirs(process, folder, data)
            assert process.stdin is not None
            process.stdin.close()


def fitted(method: str, log: SessionLog, knobs: dict[str, Any]) -> Policy:
    """Ours."""
    known = METHODS[method]
    return known.fit(log, Box.of(log), known.config(**knobs), Silent()).policy


def values(
    log: SessionLog, peer: Theirs, given: argparse.Namespace, say: Any, keep: Any, found: dict[str, Any]
) -> dict[str, Any]:
    """What each method reaches, by side and seed, added to what was found; `keep` is given what there is after each."""
    for name in given.methods:
        method, knobs, known = LEARNED[name]
        sides: dict[str, list[dict[str, float]]] = {side: [] for side in known}
        for seed in range(given.seeds):
            for side, measured in sides.items():
                if side == "ours":
                    actor: Any = fitted(method, log, knobs | {"steps": given.steps, "seed": seed})
                else:
                    peer.ask(do="build", method=method, knobs=knobs, seed=seed)
                    peer.ask(do="fit", steps=given.steps)
                    actor = peer
                measured.append({"reached": PROBLEM.reached(actor, 500), "share": PROBLEM.share(actor, 500)})
                say(f"{name}, seed {seed}, {side}: {measured[-1]}")
        found = found | {name: {"knobs": knobs, "steps": given.steps, "sides": sides}}
        keep(found)
    return found


def speed(log: SessionLog, peer: Theirs, given: argparse.Namespace, say: Any) -> list[dict[str, Any]]:
    """Updates a second of whole fits, by size; the sides take turns."""
    found = []
    for sizes in SIZES:
        size = dict(zip(BOTH, sizes, strict=True))
        knobs = {side: COMMON | OWN["batchrl_mtf"] | own for side, own in size.items()}
        products = {side: own["candidates"] * own["hidden"][0] for side, own in size.items()}
        steps = {side: max(20, given.timed * 640 // products[side]) for side in size}
        rates: dict[str, list[float]] = {"ours": [], "d3rlpy": []}
        peer.ask(do="build", method="batchrl_mtf", knobs=knobs["d3rlpy"], seed=0)
        peer.ask(do="fit", steps=10)
        fitted("batchrl_mtf", log, knobs["ours"] | {"steps": 10})
        for number in range(given.rounds):
            for side in BOTH if number % 2 == 0 else reversed(BOTH):
                time.sleep(0.2)
                began = time.perf_counter()
                if side == "ours":
                    fitted("batchrl_mtf", log, knobs[side] | {"steps": steps[side]})
                else:
                    peer.ask(do="fit", steps=steps[side])
                rates[side].append(steps[side] / (time.perf_counter() - began))
        ratios = [a / b for a, b in zip(rates["ours"], rates["d3rlpy"], strict=True)]
        found.append({"sizes": size, "updates": steps, "updates_per_second": rates, "ratio": statistics.median(ratios)})
        say(f"{size}: {found[-1]['ratio']:.1f} times d3rlpy's updates a second")
    return found


def latency(log: SessionLog, say: Any) -> dict[str, Any]:
    """Microseconds of one state through a policy that was saved and read, and how far that is from the fitted one."""
    found = {}
    for method in ("batchrl_mtf", "unified_rl"):
        policy = fitted(method, log, COMMON | {"steps": 20})
        with tempfile.TemporaryDirectory() as folder:
            save_policy(policy, Path(folder))
            served = load_policy(Path(folder))
        states = log.states[:1_000]
        taken = []
        for at in range(len(states)):
            began = time.perf_counter()
            served.act(states[at : at + 1])
            taken.append(1e6 * (time.perf_counter() - began))
        apart = float(np.abs(served.act(states) - policy.act(states)).max())
        found[method] = {"p50_us": float(np.median(taken)), "p99_us": float(np.quantile(taken, 0.99)), "apart": apart}
        say(f"{method}: {found[method]}")
    return found


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    lines = [f"# Learners of policies, {document['date']}", "", f"`{document['command']}`", "", document["note"], ""]
    for key, title in (
        ("reached", "V* / V, optimum over reached, both negative"),
        ("share", "Share of (optimum − best fixed weights)"),
    ):
        if "values" in document:
            lines += [f"{title}, by seed:", "", "| method | ours | d3rlpy 2.8.1 |", "|---|---|---|"]
            for method, of in document["values"].items():
                sides = [" ".join(f"{one[key]:.3f}" for one in of["sides"].get(side, [])) for side in BOTH]
                lines.append(f"| {method} | {sides[0]} | {sides[1]} |")
            lines.append("")
    if "speed" in document:
        lines += ["Updates of BCQ a second, median of rounds that alternate:", ""]
        lines += [
            "| ours, hidden × candidates × batch | d3rlpy's | ours | d3rlpy | ratio |",
            "|---|---|---:|---:|---:|",
        ]
        for of in document["speed"]:
            ours, peers = (statistics.median(of["updates_per_second"][side]) for side in BOTH)
            size = " | ".join(
                f"{tuple(own['hidden'])} × {own['candidates']} × {own['batch_size']}" for own in of["sizes"].values()
            )
            lines.append(f"| {size} | {ours:,.0f} | {peers:,.0f} | {of['ratio']:.1f} |")
        lines += [
            "",
            "The knobs besides sizes are the same. In the last row each has its own default sizes; in the one before",
        ]
        lines += ["it ours has d3rlpy's networks and batches, but few candidates, beside d3rlpy's default sizes."]
    if "latency" in document:
        lines += [
            "",
            "One state, µs:",
            "",
            "| policy | p50 | p99 | saved and read, largest difference |",
            "|---|---:|---:|---:|",
        ]
        for method, of in document["latency"].items():
            lines.append(f"| {method} | {of['p50_us']:.0f} | {of['p99_us']:.0f} | {of['apart']:.1g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=("values", "speed", "latency"), default=("values", "speed", "latency")
    )
    parser.add_argument("--steps", type=int, default=8_000, help="updates of each fit whose value is taken")
    parser.add_argument("--methods", nargs="+", choices=LEARNED, default=list(LEARNED), help="whose values are taken")
    parser.add_argument("--timed", type=int, default=300, help="updates of a timed round at 10 candidates")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--note", default="", help="what the machine was doing, for the table")
    parser.add_argument("--quick", action="store_true", help="for development: small amounts, no results")
    given = parser.parse_args()
    if given.quick:
        given.steps, given.timed, given.rounds, given.seeds = 30, 10, 1, 1
    torch.set_num_threads(given.threads)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{(time.monotonic() - began) / 60:.1f} min] {text}", flush=True)

    def keep(name: str, found: Any) -> None:
        document[name] = found
        target.write_text(json.dumps(document, indent=1) + "\n")
        target.with_suffix(".md").write_text(table(document))

    target = HERE / (".d3rlpy" if given.quick else "results") / f"{date.today().isoformat()}-rl-learners.json"
    document: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    log = PROBLEM.log(given.sessions, width=WIDTH, seed=1)
    document |= {
        "format": 1,
        "date": date.today().isoformat(),
        "command": " ".join(["python benchmarks/rl.py", *sys.argv[1:]]),
        "note": given.note,
        "machine": {"system": platform.platform(), "python": platform.python_version(), "threads": given.threads},
        "problem": {"sessions": given.sessions, "steps": len(log.rewards), "width": WIDTH},
    }
    with theirs(log, given.threads) as peer:
        parts = {
            "latency": lambda: latency(log, say),
            "speed": lambda: speed(log, peer, given, say),
            "values": lambda: values(
                log, peer, given, say, lambda found: keep("values", found), document.get("values", {})
            ),
        }
        for name, part in parts.items():
            if name in given.only:
                keep(name, part())
    print(f"\n{table(document)}")


if __name__ == "__main__":
    main()
