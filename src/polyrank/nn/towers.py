"""Task towers: a vector per task → the logits of each task. B rows, T tasks, H width, L logits of all tasks."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from polyrank.nn.kernels import optional
from polyrank.nn.layers import StackedLinear, StackedMLP

fused = optional("polyrank.nn.fused")


class RaggedLinear(nn.Module):
    """A linear layer per task, of as many outputs as that task needs, side by side in one `[H, L]` matrix.

    Each task's slice is initialised as `StackedLinear` does, but M outputs of one task within 1/M of its bounds: the
    logits of a head belong together, and it starts near the labels' own distribution, which its biases give.

    Args:
        in_width: H.
        widths: `[T]` each task's outputs; L is their sum.
    """

    def __init__(self, in_width: int, widths: Sequence[int]) -> None:
        super().__init__()
        bounds = torch.tensor([math.sqrt(6.0 / in_width) / width for width in widths for _ in range(width)])
        self.columns = list(pairwise(accumulate(widths, initial=0)))
        self.weight = nn.Parameter(torch.empty(in_width, sum(widths)).uniform_(-1.0, 1.0) * bounds)
        self.bias = nn.Parameter(torch.zeros(sum(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, H]` → `[B, L]`."""
        parts = [own @ self.weight[:, first:end] for own, (first, end) in zip(x, self.columns, strict=True)]
        return torch.cat(parts, dim=1) + self.bias


class Towers(nn.Module):
    """A network per task on that task's vector, all computed together; its last layer gives the task's logits.

    Args:
        tasks: T.
        in_width: H.
        widths: the hidden layers' widths, empty for a linear tower.
        dropout: the share of activations dropped in training.
        biases: the T tasks' output biases to start from, one a logit, so that the first prediction is the base rate.
    """

    output: StackedLinear | RaggedLinear

    def __init__(
        self,
        tasks: int,
        in_width: int,
        widths: tuple[int, ...],
        *,
        dropout: float = 0.0,
        biases: Sequence[Sequence[float]],
    ) -> None:
        super().__init__()
        self.hidden = StackedMLP(tasks, in_width, widths, dropout=dropout)
        logits = [len(own) for own in biases]
        if set(logits) == {1}:
            self.output = StackedLinear(tasks, self.hidden.out_width, 1)
        else:
            self.output = RaggedLinear(self.hidden.out_width, logits)
        with torch.no_grad():
            assert self.output.bias is not None
            self.output.bias.copy_(torch.tensor([b for own in biases for b in own]).view_as(self.output.bias))

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, H]` → logits `[B, L]`, one task's after the other's."""
        if fused is None:
            return self.plainly(x)
        if isinstance(self.output, StackedLinear):
            logits: Tensor = fused.run_towers(x, self.hidden, self.output)
        else:
            logits = self.output(fused.run_hidden(x, self.hidden))
        return logits

    def plainly(self, x: Tensor) -> Tensor:
        """`forward` in plain torch operations."""
        logits: Tensor = self.output(self.hidden(x))
        return logits.squeeze(2).t() if isinstance(self.output, StackedLinear) else logits
