"""Fusion policies learned from logs alone, in simulated worlds whose truth is known: do they beat the best formula?

    python benchmarks/rl_sessions.py [--plan full|smoke] [--jobs 2] [--out runs/rl_sessions] [--report]

Each world (mode C: users differ and bait has a price later; mode A: what is best at once is best) has its best static
formula, by CMA-ES in the simulator, and its oracle. From a log of 200,000 sessions with bounded exploration around that
formula every method learns a policy; no method sees the simulator. Policies, and each one's matched static formula, are
then valued in the simulator on users and luck that are the same for all. The off-policy estimators read other sessions
of the same exploration, and are compared with the truth.

Settings were tuned on worlds of other seeds, where the best method was chosen, too: it alone is run in all ten worlds,
and in mode A.
A finished unit of work is kept: the same command goes on. Writes benchmarks/results/<date>-rl-sessions.{json,md}.
"""

import argparse
from datetime import date
from pathlib import Path

from rl_study.plan import BEST, NOTES, PLANS, SETTINGS
from rl_study.report import bars, page
from rl_study.tables import agreement, read_worlds, summary
from rl_study.units import Unit, run

from polyrank.files import write_json, write_text
from polyrank.fusion.methods import METHODS
from polyrank.progress import Terminal
from polyrank.training.pool import Job, run_all

HERE = Path(__file__).parent
FEW, ALL = range(10, 13), range(10, 20)


def main() -> None:
    """Run what is not there yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=list(PLANS), default="full", help="smoke: minutes, to see that it runs")
    parser.add_argument("--jobs", type=int, default=2, help="worlds side by side, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/rl_sessions"), help="where units of work are kept")
    parser.add_argument("--report", action="store_true", help="only report on what is there")
    given = parser.parse_args()
    plan, names = PLANS[given.plan], tuple(METHODS)
    units = [Unit("c", seed, (BEST,), False, plan, given.out) for seed in ALL if seed not in FEW]
    units += [Unit("c", seed, names, True, plan, given.out) for seed in FEW]
    units += [Unit("a", seed, (BEST,), False, plan, given.out) for seed in FEW]
    if not given.report:
        run_all([Job(f"{unit.mode} {unit.seed}", run, (unit,)) for unit in units], given.jobs, Terminal())
    worlds = {mode: read_worlds(given.out, mode, ALL) for mode in ("c", "a")}
    command = f"python benchmarks/rl_sessions.py --plan {given.plan}"
    document = {
        "command": command,
        "best": BEST,
        "notes": list(NOTES),
        "settings": {name: dict(settings) for name, settings in SETTINGS.items()},
        "modes": {mode: summary(found, names) for mode, found in worlds.items()},
        "estimators": {seed: agreement(world) for seed, world in worlds["c"].items() if world["estimates"]},
    }
    document["bars"] = bars(document)
    text = page(document, worlds["c"])
    print(text)
    if given.plan == "full":
        target = HERE / f"results/{date.today().isoformat()}-rl-sessions"
        write_json(target.with_suffix(".json"), document)
        write_text(target.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
