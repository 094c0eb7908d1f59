"""Experts and gates: groups of experts that read the same input, and levels of such groups under softmax gates.

B rows, D input width, M experts of a group, H₁ width of their first layer, H of their last, K gate logits of a group,
E experts of a level, I its gates, L = ΣK its gate logits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.kernels import optional
from polyrank.nn.layers import Dropout, NetworkConfig, StackedMLP, StackedNorm, Style

fused = optional("polyrank.nn.fused")

SHARED = -1  # the owner of what belongs to no single task


@dataclass(frozen=True)
class GatedConfig(NetworkConfig):
    """What architectures of experts under gates have in common, besides the experts' layers.

    Attributes:
        gate_features: the features that the first level's gates read, by name; all where empty.
    """

    gate_features: tuple[str, ...] = ()

    def gate_columns(self, columns: InputColumns | None) -> list[int] | None:
        """The columns of x that the first level's gates read; None for all.

        Raises:
            ValueError: a name that no feature has.
        """
        if not self.gate_features:
            return None
        if columns is None:
            raise ValueError("gate_features need to know the input's columns. Received: none")
        return columns.of(self.gate_features)


@dataclass(frozen=True)
class GateWeights:
    """What one gate did to a batch.

    Attributes:
        level: 1 is next to the input.
        owner: the task whose gate it is, or SHARED.
        experts: for each expert it sees: (the task that owns it or SHARED, its number there).
        weights: `[B, E]`, rows sum to 1.
    """

    level: int
    owner: int
    experts: tuple[tuple[int, int], ...]
    weights: Tensor


class ExpertGroup(nn.Module):
    """M experts that read the same input, and the gate logits that read it too.

    An expert is a network with ReLU (and dropout) after every layer. The first layers of all experts and all gates are
    one product, `[B, D] @ [D, M·H₁ + K]`; deeper layers are one batched product over all experts. Gates are linear
    without bias, as the MMoE and PLE papers write them, and start at zero: a uniform mixture.

    Args:
        in_width: D.
        experts: M.
        widths: the layers' widths of each expert, at least one.
        gate_logits: K, 0 for no gate.
        gate_columns: the columns of the input that gates read; None for all. The weights of the others are zero and
            stay so, since they get no gradient: one product serves experts and gates.
        dropout: the share of activations dropped in training.
        layer_norm: normalise every layer before ReLU.
        residual: add to a layer's output what it read, where both are equally wide.
    """

    def __init__(
        self,
        in_width: int,
        experts: int,
        widths: tuple[int, ...],
        *,
        gate_logits: int = 0,
        gate_columns: Sequence[int] | None = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        first, *deeper = widths
        self.experts, self.first_width, self.out_width, self.gate_logits = experts, first, widths[-1], gate_logits
        self.hidden = experts * first
        bound = math.sqrt(6.0 / in_width)
        weight = torch.empty(in_width, self.hidden).uniform_(-bound, bound)
        self.weight = nn.Parameter(torch.cat([weight, torch.zeros(in_width, gate_logits)], dim=1))
        self.bias = nn.Parameter(torch.zeros(self.hidden))
        self.norm = StackedNorm(experts, first) if layer_norm else None
        self.residual = residual and in_width == first
        self.deeper = StackedMLP(
            experts, first, tuple(deeper), dropout=dropout, layer_norm=layer_norm, residual=residual
        )
        self.dropout = Dropout(dropout)
        if gate_columns is not None and gate_logits:
            allowed = torch.ones_like(self.weight)
            allowed[:, self.hidden :] = 0.0
            allowed[list(gate_columns), self.hidden :] = 1.0
            self.weight.register_hook(lambda gradient: gradient * allowed)  # type: ignore[no-untyped-call]

    @property
    def plain(self) -> bool:
        """Whether the compiled kernels can run it."""
        return self.norm is None and not self.residual and self.deeper.plain

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, D]` → expert outputs `[M, B, H]` and gate logits `[B, K]`."""
        both = x @ self.weight
        sums = both[:, : self.hidden] + self.bias
        if self.norm is not None:
            sums = self.norm(self._by_expert(sums)).transpose(0, 1).flatten(1)
        hidden = self._by_expert(self.dropout(torch.relu(sums)))
        experts: Tensor = self.deeper(hidden + x if self.residual else hidden)
        return experts, both[:, self.hidden :]

    def matrices(self) -> list[Tensor]:
        """Every layer's weights, `[M, in, out]`."""
        deeper: list[Tensor] = [layer.weight for layer in self.deeper.layers]  # type: ignore[misc]
        return [self._by_expert(self.weight[:, : self.hidden]), *deeper]

    def _by_expert(self, hidden: Tensor) -> Tensor:
        """`[B, M·H₁]` → `[M, B, H₁]`."""
        return hidden.view(len(hidden), self.experts, -1).transpose(0, 1)


class Level(nn.Module):
    """Groups of experts, and gates each of which mixes some experts of any group: Σ_e softmax(logits)_e · f_e(x).

    A group's gates read what its experts read. The gates' logits stand group after group, in the order of `gates`.

    Args:
        in_width: D.
        groups: for each group its experts M and its gate logits K.
        gates: for each gate the experts it mixes (numbered over all groups); empty: the level gives out its experts.
        widths: the experts' layers.
        gate_columns: the columns of the input that gates read; None for all.
        dropout: the share of activations dropped in training.
        layer_norm: normalise every layer before ReLU.
        residual: add to a layer's output what it read, where both are equally wide.
    """

    def __init__(
        self,
        in_width: int,
        groups: Sequence[tuple[int, int]],
        gates: Sequence[Sequence[int]],
        widths: tuple[int, ...],
        *,
        gate_columns: Sequence[int] | None = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            ExpertGroup(
                in_width,
                experts,
                widths,
                gate_logits=logits,
                gate_columns=gate_columns,
                dropout=dropout,
                layer_norm=layer_norm,
                residual=residual,
            )
            for experts, logits in groups
        )
        self.gates = [list(gate) for gate in gates]
        self.starts = list(accumulate((len(gate) for gate in self.gates), initial=0))
        assert self.starts[-1] == sum(logits for _, logits in groups), "every gate logit belongs to a gate"
        self.out_width = widths[-1]
        # For the kernels: where each gate's logits begin, and the expert of each logit.
        self.plan = np.array(self.starts, np.int64), np.array([e for gate in self.gates for e in gate], np.int64)
        self.masks: Tensor | None = None

    @contextmanager
    def masked(self, masks: Tensor) -> Iterator[None]:
        """Backward passes in which logit l's expert is given `masks` `[L, H]` times the gradient at the mixture.

        The logits are given all of it.
        """
        self.masks = masks.contiguous()
        try:
            yield
        finally:
            self.masks = None

    def forward(self, inputs: Sequence[Inputs] | Tensor) -> tuple[Tensor, Tensor]:
        """Run experts and gates.

        Args:
            inputs: what each group reads: `Inputs`, or one tensor `[groups, B, D]`.

        Returns:
            Mixtures `[I, B, H]` (without gates: the experts `[E, B, H]`) and the gates' weights `[B, L]`, without
            gradient.
        """
        if fused is not None and fused.suits(self):
            mixed, weights = fused.run(self, inputs)
            return mixed, weights
        return self.plainly(inputs)

    def matrices(self) -> list[Tensor]:
        """Every layer's weights, `[E, in, out]`."""
        by_group = [group.matrices() for group in self.groups]  # type: ignore[operator]
        return [torch.cat(layer) for layer in zip(*by_group, strict=True)]

    def plainly(self, inputs: Sequence[Inputs] | Tensor) -> tuple[Tensor, Tensor]:
        """`forward` in plain torch operations."""
        written = inputs if isinstance(inputs, Tensor) else [x.written() for x in inputs]
        found = [group(x) for group, x in zip(self.groups, written, strict=True)]
        experts = torch.cat([outputs for outputs, _ in found])
        logits = torch.cat([some for _, some in found], dim=1)
        if not self.gates:
            return experts, logits.detach()
        weights = [torch.softmax(logits[:, a:z], dim=1) for a, z in zip(self.starts, self.starts[1:], strict=False)]
        read = [experts[gate] for gate in self.gates]
        if self.training:
            read = [_Masked.apply(each, self, start) for each, start in zip(read, self.starts, strict=False)]  # type: ignore[no-untyped-call]
        mixed = [torch.einsum("be,ebh->bh", weight, each) for weight, each in zip(weights, read, strict=True)]
        return torch.stack(mixed), torch.cat(weights, dim=1).detach()


class _Masked(torch.autograd.Function):
    """(the experts `[M, B, H]` that a gate reads, its level, its first logit) → the experts; masked on the way back."""

    @staticmethod
    def forward(ctx: Any, experts: Tensor, level: Level, start: int) -> Tensor:
        ctx.level, ctx.start = level, start
        return experts.view_as(experts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if ctx.level.masks is None:
            return gradient, None, None
        own = ctx.level.masks[ctx.start : ctx.start + len(gradient), None]
        return gradient * own.to(gradient.dtype), None, None


class TaskNetworks(nn.Module):
    """A network for each task, all computed together, with something done to their activations after every layer.

    Args:
        in_width: D.
        tasks: T.
        widths: the layers' widths, at least one.
        style: see `Level`.
    """

    def __init__(self, in_width: int, tasks: int, widths: tuple[int, ...], **style: Unpack[Style]) -> None:
        super().__init__()
        self.first = Level(in_width, [(tasks, 0)], [], widths[:1], **style)
        self.later = nn.ModuleList(StackedMLP(tasks, inner, (outer,), **style) for inner, outer in pairwise(widths))
        self.out_width = widths[-1]

    def forward(self, x: Inputs, between: Callable[[int, Tensor], Tensor]) -> Tensor:
        """`[B, D]` → what `between(layer, [T, B, H])`, the layer counted from 0, makes of the last, `[T, B, H]`."""
        hidden = between(0, self.first([x])[0])
        for number, layer in enumerate(self.later, start=1):
            hidden = between(number, layer(hidden))
        return hidden

    def matrices(self) -> list[Tensor]:
        """Every layer's weights, `[T, in, out]`."""
        later: list[Tensor] = [layer.layers[0].weight for layer in self.later]  # type: ignore[union-attr, index]
        return [*self.first.matrices(), *later]


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Σ_e w_e · f_e(x): weights `[I, B, E]`, experts `[E, B, H]` → `[I, B, H]`."""
    return torch.einsum("ibe,ebh->ibh", weights, experts)
