"""What a training's `history.jsonl` tells, column by column: a line an evaluation becomes an entry of every list."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrank.errors import RunError

# What a balancer may record, by task; a history without it is whole all the same.
BALANCE = ("weights", "gradient_norms")


def read_history(path: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """The columns of a history.

    Args:
        path: a run's `history.jsonl`.
        tasks: the tasks that it was trained on.

    Returns:
        `rows`, `step`, `metric`, `best`: an entry an evaluation. `train_loss`, `valid`: such a list for each task; and
        `weights`, `gradient_norms` likewise, `cosines` with a `[T, T]` matrix an evaluation (rows and columns in the
        order of `tasks`), where the balancer recorded them. What one line lacks is None there.

    Raises:
        RunError: a line is damaged.
    """
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError("a run's history must be whole", received=f"{path}: {error}", mend="train again") from error
    found: dict[str, Any] = {key: [line.get(key) for line in lines] for key in ("rows", "step", "metric", "best")}
    for key in ("train_loss", "valid", *BALANCE):
        columns = {task: [_of(line.get(key), task) for line in lines] for task in tasks}
        if key not in BALANCE or any(value is not None for column in columns.values() for value in column):
            found[key] = columns
    matrices = [line.get("cosines") for line in lines]
    if any(matrices):
        found["cosines"] = matrices
    return found


def _of(by_task: Mapping[str, Any] | None, task: str) -> Any:
    return (by_task or {}).get(task)
