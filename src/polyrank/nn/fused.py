"""A level of experts and gates as one autograd function with a backward of its own.

Autograd would keep an activation for every operation, and copy activations to slice, stack and transpose them. Here
matrix products write where the next one reads, ReLU, bias and dropout work in place, gates read experts where they
stand, and small tables are multiplied with the weights instead of with the batch (`polyrank.nn.kernels.narrow`). Under
autocast, products and activations are bf16, and sums over experts, rows and table rows float32.

B rows, D input width, M experts of a group, H₁ width of their first layer, H of their last, K gate logits of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """What a group's forward pass leaves for its backward.

    Attributes:
        x: `[B, D]` the written-out input, in the type of the products where these read it.
        first: `[B, N]` the first layer's activations and the gate logits, N ≥ M·H₁ + K.
        weight: the first layer's, `[D, N]` float32.
        scale: what dropout multiplied activations with.
        deeper: the deeper layers.
    """

    x: Tensor
    first: Tensor
    weight: Tensor
    deeper: list[stacked.Layer]
    scale: float

    def experts(self, group: Any) -> Tensor:
        """The experts' outputs, `[M, B, H]`, not necessarily contiguous."""
        return self.deeper[-1].output if self.deeper else _by_expert(self.first, group)


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
            ctx.layers = stacked.forward(parameters, x.to(ctx.kind), dropout)
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
        *hidden, weight, bias = parameters
        with torch.autocast("cpu", enabled=False):
            ctx.layers = stacked.forward(hidden, x.to(_kind()), dropout)
            read = ctx.layers[-1].output if ctx.layers else x.to(_kind())
            ctx.read, ctx.weight, ctx.scale, ctx.given = read, weight.detach(), dropout.scale, x.dtype
            return stacked.last(read, ctx.weight, bias.detach())

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
        kind = _kind()
        traces = []
        with torch.autocast("cpu", enabled=False):
            for group, own, read in zip(level.groups, _split(level, parameters), x, strict=True):
                traces.append(_group_forward(group, own, read, small, kind))
            found = [trace.experts(group) for trace, group in zip(traces, level.groups, strict=True)]
            parts = [_logits(t.first, g) for t, g in zip(traces, level.groups, strict=True)]
            logits = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]).float().contiguous()
            if level.gates:
                mixed = torch.empty(len(level.gates), x.shape[1], level.out_width, dtype=kind)
                weights = torch.empty_like(logits)
                gates.mix(*_addresses(found), logits.numpy(), *level.plan, weights.numpy(), stacked.held(mixed))
            else:
                mixed, weights = torch.cat(found), logits
        ctx.level, ctx.small, ctx.traces, ctx.found, ctx.weights = level, small, traces, found, weights
        ctx.mark_non_differentiable(weights)
        ctx.save_for_backward(x, *([] if tables is None else [tables]))
        return mixed, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        level, small, traces = ctx.level, ctx.small, ctx.traces
        x = ctx.saved_tensors[0]
        follow_torch()
        kind = ctx.found[0].dtype
        firsts = [torch.empty_like(trace.first) for trace in traces]
        targets = [
            torch.empty(experts.shape, dtype=kind) if trace.deeper else _by_expert(first, group)
            for trace, first, group, experts in zip(traces, firsts, level.groups, ctx.found, strict=True)
        ]
        if level.gates:
            slopes = torch.empty_like(ctx.weights)
            masks = np.empty((0, 0), np.float32) if level.masks is None else level.masks.numpy()
            arguments = (*_addresses(ctx.found), ctx.weights.numpy(), *level.plan, masks)
            gates.mix_back(*arguments, stacked.held(gradient.contiguous()), *_addresses(targets), slopes.numpy())
        else:
            slopes = torch.zeros_like(ctx.weights)
            for target, part in zip(targets, torch.split(gradient, [g.experts for g in level.groups]), strict=True):
                target.copy_(part)
        results: list[Any] = []
        read = torch.empty(x.shape, dtype=x.dtype) if ctx.needs_input_grad[2] else None
        from_tables = None
        column = 0
        for index, (group, trace, first, target) in enumerate(zip(level.groups, traces, firsts, targets, strict=True)):
            _logits(first, group).copy_(slopes[:, column : column + group.gate_logits])
            column += group.gate_logits
            to = None if read is None else read[index]
            own, from_tables = _group_backward(group, trace, small, first, target, to)
            results += own
        return None, None, read, from_tables, *results


def _group_forward(
    group: Any, parameters: Sequence[Tensor], x: Tensor, small: Narrow | None, kind: torch.dtype
) -> _Trace:
    weight, bias, *deeper = (parameter.detach() for parameter in parameters)
    if small is None:
        x = x.to(kind)
        first = stacked.run(x[None], weight[None], bias[None], group.dropout).output[0]
    else:
        few, x, first = _split_wide(x, weight, kind)
        narrow.project(
            *_arrays(small.tables, small.begins, weight, bias), small.counts, small.usual, small.places, small.lengths,
            few.numpy(), x is not few, stacked.held(first),
        )  # fmt: skip
        stacked.drop(first[None], group.hidden, group.dropout)
    layers = stacked.forward(deeper, _by_expert(first, group), group.dropout)
    return _Trace(x, first, weight, layers, group.dropout.scale)


def _group_backward(
    group: Any, trace: _Trace, small: Narrow | None, first: Tensor, gradient: Tensor, to: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    """The gradients of a group's parameters, and of the small tables; `to` receives that of the input.

    Args:
        group: whose.
        trace: of the forward pass.
        small: the narrow part of the input.
        first: `[B, N]` where the first layer's gradient goes; its gate logits' part is there already.
        gradient: `[M, B, H]` of the experts' outputs; changed.
        to: `[B, D]` or None.
    """
    scale = trace.scale
    results, _ = stacked.backward(trace.deeper, gradient, scale, _by_expert(first, group))
    if small is None:
        if first.shape[1] > group.hidden + group.gate_logits:
            first[:, group.hidden + group.gate_logits :] = 0.0
        layer = stacked.Layer(trace.x[None], trace.weight[None], trace.first[None], group.hidden)
        if to is not None and to.dtype == first.dtype:
            own, bias, _ = stacked.run_back(layer, first[None], scale, to[None])
        else:
            own, bias, read = stacked.run_back(layer, first[None], scale)
            if to is not None:
                to.copy_(read[0])
        return [own[0], bias[0], *results], None
    x, weight = trace.x, trace.weight
    few = x if x.shape[1] <= _FEW else x.new_empty(len(x), 0, dtype=torch.float32)
    own, tables, bias = torch.empty_like(weight), torch.empty(small.tables.shape), torch.empty(group.hidden)
    kept = to is not None or x is not few  # whether what the ReLU sends back is read below
    narrow.project_back(
        *_arrays(small.tables, small.begins, weight), small.counts, small.usual, small.places, small.lengths,
        few.numpy(), np.float32(scale), stacked.held(trace.first), stacked.held(first), kept, *_arrays(bias, own, tables),
    )  # fmt: skip
    outputs, wide = weight.shape[1], weight.shape[0] - x.shape[1]
    if x is not few:
        own[wide:] = stacked.product(x[None], first[None])[0, :, :outputs]
    if to is not None:
        _multiply(first[:, :outputs], weight[wide:].to(first.dtype), to)
    return [own, bias, *results], tables


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
    """The hidden part of `[B, N]` as `[M, B, H₁]`, without a copy."""
    hidden: Tensor = first[:, : group.hidden].view(len(first), group.experts, group.first_width).transpose(0, 1)
    return hidden


def _logits(first: Tensor, group: Any) -> Tensor:
    return first[:, group.hidden : group.hidden + group.gate_logits]


def _parameters(group: Any) -> list[Tensor]:
    return [group.weight, group.bias, *(p for layer in group.deeper.layers for p in (layer.weight, layer.bias))]


def _split(level: Any, parameters: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    counts = [len(_parameters(group)) for group in level.groups]
    ends = np.cumsum(counts)
    return [parameters[end - count : end] for count, end in zip(counts, ends, strict=True)]


def _addresses(experts: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Where each expert's output of row 0 is, and how many bytes apart its rows are."""
    starts: list[int] = []
    strides: list[int] = []
    for outputs in experts:
        count, apart = len(outputs), outputs.stride(0) * outputs.itemsize
        assert outputs.stride(2) == 1
        starts += [outputs.data_ptr() + expert * apart for expert in range(count)]
        strides += [outputs.stride(1) * outputs.itemsize] * count
    return np.array(starts, np.uint64), np.array(strides, np.int64)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]
