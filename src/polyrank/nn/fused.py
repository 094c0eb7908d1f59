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

from polyrank.nn.inputs import Inputs, Narrow
from polyrank.nn.kernels import activations, gates, narrow
from polyrank.nn.kernels.threads import follow_torch
from polyrank.nn.kernels.vectors import LANES, STEP
from polyrank.nn.layers import Dropout

_Steps = list[tuple[Tensor, Tensor, Tensor]]

_FEW = 32  # so few numbers beside small tables are not worth a product of their own


@dataclass
class _Trace:
    """What a group's forward pass leaves for its backward.

    Attributes:
        x: `[B, D]` the written-out input, in the type of the products where these read it.
        first: `[B, N]` the first layer's activations and the gate logits, N ≥ M·H₁ + K.
        weight: the first layer's, `[D, N]`.
        scale: what dropout multiplied activations with.
        deeper: of each deeper layer its input `[M, B, H']`, weight and output `[M, B, H]`.
    """

    x: Tensor
    first: Tensor
    weight: Tensor
    deeper: _Steps
    scale: float

    def experts(self, group: Any) -> Tensor:
        """The experts' outputs, `[M, B, H]`, not necessarily contiguous."""
        return self.deeper[-1][2] if self.deeper else _by_expert(self.first, group)


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
    """`Towers.plainly`, faster: `[T, B, H]` → `[T, B, 1]`."""
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
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        with torch.autocast("cpu", enabled=False):
            ctx.steps, read = _deeper_forward(parameters, x.to(kind), dropout)
        ctx.scale, ctx.kind = dropout.scale, kind
        return read.float().detach()  # another tensor than the one kept, which would otherwise keep the graph alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        follow_torch()
        gradient = gradient.to(ctx.kind).clone(memory_format=torch.contiguous_format)  # it is changed below
        results, gradient = _deeper_backward(ctx.steps, gradient, ctx.scale)
        return None, gradient.float(), *results


class _Towers(torch.autograd.Function):
    """(dropout, x `[T, B, H]`, each layer's weight and bias) → `[T, B, 1]`; ReLU and dropout but for the last layer."""

    @staticmethod
    def forward(ctx: Any, dropout: Dropout, x: Tensor, *parameters: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        *hidden, weight, bias = parameters
        with torch.autocast("cpu", enabled=False):
            steps, read = _deeper_forward(hidden, x.to(kind), dropout)
            matrix = weight.detach().to(kind)
            ctx.scale, ctx.steps, ctx.read, ctx.matrix, ctx.given = dropout.scale, steps, read, matrix, x.dtype
            return torch.baddbmm(bias.detach().to(kind), read, matrix).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        follow_torch()
        bias = gradient.sum(dim=1, keepdim=True)
        gradient = gradient.to(ctx.matrix.dtype)
        weight = _product(ctx.read, gradient)
        gradient = torch.bmm(gradient, ctx.matrix.transpose(1, 2))
        results, gradient = _deeper_backward(ctx.steps, gradient, ctx.scale)
        return None, gradient.to(ctx.given), *results, weight, bias


class _Level(torch.autograd.Function):
    """(level, narrow part, x `[G, B, D]`, its tables, parameters) → mixtures `[I, B, H]`, gate weights `[B, L]`."""

    @staticmethod
    def forward(
        ctx: Any, level: Any, small: Narrow | None, x: Tensor, tables: Tensor | None, *parameters: Tensor
    ) -> Any:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        traces = []
        with torch.autocast("cpu", enabled=False):
            for group, own, read in zip(level.groups, _split(level, parameters), x, strict=True):
                traces.append(_group_forward(group, own, read, small, kind))
            found = [trace.experts(group) for trace, group in zip(traces, level.groups, strict=True)]
            logits = torch.cat([_logits(t.first, g) for t, g in zip(traces, level.groups, strict=True)], dim=1).float()
            if level.gates:
                mixed = torch.empty(len(level.gates), x.shape[1], level.out_width, dtype=kind)
                weights = torch.empty_like(logits)
                plan = _plan(level)
                gates.mix(*_addresses(found), logits.numpy(), *plan, weights.numpy(), _held(mixed))
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
            arguments = (*_addresses(ctx.found), ctx.weights.numpy(), *_plan(level), masks)
            gates.mix_back(*arguments, _held(gradient.contiguous()), *_addresses(targets), slopes.numpy())
        else:
            slopes = torch.zeros_like(ctx.weights)
            for target, part in zip(targets, torch.split(gradient, [g.experts for g in level.groups]), strict=True):
                target.copy_(part)
        results: list[Any] = []
        read = torch.empty_like(x) if ctx.needs_input_grad[2] else None
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
    weight, bias, *deeper = parameters
    outputs = weight.shape[1]
    if small is None:
        x, weight = x.to(kind), weight.to(kind)
        first = torch.mm(x, weight)
        _rectify(first[None], bias[None])
    else:
        padded = -(-outputs // LANES) * LANES
        weight = weight.detach() if padded == outputs else torch.nn.functional.pad(weight, (0, padded - outputs))
        few, x, first = _split_wide(x, weight, kind)
        biases = torch.nn.functional.pad(bias, (0, padded - group.hidden))
        scratch = torch.empty(narrow.GROUPS, len(small.tables) + STEP + few.shape[1] + 3, LANES)
        read = (_array(t) for t in (small.tables, small.begins, weight, biases))
        listed = (t.numpy() for t in (small.counts, small.usual, small.places, small.lengths, few))
        added = x.shape[1] > few.shape[1]
        narrow.project(*read, group.hidden, *listed, added, scratch.numpy(), _held(first))
    _drop(first[None], group.hidden, group.dropout)
    steps, _ = _deeper_forward(deeper, _by_expert(first, group), group.dropout)
    return _Trace(x, first, weight, steps, group.dropout.scale)


def _deeper_forward(parameters: Sequence[Tensor], x: Tensor, dropout: Dropout) -> tuple[_Steps, Tensor]:
    """Layers on `[M, B, H']`, ReLU and dropout after each: what each read, its weight and output; and the last one."""
    steps = []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        matrix = weight.detach().to(x.dtype)
        output = torch.bmm(x, matrix)
        _rectify(output, bias[:, 0])
        _drop(output, output.shape[2], dropout)
        steps.append((x, matrix, output))
        x = output
    return steps, x


def _deeper_backward(
    steps: _Steps, gradient: Tensor, scale: float, to: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """Gradients of `_deeper_forward`'s parameters and input; the latter is written to `to` where given."""
    results: list[Tensor] = []
    for index in reversed(range(len(steps))):
        read, weight, output = steps[index]
        bias = _rectify_back(gradient, output, scale, output.shape[2])
        results = [_product(read, gradient), bias[:, None], *results]
        gradient = torch.bmm(gradient, weight.transpose(1, 2), out=to if index == 0 else None)
    return results, gradient


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
    results, _ = _deeper_backward(trace.deeper, gradient, scale, _by_expert(first, group))
    if small is None:
        bias = _rectify_back(first[None], trace.first[None], scale, group.hidden)[0]
        own = _product(trace.x[None], first[None])[0]
        if to is not None:
            _multiply(first, trace.weight, to)
        return [own, bias, *results], None
    padding = first.shape[1] - group.hidden - group.gate_logits
    if padding:
        first[:, -padding:] = 0.0
    x, weight, size = trace.x, trace.weight, len(small.tables)
    few = x if x.shape[1] <= _FEW else x.new_empty(len(x), 0, dtype=torch.float32)
    own, tables, bias = torch.empty_like(weight), torch.empty(small.tables.shape), torch.empty(first.shape[1])
    scratch = torch.empty(narrow.GROUPS, size + STEP + few.shape[1] + 3, LANES)
    parts = torch.empty(narrow.GROUPS, size, -(-tables.shape[1] // LANES) * LANES)
    wide = weight.shape[0] - x.shape[1]
    turned = torch.empty(narrow.GROUPS, LANES * wide + LANES)
    read = (_array(small.tables), small.begins.numpy(), weight.numpy(), turned.numpy())
    listed = (t.numpy() for t in (small.counts, small.usual, small.places, small.lengths, few))
    written = (_held(trace.first), _held(first), *(t.numpy() for t in (scratch, parts, bias, own, tables)))
    narrow.project_back(*read, group.hidden, *listed, np.float32(scale), *written)
    if x.shape[1] > few.shape[1]:
        own[wide:] = _product(x[None], first[None])[0]
    if to is not None:
        _multiply(first, weight[wide:].to(first.dtype), to)
    outputs = group.hidden + group.gate_logits
    return [own[:, :outputs].contiguous(), bias[: group.hidden], *results], tables


def _product(read: Tensor, gradient: Tensor) -> Tensor:
    """A layer's weight gradient, `[M, B, D]`ᵀ `[M, B, H]` → `[M, D, H]` float32.

    In bf16 the product's own transpose is computed: then the operand that has to be packed for the processor is the one
    that lies in rows.
    """
    if read.dtype == torch.float32:
        return torch.bmm(read.transpose(1, 2), gradient)
    return torch.bmm(gradient.transpose(1, 2), read).transpose(1, 2).float().contiguous()


def _multiply(first: Tensor, weight: Tensor, to: Tensor) -> None:
    """Write first · weightᵀ to `to`."""
    if to.dtype == first.dtype:
        torch.mm(first, weight.t(), out=to)
    else:
        to.copy_(torch.mm(first, weight.t()))


def _split_wide(x: Tensor, weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What of the wide input the kernel multiplies itself (all if it is little); x; and the product of the rest."""
    if x.shape[1] <= _FEW:
        x = x.contiguous()
        return x, x, torch.empty(len(x), weight.shape[1], dtype=kind)
    few, x = x[:, :0], x.to(kind)
    return few, x, torch.mm(x, weight[weight.shape[0] - x.shape[1] :].to(kind))


def _rectify(values: Tensor, bias: Tensor) -> None:
    """Add the bias `[G, H]` to the first H columns of `values [G, B, N]` and cut off what is negative, in place."""
    activations.rectify(_held(values), bias.detach().numpy())


def _drop(values: Tensor, width: int, dropout: Dropout) -> None:
    """Dropout on the first `width` columns of `values [G, B, N]`, in place."""
    if dropout.active:
        bits = dropout.bits(torch.Size((*values.shape[:2], width)))
        activations.drop(_held(values), bits.numpy(), dropout.dropped, np.float32(dropout.scale))


def _rectify_back(gradient: Tensor, values: Tensor, scale: float, width: int) -> Tensor:
    """The gradient under ReLU and dropout, in place, and its sum over rows: the bias' `[G, H]`."""
    chunks = -(-gradient.shape[1] // activations.CHUNK)
    partial = torch.empty(chunks, len(gradient), width)
    activations.rectify_back(_held(gradient), _held(values), np.float32(scale), partial.numpy())
    return partial.sum(dim=0)


def _held(values: Tensor) -> Any:
    """As kernels take activations: float32, or bf16 as uint16."""
    return values.numpy() if values.dtype == torch.float32 else values.view(torch.uint16).numpy()


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


def _plan(level: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where each gate's logits begin, and the expert of each logit."""
    members = [expert for gate in level.gates for expert in gate]
    return np.array(level.starts, np.int64), np.array(members, np.int64)


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


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()
