"""Heads: logits and labels → each row's loss; logits → predictions in the label's unit.

B rows, T tasks, L logits of all tasks together, C id columns. A task has one logit, and the loss of its kind
(`polyrank.losses`), or a head of its own with M logits (`log_normal`, `ordinal`, `cread`, `d2q`). To users every task
gives one value.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from polyrank.heads.binary import mean_cross_entropies
from polyrank.losses import HIGHEST_LOG_RATE, LOSSES, masked_mean, row_losses


class WideHead(Protocol):
    """What a head of M logits is: an `nn.Module` with constants of the training labels as buffers."""

    logits: int

    def biases(self) -> list[float]:
        """`[M]` logits that predict the training labels' own distribution: output biases to start from."""

    def loss(self, logits: Tensor, labels: Tensor, bins: Tensor) -> Tensor:
        """Each row's loss.

        Args:
            logits: `[B, M]`.
            labels: `[B]` in their unit, 0 where a label does not count.
            bins: `[B]` int64: the quantile bin of the task's `item_duration`, 0 where missing or not named.
        """

    def predict(self, logits: Tensor, bins: Tensor) -> Tensor:
        """`[B, M]` logits → `[B]` values in the label's unit."""


class Heads(nn.Module):
    """From logits to losses and predictions, task by task.

    One logit z: binary: prediction σ(z), loss cross-entropy. regression: prediction mean + std·z, loss (z − y')² with
    y' = (y − mean) / std, so that it does not depend on the unit. count: prediction φ·e^z, loss the Poisson deviance of
    e^z and y / φ with φ = max(1, variance / mean): the Poisson deviance of the prediction, divided by the dispersion φ
    (McCullagh & Nelder 1989, section 6.2), so that counts that scatter more than Poisson's do not outweigh other tasks.

    Args:
        kinds: `[T]` the tasks' kinds.
        means: `[T]` label means over the training rows.
        stds: `[T]` label standard deviations.
        wide: the heads of M logits, by the task's place.
        columns: of the id matrix, by the task's place: the quantile bin of its `item_duration`.

    Raises:
        ValueError: a kind that has no loss of one logit, and no head in `wide`.
    """

    binary: Tensor
    count: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        kinds: Sequence[str],
        means: Sequence[float],
        stds: Sequence[float],
        wide: Mapping[int, WideHead] | None = None,
        columns: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        wide, self.columns = wide or {}, dict(columns or {})
        for place, kind in enumerate(kinds):
            if kind not in LOSSES and place not in wide:
                raise ValueError(f"a head of one logit is for {', '.join(LOSSES)} tasks. Received: {kind!r}")
        self.kinds = list(kinds)
        self.wide: Any = nn.ModuleDict({str(place): head for place, head in wide.items()})  # type: ignore[misc]
        self.widths = [wide[place].logits if place in wide else 1 for place in range(len(kinds))]
        self.starts = list(accumulate(self.widths, initial=0))
        self._biases = [
            wide[place].biases() if place in wide else [_starting_bias(kind, mean, std)]
            for place, (kind, mean, std) in enumerate(zip(kinds, means, stds, strict=True))
        ]
        scales = [_scale(*one) for one in zip(kinds, means, stds, strict=True)]
        self.register_buffer("binary", torch.tensor([kind == "binary" for kind in kinds]))
        self.register_buffer("count", torch.tensor([kind == "count" for kind in kinds]))
        self.register_buffer("mean", torch.tensor([mean for mean, _ in scales]))
        self.register_buffer("std", torch.tensor([std for _, std in scales]))
        self.scaled = not {"regression", "count"}.isdisjoint(kinds)  # all others' mean is 0, and their std 1
        self.all_binary = set(kinds) == {"binary"} and not wide

    def biases(self) -> list[list[float]]:
        """The T tasks' output biases to start from: they predict what the training labels are on the whole."""
        return [list(own) for own in self._biases]

    def first(self, logits: Tensor) -> Tensor:
        """The first logit of every task, `[B, T]`, of `[B, L]` or more: of a binary task the only one."""
        return logits[:, self.starts[:-1]] if self.wide else logits[:, : len(self.kinds)]

    def targets(self, labels: Tensor) -> Tensor:
        """`[B, T]` labels → what the losses of one logit compare it with."""
        return (labels - self.mean) / self.std if self.scaled else labels

    def mean_losses(
        self, logits: Tensor, labels: Tensor, where: Tensor, ids: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Each task's loss over the rows that count, `[T]`: `masked_mean` of `losses`, weighted `[B, T]`."""
        if self.all_binary:
            return mean_cross_entropies(logits, labels, where, weights)
        return masked_mean(self.losses(logits, labels, where, ids), where, weights)

    def losses(self, logits: Tensor, labels: Tensor, where: Tensor, ids: Tensor) -> Tensor:
        """Each row's loss on each task.

        Args:
            logits: `[B, L]`.
            labels: `[B, T]`.
            where: `[B, T]` bool: which labels count. The others change nothing, whatever they are.
            ids: `[B, C]` int32, of the same rows.

        Returns:
            `[B, T]`, finite also where `where` is False.
        """
        if not self.wide:
            return row_losses(logits, torch.where(where, self.targets(labels), 0.0), self.kinds)
        labels = torch.where(where, labels, 0.0)
        targets = torch.where(where, self.targets(labels), 0.0)
        columns = []
        for place, (kind, first, end) in enumerate(zip(self.kinds, self.starts, self.starts[1:], strict=False)):
            if str(place) in self.wide:
                own = self.wide[str(place)].loss(logits[:, first:end], labels[:, place], self._bins(place, ids))
            else:
                own = LOSSES[kind](logits[:, first], targets[:, place])
            columns.append(own)
        return torch.stack(columns, dim=1)

    def predict(self, logits: Tensor, ids: Tensor) -> Tensor:
        """`[B, L]` logits and `[B, C]` ids → probabilities, or values in the label's unit: `[B, T]`."""
        z = self.first(logits)
        values = torch.where(self.binary, torch.sigmoid(z), self.mean + self.std * z)
        if "count" in self.kinds:
            values = torch.where(self.count, self.std * torch.exp(z.clamp(-30.0, HIGHEST_LOG_RATE)), values)
        for place, head in self.wide.items():
            first, end = self.starts[int(place)], self.starts[int(place) + 1]
            values[:, int(place)] = head.predict(logits[:, first:end], self._bins(int(place), ids))
        return values

    def _bins(self, place: int, ids: Tensor) -> Tensor:
        if place in self.columns:
            return ids[:, self.columns[place]].long()
        return torch.zeros(len(ids), dtype=torch.int64)


def _scale(kind: str, mean: float, std: float) -> tuple[float, float]:
    """What a task's labels are shifted and divided by."""
    if kind == "regression":
        return mean, std
    return 0.0, max(1.0, std**2 / mean) if kind == "count" else 1.0


def _starting_bias(kind: str, mean: float, std: float) -> float:
    """log(p / (1 − p)) for binary, 0 (the mean) for regression, log(mean / φ) for count."""
    if kind == "binary":
        return math.log(mean / (1.0 - mean))
    return math.log(mean / _scale(kind, mean, std)[1]) if kind == "count" else 0.0
