"""The best evaluation overall, each task's own, and when a task has had enough."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


class TaskBests:
    """What validation found at the best step overall, what each task was best at, and whether it still trains.

    Args:
        tasks: their names.
        patience: evaluations without a new best of its own after which a task stops training; 0 for never.
    """

    def __init__(self, tasks: Sequence[str], patience: int) -> None:
        self.tasks, self.patience = tuple(tasks), patience
        self.overall: dict[str, Any] = {}
        self.own: dict[str, dict[str, Any]] = {task: {"step": -1, "valid": None, "since": 0} for task in tasks}

    def note(self, values: Mapping[str, float], step: int, *, overall: bool) -> list[str]:
        """Take an evaluation.

        Args:
            values: each task's metric, nan where it is unknown.
            step: when.
            overall: whether it is the best overall.

        Returns:
            The tasks that were never better.
        """
        if overall:
            self.overall = {"step": step, "valid": {t: None if math.isnan(v) else v for t, v in values.items()}}
        better = []
        for task, value in values.items():
            own = self.own[task]
            if math.isnan(value):
                continue
            own["since"] += 1
            if own["valid"] is None or value > own["valid"]:
                own.update(step=step, valid=value, since=0)
                better.append(task)
        return better

    @property
    def stopped(self) -> dict[str, bool]:
        """Whether each task has had enough."""
        return {task: 0 < self.patience <= own["since"] for task, own in self.own.items()}

    def summary(self) -> dict[str, Any]:
        """JSON-ready: `overall`: its step and what validation found there; `per_task`: each one's best and its step."""
        own = {task: {"step": own["step"], "valid": own["valid"]} for task, own in self.own.items()}
        return {"overall": self.overall, "per_task": own}

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs."""
        return {"overall": self.overall, "own": self.own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.overall, self.own = dict(state["overall"]), {task: dict(own) for task, own in state["own"].items()}
