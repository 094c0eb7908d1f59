"""Gates of several units over the same experts. B rows, U units, D input width, E experts."""

import torch
from torch import Tensor, nn

from polyrank.nn.layers import StackedLinear, StackedMLP


class Gates(nn.Module):
    """Gate logits of U units over E experts, before a softmax.

    Linear without bias and from zero: a uniform mixture at the start. With hidden layers a network with ReLU instead,
    and a linear layer with bias on it, started at random.

    Args:
        units: U.
        in_width: D.
        experts: E.
        hidden: the hidden layers' widths.
        dropout: the share of activations dropped after each hidden layer.
    """

    def __init__(
        self, units: int, in_width: int, experts: int, hidden: tuple[int, ...] = (), *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.units = units
        self.hidden = StackedMLP(units, in_width, hidden, dropout=dropout) if hidden else None
        self.linear = StackedLinear(units, hidden[-1] if hidden else in_width, experts, bias=bool(hidden))
        if not hidden:
            nn.init.zeros_(self.linear.weight)

    def forward(self, read: Tensor) -> Tensor:
        """One input of all units `[B, D]`, or one each `[≥ U, B, D]`, the rest unread → `[U, B, E]` float32."""
        if read.ndim == 2 and self.hidden is None:  # one product
            weight = self.linear.weight.transpose(0, 1).flatten(1)
            return (read @ weight).view(len(read), self.units, -1).transpose(0, 1).float()
        each = read.expand(self.units, -1, -1) if read.ndim == 2 else read[: self.units]
        logits: Tensor = self.linear(each if self.hidden is None else self.hidden(each))
        return logits.float()


def softmax_over(logits: Tensor, where: Tensor) -> Tensor:
    """Softmax over the logits `[U, B, E]` at `where [U, E]`; 0 elsewhere."""
    return torch.softmax(logits.masked_fill(~where[:, None], -torch.inf), dim=2)
