"""What a training's `history.jsonl` tells, column by column: a line an evaluation becomes an entry of every list."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrank.errors import RunError

_OF_ALL = ("rows", "step", "metric", "best")
_BY_TASK = ("losses", "weights", "norms")  # of what a balancer did, by task


def read_history(path: Path, tasks: Sequence[str], points: int = 100) -> dict[str, Any]:
    """The columns of a history.

    Args:
        path: a run's `history.jsonl`.
        tasks: the tasks that it was trained on.
        points: of what the balancer did at most so many: neighbours are averaged.

    Returns:
        `rows`, `step`, `metric`, `best`: an entry an evaluation. `train_loss`, `valid`: such a list for each task. And
        where there is a record of it, `balance`: `step`; `losses`, `weights` and `norms` (of gradients over what is
        shared) by task; `cosines`, a `[T, T]` matrix each, rows and columns in the order of `tasks`. What is not known
        is None.

    Raises:
        RunError: a line is damaged.
    """
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError("a run's history must be whole", received=f"{path}: {error}", mend="train again") from error
    found: dict[str, Any] = {key: [line.get(key) for line in lines] for key in _OF_ALL}
    for key in ("train_loss", "valid"):
        found[key] = {task: [_of(line.get(key), task) for line in lines] for task in tasks}
    record = [point for line in lines for point in line.get("balance") or []]
    return found | ({"balance": _balance(record, tasks, points)} if record else {})


def _balance(record: Sequence[Mapping[str, Any]], tasks: Sequence[str], points: int) -> dict[str, Any]:
    """Columns of the balancer's record, in which `width` neighbours become one."""
    width = -(-len(record) // points)
    parts = [record[start : start + width] for start in range(0, len(record), width)]
    by_task = {
        key: {task: [_mean(_of(point.get(key), task) for point in part) for part in parts] for task in tasks}
        for key in _BY_TASK
    }
    matrices = [[point["cosines"] for point in part if point.get("cosines")] for part in parts]
    places = range(len(tasks))
    cosines = [[[_mean(m[i][j] for m in some) for j in places] for i in places] for some in matrices]
    return {"step": [part[-1].get("step") for part in parts]} | by_task | {"cosines": cosines}


def _of(by_task: Mapping[str, Any] | None, task: str) -> Any:
    return (by_task or {}).get(task)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
