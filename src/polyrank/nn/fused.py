"""A level of experts and gates as one autograd function with a backward of its own.

Autograd would keep an activation for every operation, and copy activations to slice, stack and transpose them. Here
matrix products write where the next one reads, ReLU, bias and dropout work in place, gates read experts where they
stand, and small tables are multiplied with the weights instead of with the batch (`polyrank.nn.kernels.narrow`). Under
autocast, products and activations are bf16, and sums over experts, rows and table rows float32.

B rows, D input width, G groups that are alike, M experts of each, H₁ width of their first layer, H of their last, K
gate logits of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polyrank.nn import stacked
from polyrank.nn.inputs import Inputs, Narrow
from polyrank.nn.kernels import gates, narrow
from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.kernels.threads import follow_torch
from polyrank.nn.layers import Dropout

_FEW = 32  # so few numbers beside small tables are not worth a product of their own


@dataclass
class _Trace:
    """What the forward pass of G groups that are alike, side by side, leaves for its backward.

    Attributes:
        groups: which.
        x: `[G, B, D]` the written-out input, in the type of the products where these read it.
        first: `[G, B, N]` the first layer's activations and the gate logits, N ≥ M·H₁ + K.
        weight: the first layer's, `[G, D, N]` float32.
        scale: what dropout multiplied activations with.
        deeper: the deeper layers.
    """

    groups: Sequence[Any]
    x: Tensor
    first: Tensor
    weight: Tensor
    deeper: list[stacked.Layer]
    scale: float

    @property
    def experts(self) -> Tensor:
        """The experts' outputs, `[G·M, B, H]` or `[G, M, B, H]`, not necessarily contiguous."""
        return self.deeper[-1].output if self.deeper else _by_expert(self.first, self.groups[0])


def suits(level: Any) -> bool:
    """Whether the kernels can run a level: plain layers, and where there are gates, outputs of sixteen numbers each."""
    return all(group.plain for group in level.groups) and (not level.gates or level.out_width % LANES == 0)


def run(level: Any, inputs: Sequence[Inputs] | Tensor) -> tuple[Tensor, Tensor]:
    """`Level.plainly`, faster."""
    follow_torch()
    parameters = [p for group in level.groups for p in _parameters(group)]
    small, tables = None, None
    if isinstance(inputs, Tensor):
        x = inputs
    elif inputs[0].narrow is not None:
        assert len(inputs) == 1, "small tables are read by one group"
        small, x = inputs[0].narrow, inputs[0].wide.unsqueeze(0)
        tables = small.tables
    else:
        x = inputs[0].wide.unsqueeze(0) if len(inputs) == 1 else torch.stack([each.wide for each in inputs])
    mixed, weights = _Level.apply(level, small, x, tables, *parameters)  # type: ignore[no-untyped-call]
    return mixed, weights


def run_towers(x: Tensor, hidden: Any, output: Any) -> Tensor:
    """`Towers.plainly` for one logit a task, faster: `[T, B, H]` → `[B, T]`."""
    follow_torch()
    layers = [*hidden.layers, output]
    logits: Tensor = _Towers.apply(hidden.dropout, x, *(p for layer in layers for p in (layer.weight, layer.bias)))  # type: ignore[no-untyped-call]
    return logits


def run_hidden(x: Tensor, hidden: Any) -> Tensor:
    """A `StackedMLP`, faster: `[T, B, H']` → `[T, B, H]`."""
    follow_torch()
    if not hidden.layers:
        return x
    parameters = (p for layer in hidden.layers for p in (layer.weight, layer.bias))
    result: Tensor = _Hidden.apply(hidden.dropout, x, *parameters)  # type: ignore[no-untyped-call]
    return result


class _Hidden(torch.autograd.Function):
    """(dropout, x `[T, B, H']`, each layer's weight and bias) → `[T, B, H]`, ReLU and dropout after every layer."""

    @staticmethod
    def forward(ctx: Any, dropout: Dropout, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.scale, ctx.kind, ctx.given = dropout.scale, _kind(), x.dtype
        with torch.autocast("cpu", enabled=False):
            ctx.layers = stacked.forward([p.detach() for p in parameters], x.to(ctx.kind), dropout)
            # Another tensor than the one kept, which would otherwise keep the graph alive.
            output: Tensor = ctx.layers[-1].output.float().detach()
            return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        follow_torch()
        gradient = gradient.to(ctx.kind).clone(memory_format=torch.contiguous_format)  # it may be changed below
        results, gradient = stacked.backward(ctx.layers, gradient, ctx.scale)
        return None, gradient.to(ctx.given), *results


class _Towers(torch.autograd.Function):
    """(dropout, x `[T, B, H]`, each layer's weight and bias) → `[B, T]`; ReLU and dropout but for the last layer."""

    @staticmethod
    def forward(ctx: Any, dropout: Dropout, x: Tensor, *parameters: Tensor) -> Tensor:
        *hidden, weight, bias = (parameter.detach() for parameter in parameters)
        with torch.autocast("cpu", enabled=False):
            ctx.layers = stacked.forward(hidden, x.to(_kind()), dropout)
            read = ctx.layers[-1].output if ctx.layers else x.to(_kind())
            ctx.read, ctx.weight, ctx.scale, ctx.given = read, weight, dropout.scale, x.dtype
            return stacked.last(read, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        follow_torch()
        weight, bias, gradient = stacked.last_back(ctx.read, ctx.weight, gradient)
        results, gradient = stacked.backward(ctx.layers, gradient, ctx.scale)
        return None, gradient.to(ctx.given), *results, weight, bias


class _Level(torch.autograd.Function):
    """(level, narrow part, x `[G, B, D]`, its tables, parameters) → mixtures `[I, B, H]`, gate weights `[B, L]`."""

    @staticmethod
    def forward(
        ctx: Any, level: Any, small: Narrow | None, x: Tensor, tables: Tensor | None, *parameters: Tensor
    ) -> Any:
        kind, traces, column = _kind(), [], 0
        own = iter(parameter.detach() for parameter in parameters)
        with torch.autocast("cpu", enabled=False):
            for groups in _alike(level):
                taken = [list(islice(own, 2 + 2 * len(group.deeper.layers))) for group in groups]
                traces.append(_forward(groups, taken, x[column : column + len(groups)], small, kind))
                column += len(groups)
            found = [trace.experts for trace in traces]
            parts = [_logits(first, group) for t in traces for first, group in zip(t.first, t.groups, strict=True)]
            logits = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]).float().contiguous()
            if level.gates:
                mixed = torch.empty(len(level.gates), x.shape[1], level.out_width, dtype=kind)
                weights = torch.empty_like(logits)
                gates.mix(*_addresses(found), logits.numpy(), *level.plan, weights.numpy(), stacked.held(mixed))
            else:
                mixed, weights = torch.cat([each.reshape(-1, *each.shape[-2:]) for each in found]), logits
        ctx.level, ctx.small, ctx.traces, ctx.found, ctx.weights = level, small, traces, found, weights
        ctx.mark_non_differentiable(weights)
        ctx.save_for_backward(x, *([] if tables is None else [tables]))
        return mixed, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        level, small, traces, found = ctx.level, ctx.small, ctx.traces, ctx.found
        x = ctx.saved_tensors[0]
        follow_torch()
        firsts = [torch.empty_like(trace.first) for trace in traces]
        targets = [
            torch.empty(experts.shape, dtype=first.dtype) if trace.deeper else _by_expert(first, trace.groups[0])
            for trace, first, experts in zip(traces, firsts, found, strict=True)
        ]
        if level.gates:
            slopes = torch.empty_like(ctx.weights)
            masks = np.empty((0, 0), np.float32) if level.masks is None else level.masks.numpy()
            arguments = (*_addresses(found), ctx.weights.numpy(), *level.plan, masks)
            gates.mix_back(*arguments, stacked.held(gradient.contiguous()), *_addresses(targets), slopes.numpy())
        else:
            slopes = torch.zeros_like(ctx.weights)
            counts = [sum(group.experts for group in trace.groups) for trace in traces]
            for target, part in zip(targets, torch.split(gradient, counts), strict=True):
                target.copy_(part.reshape(target.shape))
        results: list[Any] = []
        read = torch.empty(x.shape, dtype=x.dtype) if ctx.needs_input_grad[2] else None
        from_tables, column, place = None, 0, 0
        for trace, first, target in zip(traces, firsts, targets, strict=True):
            if small is None:
                first[:, :, trace.groups[0].hidden :] = 0.0  # not all groups have as many gate logits, if any
            for one, group in zip(first, trace.groups, strict=True):
                _logits(one, group).copy_(slopes[:, column : column + group.gate_logits])
                column += group.gate_logits
            to = None if read is None else read[place : place + len(first)]
            place += len(first)
            own, from_tables = _backward(trace, small, first, target, to)
            results += own
        return None, None, read, from_tables, *results


def _forward(
    groups: Sequence[Any], parameters: list[list[Tensor]], x: Tensor, small: Narrow | None, kind: torch.dtype
) -> _Trace:
    """Groups that are alike, side by side; each one's parameters, and what each reads, `[G, B, D]`."""
    group = groups[0]
    weight, bias, *deeper = _joined(parameters)
    if small is None:
        x = x.to(kind)
        first = stacked.run(x, weight, bias, group.dropout).output
    else:
        few, wide, only = _split_wide(x[0], weight[0], kind)
        narrow.project(
            *_arrays(small.tables, small.begins, weight[0], bias[0]), small.counts, small.usual, small.places,
            small.lengths, few.numpy(), wide is not few, stacked.held(only),
        )  # fmt: skip
        x, first = wide[None], only[None]
        stacked.drop(first, group.hidden, group.dropout)
    layers = stacked.forward(deeper, _by_expert(first, group), group.dropout)
    return _Trace(groups, x, first, weight, layers, group.dropout.scale)


def _backward(
    trace: _Trace, small: Narrow | None, first: Tensor, gradient: Tensor, to: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    """The gradients of the groups' parameters, and of the small tables; `to` receives that of the input.

    Args:
        trace: of the forward pass.
        small: the narrow part of the input.
        first: `[G, B, N]` where the first layer's gradient goes; its gate logits' part is there already.
        gradient: of the experts' outputs, as these; changed.
        to: `[G, B, D]` or None.
    """
    group, scale = trace.groups[0], trace.scale
    deeper, _ = stacked.backward(trace.deeper, gradient, scale, _by_expert(first, group))
    tables = None
    if small is None:
        layer = stacked.Layer(trace.x, trace.weight, trace.first, group.hidden)
        straight = to is not None and to.dtype == first.dtype
        weight, bias, read = stacked.run_back(layer, first, scale, to if straight else None)
        if to is not None and not straight:
            to.copy_(read)
    else:
        one, bias, tables = _narrow_backward(trace, small, first[0], to)
        weight, bias = one[None], bias[None]
    results = []
    for g, own in enumerate(trace.groups):
        results += [weight[g, :, : own.hidden + own.gate_logits], bias[g]]
        results += [each[g * group.experts : (g + 1) * group.experts] for each in deeper]
    return results, tables


def _narrow_backward(trace: _Trace, small: Narrow, first: Tensor, to: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of the one group that reads small tables: gradients of its first weight, bias and the tables."""
    x, weight, hidden = trace.x[0], trace.weight[0], trace.groups[0].hidden
    few = x if x.shape[1] <= _FEW else x.new_empty(len(x), 0, dtype=torch.float32)
    own, tables, bias = torch.empty_like(weight), torch.empty(small.tables.shape), torch.empty(hidden)
    kept = to is not None or x is not few  # whether what the ReLU sends back is read below
    narrow.project_back(
        *_arrays(small.tables, small.begins, weight), small.counts, small.usual, small.places, small.lengths,
        few.numpy(), np.float32(trace.scale), stacked.held(trace.first[0]), stacked.held(first), kept,
        *_arrays(bias, own, tables),
    )  # fmt: skip
    outputs, wide = weight.shape[1], weight.shape[0] - x.shape[1]
    if x is not few:
        own[wide:] = stacked.product(x[None], first[None])[0, :, :outputs]
    if to is not None:
        _multiply(first[:, :outputs], weight[wide:].to(first.dtype), to[0])
    return own, bias, tables


def _alike(level: Any) -> list[list[Any]]:
    """The groups, those next to each other together that have as many experts: they run side by side.

    Under dropout each runs alone, so that what is drawn does not depend on this.
    """
    if level.groups[0].dropout.active:
        return [[group] for group in level.groups]
    return [list(groups) for _, groups in groupby(level.groups, key=attrgetter("experts"))]


def _joined(parameters: list[list[Tensor]]) -> list[Tensor]:
    """The groups' parameters side by side: `[G, D, N]`, `[G, M·H₁]`, and of deeper layers `[G·M, …]`."""
    if len(parameters) == 1:
        weight, bias, *deeper = parameters[0]
        return [weight[None], bias[None], *deeper]
    weights, biases, *deepers = zip(*parameters, strict=True)
    joined = torch.zeros(len(weights), len(weights[0]), max(each.shape[1] for each in weights))
    for to, each in zip(joined, weights, strict=True):
        to[:, : each.shape[1]] = each
    return [joined, torch.stack(biases), *(torch.cat(each) for each in deepers)]


def _multiply(first: Tensor, weight: Tensor, to: Tensor) -> None:
    """Write first · weightᵀ to `to`."""
    if to.dtype == first.dtype:
        torch.mm(first, weight.t(), out=to)
    else:
        to.copy_(torch.mm(first, weight.t()))


def _split_wide(x: Tensor, weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What of the wide input the kernel multiplies itself (all if it is little); x; and the product of the rest."""
    outputs = weight.shape[1]
    first = torch.empty(len(x), -(-outputs // LANES) * LANES, dtype=kind)
    if x.shape[1] <= _FEW:
        x = x.contiguous()
        return x, x, first
    few, x = x[:, :0], x.to(kind)
    torch.mm(x, weight[weight.shape[0] - x.shape[1] :].to(kind), out=first[:, :outputs])
    return few, x, first


def _kind() -> torch.dtype:
    """Of the products: autocast's, or float32."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def _by_expert(first: Tensor, group: Any) -> Tensor:
    """The hidden part of `[G, B, N]` as `[G, M, B, H₁]`, without a copy."""
    hidden = first[:, :, : group.hidden].view(*first.shape[:2], group.experts, group.first_width)
    return hidden.transpose(1, 2)


def _logits(first: Tensor, group: Any) -> Tensor:
    return first[:, group.hidden : group.hidden + group.gate_logits]


def _parameters(group: Any) -> list[Tensor]:
    return [group.weight, group.bias, *(p for layer in group.deeper.layers for p in (layer.weight, layer.bias))]


def _addresses(experts: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Where each expert's output of row 0 is, and how many bytes apart its rows are."""
    starts: list[int] = []
    strides: list[int] = []
    for outputs in experts:
        places, apart = stacked.places(outputs)
        starts += places
        strides += [apart] * len(places)
    return np.array(starts, np.uint64), np.array(strides, np.int64)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]
