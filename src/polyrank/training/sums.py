"""Sums over the steps of a training that cost a step next to nothing. T tasks, R rows, n steps."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_MANY = 128  # steps that wait at most


class Sums:
    """Sums `[R, T]` float64 over steps, in their order, of the rows that `rows` makes of what each step gives.

    What steps give waits until the sums are asked for, or many have come together: a few operations on many steps cost
    less than as many on each.

    Args:
        rows: what n steps gave, `[n, T]` each, → R times `[n, T]`.
        count: R.
        tasks: T.
    """

    def __init__(self, rows: Callable[..., Sequence[Tensor]], count: int, tasks: int) -> None:
        self._rows, self._total = rows, torch.zeros(count, tasks, dtype=torch.float64)
        self._waiting: list[tuple[Tensor, ...]] = []

    def add(self, *given: Tensor) -> None:
        """What a step gives, `[T]` each, detached and never changed afterwards."""
        self._waiting.append(given)
        if len(self._waiting) == _MANY:
            self.total()

    def total(self) -> Tensor:
        """`[R, T]`: the sums themselves, no copy."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            given = (torch.stack(part) for part in zip(*waiting, strict=True))
            for step in torch.stack([row.double() for row in self._rows(*given)], dim=1):
                self._total += step
        return self._total

    def __getitem__(self, place: int | tuple[int, int]) -> Tensor:
        return self.total()[place]

    def clear(self) -> None:
        """Begin anew."""
        self._waiting.clear()
        self._total.zero_()

    def load(self, total: Tensor) -> None:
        """Go on from what `total` gave."""
        self._waiting.clear()
        self._total.copy_(total)
