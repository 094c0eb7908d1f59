"""An exponential moving average of a ranker's weights (Polyak & Juditsky 1992): s ← d·s + (1 − d)·w after each step.

R rows of the embedding table, W its width. A row that a step does not touch costs nothing in that step.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from polyrank.models.ranker import Ranker
from polyrank.nn.embeddings import Touched

_START = 10.0


class WeightAverage:
    """The average of all weights, buffers aside; d_t = min(decay, (1 + t) / (10 + t)), so that a young one forgets.

    A row's weights stand still between the steps that touch it, so that its average after n of them is known in closed
    form, s ← w + (s − w)·Π d_i: it is brought up to date when the row is about to move, and when it is looked at.

    It stands between the embeddings and their optimiser: what `touched` gives, the optimiser is about to move.

    Args:
        ranker: whose weights.
        decay: the largest d; 1 / (1 − d) is about the number of steps that the average looks back.
    """

    def __init__(self, ranker: Ranker, decay: float) -> None:
        self.ranker, self.decay, self.steps = ranker, decay, 0
        self.table = ranker.embeddings.table
        self.dense = {name: value.detach().clone() for name, value in ranker.dense_parameters()}
        self.rows = self.table.detach().clone()
        self.log_decay = 0.0  # Σ log d_i over all steps so far
        self.seen = torch.zeros(
            len(self.rows), dtype=torch.float64
        )  # [R] what it was when a row was brought up to date

    @torch.no_grad()
    def touched(self) -> list[Touched]:
        """What the embeddings' `touched` gives, after bringing these rows' averages up to date."""
        found = self.ranker.embeddings.touched()
        for part in found:
            for start, count in zip(part.starts.tolist(), part.counts.tolist(), strict=True):
                rows = part.rows[start : start + count]
                self.rows.index_copy_(0, rows, self._now(rows))
                self.seen.index_fill_(0, rows, self.log_decay)
        return found

    @torch.no_grad()
    def step(self) -> None:
        """Count a step that has been made."""
        self.steps += 1
        decay = min(self.decay, (1.0 + self.steps) / (_START + self.steps))
        self.log_decay += math.log(decay)
        for name, value in self.ranker.dense_parameters():
            self.dense[name].lerp_(value, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The ranker has the average for its weights inside the block, and its own after it."""
        own = {name: value.detach().clone() for name, value in self.ranker.dense_parameters()}
        table = self.table.detach().clone()
        with torch.no_grad():
            self.table.copy_(self._now(torch.arange(len(self.table))))
            _write(self.ranker, self.dense)
        try:
            yield
        finally:
            with torch.no_grad():
                self.table.copy_(table)
                _write(self.ranker, own)

    def _now(self, rows: Tensor) -> Tensor:
        """The averages of these rows after all steps so far."""
        weights, average = self.table.detach()[rows], self.rows[rows]
        kept = torch.exp(self.log_decay - self.seen[rows]).float().unsqueeze(1)
        return weights + (average - weights) * kept

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs."""
        return {
            "dense": self.dense,
            "rows": self.rows,
            "seen": self.seen,
            "steps": self.steps,
            "log_decay": self.log_decay,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        for name, value in self.dense.items():
            value.copy_(state["dense"][name])
        self.rows.copy_(state["rows"])
        self.seen.copy_(state["seen"])
        self.steps, self.log_decay = int(state["steps"]), float(state["log_decay"])


def _write(ranker: Ranker, values: Mapping[str, Tensor]) -> None:
    for name, parameter in ranker.dense_parameters():
        parameter.copy_(values[name])
