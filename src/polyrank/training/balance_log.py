"""What balancing did over time, for `history.jsonl`: means over windows of steps. T tasks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyrank.training.sums import Sums

POINTS = 50  # an epoch


class BalanceLog:
    """Losses, weights, gradient norms and cosines, summed step by step; numbers are read at the end of a window.

    Args:
        tasks: the T names.
        window: the steps of a window.
    """

    def __init__(self, tasks: Sequence[str], window: int) -> None:
        self.tasks, self.window = list(tasks), window
        count = len(self.tasks)
        self.points: list[dict[str, Any]] = []
        # losses, weights, steps with the task
        self.sums = Sums(lambda losses, weights, here: (losses * here, weights * here, here), 3, count)
        self.gradients = torch.zeros(3, count, count, dtype=torch.float64)  # norms (diagonal), cosines, steps with both
        self.steps = 0

    @property
    def last(self) -> bool:
        """Whether the coming step is a window's last."""
        return self.steps + 1 == self.window

    def add(self, step: int, losses: Tensor, present: Tensor, weights: Tensor, gramian: Tensor | None) -> None:
        """Take in a step: its number, `[T]` losses, presence and weights, and the `[T, T]` Gramian if there is one."""
        self.sums.add(losses, weights.clone(), present)  # of weights it is not known whether they are changed in place
        if gramian is not None and bool(torch.isfinite(gramian).all()):
            norms = gramian.diagonal().clamp(min=0).sqrt()
            here = present.double()
            able = here * (norms > 0)
            both = able[:, None] * able
            cosines = gramian / torch.where(both > 0, norms[:, None] * norms, 1.0) * both
            self.gradients += torch.stack([torch.diag(norms * here), cosines, both])
        self.steps += 1
        if self.steps == self.window:
            self._close(step)

    def take(self, step: int) -> list[dict[str, Any]]:
        """All points since the last call, one for the window that is under way among them."""
        if self.steps:
            self._close(step)
        points, self.points = self.points, []
        return points

    def _close(self, step: int) -> None:
        losses, weights, steps = self.sums.total()
        norms, cosines, both = self.gradients
        means = {"losses": losses / steps, "weights": weights / steps, "norms": norms.diagonal() / both.diagonal()}
        by_task = {
            key: {name: _number(v) for name, v in zip(self.tasks, mean.tolist(), strict=True)}
            for key, mean in means.items()
        }
        matrix = [[_number(v) for v in row] for row in (cosines / both).tolist()]
        self.points.append({"step": step} | by_task | {"cosines": matrix})
        self.sums.clear()
        self.gradients.zero_()
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The window under way and the points not yet taken."""
        return {"sums": self.sums.total(), "gradients": self.gradients, "steps": self.steps, "points": self.points}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.sums.load(state["sums"])
        self.gradients.copy_(state["gradients"])
        self.steps, self.points = int(state["steps"]), list(state["points"])


def _number(value: float) -> float | None:
    """Six digits; null for what was never seen."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
