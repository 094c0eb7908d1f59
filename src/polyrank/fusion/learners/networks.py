"""Small networks, several at once: E of them are one batched product a layer, one node of autograd, one flat parameter.

Learners of policies run hundreds of thousands of steps on networks so small that what surrounds a product costs more
than the product. So the E critics of an ensemble are never a loop, the gradient is written by hand, an optimiser sees
one tensor a stack, and a slow copy follows it in one operation.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polyrank.fusion.forward import Network


class Stack:
    """E networks of the same shape: linear layers with ReLU between them; initialised as `torch.nn.Linear`.

    What it reads may come in parts, `[..., d_p]`, that broadcast against one another: the state `[B, 1, S]` and n
    candidates `[B, n, K]`. The first layer multiplies each part alone and adds: a state is multiplied once, not n
    times.

    Attributes:
        parts: widths d_p.
        hidden: widths of the hidden layers, at least one.
        out: width O of the output.
        count: E.
        flat: all weights and biases, a leaf for the optimiser.
    """

    def __init__(
        self, parts: Sequence[int], hidden: Sequence[int], out: int, generator: torch.Generator, count: int = 1
    ) -> None:
        self.parts, self.hidden, self.out, self.count = tuple(parts), tuple(hidden), out, count
        widths = [sum(self.parts), *self.hidden, out]
        pieces = []
        for inner, outer in pairwise(widths):
            for shape in ((count, inner, outer), (count, 1, outer)):
                uniform = torch.rand(shape, generator=generator).mul_(2).sub_(1)
                pieces.append((uniform / math.sqrt(inner)).flatten())
        self._see(torch.cat(pieces).requires_grad_())

    def _see(self, flat: Tensor) -> None:
        """Views of the weights, made once: an optimiser and `follow` write where they look."""
        self.flat = flat
        self.seen = self.layers(flat.detach())
        self.first = torch.split(self.seen[0][0], list(self.parts), dim=1)

    def __call__(self, *parts: Tensor) -> Tensor:
        """`[..., d_p]` each → `[E, ..., O]`; learns where autograd is on."""
        found: Tensor = _Forward.apply(self, self.flat, *parts)  # type: ignore[no-untyped-call]
        return found

    def fixed(self, *parts: Tensor) -> Tensor:
        """The same, of constant weights: gradients reach the parts alone."""
        found: Tensor = _Forward.apply(self, None, *parts)  # type: ignore[no-untyped-call]
        return found

    def copy(self) -> "Stack":
        """A slow copy, which no optimiser knows."""
        other = object.__new__(Stack)
        other.__dict__ = dict(self.__dict__)
        other._see(self.flat.detach().clone())
        return other

    @torch.no_grad()
    def follow(self, other: "Stack", share: float) -> None:
        """Move by `share` of the difference towards another (Polyak averaging, τ)."""
        self.flat.lerp_(other.flat, share)

    def layers(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(W `[E, in, out]`, b `[E, 1, out]`) of each layer, views of a flat tensor."""
        widths, at, found = [sum(self.parts), *self.hidden, self.out], 0, []
        for inner, outer in pairwise(widths):
            middle, end = at + self.count * inner * outer, at + self.count * (inner + 1) * outer
            shapes = (self.count, inner, outer), (self.count, 1, outer)
            found.append((flat[at:middle].view(shapes[0]), flat[middle:end].view(shapes[1])))
            at = end
        return found

    def network(self) -> Network:
        """A copy without torch."""
        layers = self.layers(self.flat.detach().clone())
        return Network([(weights.numpy(), biases.numpy()) for weights, biases in layers])


class Descent:
    """Adam, of stacks and single tensors together; its rate falls to 0 along half a cosine, from half-way on.

    So what a fit ends with does not hang on its last batches (IQL's actor is learned so, from the beginning; here
    everything is, and later: short fits get further).
    """

    def __init__(self, rate: float, steps: int, *learned: Stack | Tensor) -> None:
        self._rate, self._steps, self._taken = rate, steps, 0
        self._tensors = [each.flat if isinstance(each, Stack) else each for each in learned]
        self._adam = torch.optim.Adam(self._tensors, lr=rate, fused=True)

    def __call__(self, loss: Tensor) -> None:
        """One step down the loss, whose gradient for anything else is not taken."""
        for tensor, gradient in zip(self._tensors, torch.autograd.grad(loss, self._tensors), strict=True):
            tensor.grad = gradient
        done = min(max(2 * self._taken / self._steps - 1, 0.0), 1.0)
        self._adam.param_groups[0]["lr"] = self._rate * 0.5 * (1 + math.cos(math.pi * done))
        self._adam.step()
        self._taken += 1


class _Forward(torch.autograd.Function):
    """`Stack.__call__`, with its gradient written out."""

    @staticmethod
    def forward(ctx: Any, stack: Stack, flat: Tensor | None, *parts: Tensor) -> Tensor:
        bias, hidden = stack.seen[0][1], None
        for part, own in zip(parts, stack.first, strict=True):
            rows = part.reshape(1, -1, part.shape[-1]).expand(stack.count, -1, -1)
            product = torch.bmm(rows, own) if hidden is not None else torch.baddbmm(bias, rows, own)
            product = product.view(stack.count, *part.shape[:-1], stack.hidden[0])
            hidden = product if hidden is None else hidden + product
        assert hidden is not None
        lead = hidden.shape[1:-1]
        x = hidden.flatten(1, -2).relu_()
        kept = [x]
        for weights, bias in stack.seen[1:]:
            x = torch.baddbmm(bias, x, weights)
            if len(kept) < len(stack.hidden):
                kept.append(x.relu_())
        ctx.stack = stack
        ctx.save_for_backward(*parts, *kept)
        return x.view(stack.count, *lead, stack.out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        stack: Stack = ctx.stack
        parts, kept = ctx.saved_tensors[: len(stack.parts)], ctx.saved_tensors[len(stack.parts) :]
        layers, lead = stack.seen, gradient.shape[1:-1]
        learning = ctx.needs_input_grad[1]
        found = torch.empty_like(stack.flat) if learning else None
        slots = stack.layers(found) if found is not None else []
        gradient = gradient.reshape(stack.count, -1, stack.out)
        for index in range(len(layers) - 1, 0, -1):
            x, (weights, _) = kept[index - 1], layers[index]
            if learning:
                torch.bmm(x.transpose(1, 2), gradient, out=slots[index][0])
                torch.sum(gradient, dim=1, keepdim=True, out=slots[index][1])
            gradient = torch.ops.aten.threshold_backward(torch.bmm(gradient, weights.transpose(1, 2)), x, 0)
        if learning:
            torch.sum(gradient, dim=1, keepdim=True, out=slots[0][1])
        wanted: list[Tensor | None] = [None, found]
        full = gradient.view(stack.count, *lead, -1)
        own = torch.split(slots[0][0], list(stack.parts), dim=1) if learning else [None] * len(parts)
        for part, weights, slot, asked in zip(parts, stack.first, own, ctx.needs_input_grad[2:], strict=True):
            mine = full.sum_to_size(stack.count, *part.shape[:-1], full.shape[-1]).flatten(1, -2)
            if slot is not None:
                rows = part.reshape(1, -1, part.shape[-1]).expand(stack.count, -1, -1)
                slot.copy_(torch.bmm(rows.transpose(1, 2), mine))
            wanted.append(torch.bmm(mine, weights.transpose(1, 2)).sum(dim=0).view(part.shape) if asked else None)
        return tuple(wanted)
