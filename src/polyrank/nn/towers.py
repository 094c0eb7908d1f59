"""Task towers and heads: a vector per task → a logit per task → a prediction in the label's unit.

B rows, T tasks, H width.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyrank.nn.kernels import optional
from polyrank.nn.layers import StackedLinear, StackedMLP

fused = optional("polyrank.nn.fused")


class Towers(nn.Module):
    """A network per task on that task's vector, all computed together; its last layer gives one logit.

    Args:
        tasks: T.
        in_width: H.
        widths: the hidden layers' widths, empty for a linear tower.
        dropout: the share of activations dropped in training.
        biases: `[T]` the output biases to start from, so that the first prediction is the base rate.
    """

    def __init__(
        self, tasks: int, in_width: int, widths: tuple[int, ...], *, dropout: float = 0.0, biases: Sequence[float]
    ) -> None:
        super().__init__()
        self.hidden = StackedMLP(tasks, in_width, widths, dropout=dropout)
        self.output = StackedLinear(tasks, self.hidden.out_width, 1)
        with torch.no_grad():
            assert self.output.bias is not None
            self.output.bias.copy_(torch.tensor(biases).view(tasks, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, H]` → logits `[B, T]`."""
        if fused is not None:
            return fused.run_towers(x, self.hidden, self.output).squeeze(2).t()  # type: ignore[no-any-return]
        return self.plainly(x)

    def plainly(self, x: Tensor) -> Tensor:
        """`forward` in plain torch operations."""
        logits: Tensor = self.output(self.hidden(x))
        return logits.squeeze(2).t()


class Heads(nn.Module):
    """From logits to predictions and from labels to training targets, task by task.

    binary: prediction σ(z), target y. regression: prediction mean + std·z in the label's unit, target (y − mean)/std,
    so that the loss does not depend on the unit.

    Args:
        kinds: `[T]` the tasks' kinds.
        means: `[T]` label means over the training rows.
        stds: `[T]` label standard deviations.

    Raises:
        ValueError: a kind that has no head.
    """

    binary: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, kinds: Sequence[str], means: Sequence[float], stds: Sequence[float]) -> None:
        super().__init__()
        for kind in kinds:
            if kind not in ("binary", "regression"):
                raise ValueError(f"a head is for binary or regression tasks. Received: {kind!r}")
        binary = [kind == "binary" for kind in kinds]
        self.register_buffer("binary", torch.tensor(binary))
        self.register_buffer("mean", torch.tensor([0.0 if b else m for b, m in zip(binary, means, strict=True)]))
        self.register_buffer("std", torch.tensor([1.0 if b else s for b, s in zip(binary, stds, strict=True)]))

    def targets(self, labels: Tensor) -> Tensor:
        """`[B, T]` labels → what the loss compares logits with."""
        return (labels - self.mean) / self.std

    def predict(self, logits: Tensor) -> Tensor:
        """`[B, T]` logits → probabilities, or values in the label's unit."""
        return torch.where(self.binary, torch.sigmoid(logits), self.mean + self.std * logits)


def starting_biases(kinds: Sequence[str], means: Sequence[float]) -> list[float]:
    """Output biases that predict the base rate: log(p / (1 − p)) for binary, 0 (the mean) for regression."""
    return [math.log(m / (1.0 - m)) if kind == "binary" else 0.0 for kind, m in zip(kinds, means, strict=True)]
