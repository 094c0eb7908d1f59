"""Polyrank beside DeepCTR-Torch 0.3.0 and torch-rechub 0.9.0: the same models on the same data, alternating in one run.

    python benchmarks/peers.py [--quick] [--only census_mmoe memory …] [--rounds 5] [--seeds 5] [--scratch DIR]

Makes an environment of its own for the peers in benchmarks/.peers/. Writes benchmarks/results/<date>-peers.json (every
raw value) and a Markdown table beside it, anew after each section; `--only` measures single sections anew and leaves
the others of that day's file as they are. `--quick` is for development: small amounts, results in benchmarks/.peers/.
Nothing else should run beside it; it needs 20 GiB of memory (or less, and 10 GiB of disk
below --scratch).
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from peer_bench.data import write_census, write_zipf
from peer_bench.sections import QUICK, Amounts, Case, accuracy, growth, memory, roofline, speed
from peer_bench.sides import Bench, peers_python
from peer_bench.tables import markdown

HERE = Path(__file__).parent
# Minutes of a full run on two cores, for the time left.
MINUTES = {"census_mmoe": 6, "census_ple": 8, "large_mmoe": 8, "memory": 4, "roofline": 6, "growth": 7, "auc": 28}
SCRATCH_BYTES = 10 * 2**30
EMPTY: dict[str, Any] = {"format": 1, "commands": [], "runs": {}, "sections": {}}
VECTOR_UNITS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")


def machine(threads: int) -> dict[str, Any]:
    """What this runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": facts.get("model name", platform.processor()),
        "cpu_family_model_stepping": [facts.get(key) for key in ("cpu family", "model", "stepping")],
        "cores": os.cpu_count(),
        "threads": threads,
        "flags": [flag for flag in VECTOR_UNITS if flag in flags],
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def scratch() -> Path:
    """Memory where there is enough: checkpoints of gigabytes, though not timed, keep a disk busy for long after."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > SCRATCH_BYTES:
        return shared
    return Path(tempfile.gettempdir())


class Clock:
    """Prints progress with the time left, by the usual minutes of the sections and the pace so far."""

    def __init__(self, sections: list[str], *, quick: bool) -> None:
        self.began, self.total = time.monotonic(), sum(MINUTES[name] for name in sections)
        self.done, self.section, self.quick = 0, "", quick

    def start(self, section: str) -> None:
        """A section begins."""
        self.section, self.section_began = section, time.monotonic()
        print(f"\n== {section}", flush=True)

    def note(self, text: str) -> None:
        """A line."""
        now = time.monotonic()
        spent = f"{(now - self.began) / 60:.1f} min"
        ahead = min((now - self.section_began) / 60, MINUTES[self.section])
        left = "" if self.quick else f", about {max(self.total - self.done - ahead, 1):.0f} left"
        print(f"[{spent}{left}] {self.section}: {text}", flush=True)

    def end(self) -> None:
        """A section has ended."""
        self.done += MINUTES[self.section]


class Data:
    """Writes each data set when it is first needed."""

    def __init__(self, folder: Path, amounts: Amounts) -> None:
        self.folder, self.amounts = folder, amounts

    def census(self) -> str:
        """Its folder."""
        place = self.folder / "census"
        if not place.exists():
            write_census(place)
        return str(place)

    def large(self) -> str:
        """Its folder."""
        place = self.folder / "large"
        if not place.exists():
            rows = {"train": self.amounts.large_rows_ours, "valid": 4_096, "test": self.amounts.predict_rows}
            write_zipf(place, rows, features=26, ids=1_000_000, tasks=2)
        return str(place)


def planned(bench: Bench, data: Data, amounts: Amounts, precisions: list[str], note: Callable[[str], None]) -> Any:
    """Every section by its name, ready to be called."""

    def census(model: str, batch: int = 1_024) -> Case:
        return Case(data.census(), model, batch, "adam")

    def large(batch: int = 4_096) -> Case:
        return Case(data.large(), "mmoe", batch, "adagrad")

    def steps() -> dict[str, Any]:
        cases = {f"census_{batch}": census("mmoe", batch) for batch in (1_024, 4_096)}
        cases |= {f"large_{batch}": large(batch) for batch in (1_024, 4_096)}
        return roofline(bench, cases, amounts, precisions, note)

    models = ("mmoe", "ple")
    return {
        "census_mmoe": lambda: speed(bench, census("mmoe"), amounts, note, large=False),
        "census_ple": lambda: speed(bench, census("ple"), amounts, note, large=False),
        "large_mmoe": lambda: speed(bench, large(), amounts, note, large=True),
        "memory": lambda: memory(bench, large(), amounts, note),
        "roofline": steps,
        "growth": lambda: growth(bench, data.folder, amounts, note),
        "auc": lambda: accuracy(bench, {f"census_{model}": census(model) for model in models}, amounts, note),
    }


def main() -> None:
    """Measure, and write after each section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=MINUTES, default=list(MINUTES), metavar="SECTION")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument(
        "--scratch", type=Path, help="for data and runs; otherwise memory where it suffices, or the temporary directory"
    )
    given = parser.parse_args()
    amounts = QUICK if given.quick else Amounts()
    amounts = replace(amounts, **{name: of for name in ("rounds", "seeds") if (of := getattr(given, name))})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what lies in memory is taken away
    with tempfile.TemporaryDirectory(dir=(given.scratch or scratch()).resolve()) as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder  # for everything here and in the workers
        measure(given.only, amounts, Path(folder), quick=given.quick)


def measure(wanted: list[str], amounts: Amounts, folder: Path, *, quick: bool) -> None:
    """Run the sections, write the document after each."""
    threads = os.cpu_count() or 1
    bench = Bench(peers_python(), threads, ("ours", "deepctr", "rechub"), {"ours_float32": {"precision": "float32"}})
    with bench.sides(["ours", "deepctr"]) as sides:
        versions = {"ours": sides["ours"].ask("versions"), "peers": sides["deepctr"].ask("versions")}
    facts = machine(threads)
    precisions = ["float32"]
    if versions["ours"].pop("precision") == "bf16":
        # Where `auto` means bf16, the float32 numbers stand beside it.
        bench = replace(bench, names=("ours", "ours_float32", "deepctr", "rechub"))
        precisions.append("bf16")

    name = f"{date.today().isoformat()}-peers"
    target = HERE / (f".peers/{name}-quick" if quick else f"results/{name}")
    path = target.with_suffix(".json")
    document = json.loads(path.read_text()) if path.exists() else dict(EMPTY)
    options = [part for part in sys.argv[1:] if not part.startswith("/")]
    document |= {"date": date.today().isoformat(), "machine": facts, "versions": versions, "quick": quick}
    document |= {"amounts": asdict(amounts)}
    command = " ".join(["python benchmarks/peers.py", *options])
    document["commands"].append(command)
    clock = Clock(wanted, quick=quick)
    sections = planned(bench, Data(folder, amounts), amounts, precisions, clock.note)
    for section in wanted:
        clock.start(section)
        began = time.monotonic()
        document["sections"][section] = sections[section]()
        minutes = round((time.monotonic() - began) / 60, 2)
        document["runs"][section] = {"command": command, "minutes": minutes, "amounts": asdict(amounts)}
        path.write_text(json.dumps(document, indent=1) + "\n")
        target.with_suffix(".md").write_text(markdown(document))
        clock.end()
    print(f"\n{markdown(document)}")


if __name__ == "__main__":
    main()
