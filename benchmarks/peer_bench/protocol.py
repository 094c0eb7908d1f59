"""How the benchmark talks to its workers: one JSON object a line each way. Runs in every environment: numpy alone."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def serve(commands: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests `{"do": command, …}` until the pipe closes; what libraries print goes to the log."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = commands[request.pop("do")](**request)
            except Exception:  # noqa: BLE001  # whatever it was, the other side must hear of it
                answer = {"error": traceback.format_exc()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


@dataclass(frozen=True)
class Inputs:
    """Encoded rows: `ids` `[N, F]` int32, each column from 0; `numbers` `[N, D]` and `labels` `[N, T]` float32."""

    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray


def read(folder: str, part: str, rows: int | None = None, tasks: int | None = None) -> Inputs:
    """The first `rows` rows of a part, with the labels of the first `tasks` tasks (None: all), copied into memory."""
    arrays = [np.load(Path(folder) / f"{part}_{name}.npy", mmap_mode="r") for name in ("ids", "numbers", "labels")]
    ids, numbers, labels = (np.array(array[:rows]) for array in arrays)
    return Inputs(ids, numbers, np.ascontiguousarray(labels[:, :tasks]))


def request_of(data: Inputs, rows: int) -> Inputs:
    """One user with `rows` candidates: the left half of the id columns is the first row's in every row."""
    ids = data.ids[:rows].copy()
    ids[:, : ids.shape[1] // 2] = ids[0, : ids.shape[1] // 2]
    return Inputs(ids, data.numbers[:rows].copy(), data.labels[:rows].copy())


def shape(folder: str) -> dict[str, list[int]]:
    """`sizes`: the ids of every column; `dense`: the number column that belongs to it, −1 for none."""
    found: dict[str, list[int]] = json.loads((Path(folder) / "shape.json").read_text())
    return found


def peak() -> dict[str, Any]:
    """The largest resident size this process has had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return {"peak": int(line.split()[1]) * 1024}
    raise RuntimeError("the peak size is read from /proc/self/status, which has no VmHWM here")
