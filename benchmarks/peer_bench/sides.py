"""The sides: the peers' environment, and one persistent worker process for each side."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
REQUIREMENTS = HERE / "peers_requirements.txt"
ENVIRONMENT = HERE / ".peers/env"
PAUSE = 0.2  # seconds between two sides' units, in which the threads of the last one go to sleep


def peers_python() -> Path:
    """The interpreter of the peers' environment, made anew where its requirements have changed."""
    stamp, python = ENVIRONMENT / "made_from.txt", ENVIRONMENT / "bin/python"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print("making the peers' environment (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        subprocess.run([*install, str(REQUIREMENTS)], check=True)
        stamp.write_text(wanted)
    return python


@dataclass
class Side:
    """A worker process and how to talk to it."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    fixed: dict[str, Any] = field(default_factory=dict)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request, wait for its answer.

        Raises:
            RuntimeError: the worker failed, or is gone.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        extra = self.fixed if do == "build" else {}
        self.process.stdin.write(json.dumps({"do": do, **arguments, **extra}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"gone: {self.log.read_text()[-2_000:]}"}
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {do}: {answer['error']}")
        return answer


@dataclass(frozen=True)
class Bench:
    """What all sections need: the peers' interpreter, the number of threads, and the sides that are compared."""

    peers: Path
    threads: int
    names: Sequence[str]
    fixed: Mapping[str, Mapping[str, Any]]

    @contextmanager
    def sides(self, names: Sequence[str] = ()) -> Iterator[dict[str, Side]]:
        """Fresh workers by name (all sides where no names are given); they end with the block."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            yield {name: stack.enter_context(self._side(name, folder)) for name in names or self.names}

    @contextmanager
    def _side(self, name: str, folder: Path) -> Iterator[Side]:
        kind = name.partition(":")[0]
        threads = str(self.threads)
        ours = kind.startswith("ours")
        command = (
            [sys.executable, "-m", "peer_bench.ours", threads]
            if ours
            else [str(self.peers), "-m", "peer_bench.theirs", kind, threads]
        )
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
        # Polyrank may itself come from PYTHONPATH; the peers' environment is to see nothing of it.
        places = [str(HERE), *([os.environ["PYTHONPATH"]] if ours and "PYTHONPATH" in os.environ else [])]
        log = folder / f"{name.replace(':', '_')}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                env=os.environ | limits | {"PYTHONPATH": os.pathsep.join(places)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        try:
            yield Side(name, process, log, dict(self.fixed.get(name, {})))
        finally:
            assert process.stdin is not None
            process.stdin.close()  # the worker's loop ends with its input
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def alternate(
    sides: Mapping[str, Side],
    rounds: int,
    unit: Callable[[Side], dict[str, Any]],
    label: str,
    note: Callable[[str], None],
) -> list[dict[str, dict[str, Any]]]:
    """Rounds in which every side does one unit of work, one side after another; what each answered.

    Every other round goes the other way round, so that no side always follows the same one.
    """
    done = []
    for number in range(rounds):
        order = list(sides.values())
        found: dict[str, dict[str, Any]] = {}
        for side in order if number % 2 == 0 else reversed(order):
            time.sleep(PAUSE)
            found[side.name] = unit(side)
        done.append(found)
        note(f"{label}, round {number + 1} of {rounds}")
    return done
