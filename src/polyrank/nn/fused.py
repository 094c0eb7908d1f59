"""A level of experts and gates as one autograd function with a backward of its own.

Autograd would keep an activation for every operation, and copy activations to slice, stack and transpose them. Here
matrix products write where the next one reads, ReLU, bias and dropout work in place, gates read experts where they
stand, and small tables are multiplied with the weights instead of with the batch (`polyrank.nn.kernels.narrow`).

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
        x: `[B, D]` the written-out input, in the type of the products.
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


class _Towers(torch.autograd.Function):
    """(dropout, x `[T, B, H]`, each layer's weight and bias) → `[T, B, 1]`; ReLU and dropout but for the last layer."""

    @staticmethod
    def forward(ctx: Any, dropout: Dropout, x: Tensor, *parameters: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        *hidden, weight, bias = parameters
        with torch.autocast("cpu", enabled=False):
            steps, read = _deeper_forward(hidden, x.to(kind), dropout)
            matrix = weight.detach().to(kind)
            ctx.scale, ctx.steps, ctx.read, ctx.matrix = dropout.scale, steps, read, matrix
            return torch.baddbmm(bias.detach().to(kind), read, matrix).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        follow_torch()
        bias = gradient.sum(dim=1, keepdim=True)
        gradient = gradient.to(ctx.matrix.dtype)
        weight = torch.bmm(ctx.read.transpose(1, 2), gradient).float()
        gradient = torch.bmm(gradient, ctx.matrix.transpose(1, 2))
        results, gradient = _deeper_backward(ctx.steps, gradient, ctx.scale)
        return None, gradient.float(), *results, weight, bias


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
                traces.append(_group_forward(group, own, read.to(kind), small))
            found = [trace.experts(group) for trace, group in zip(traces, level.groups, strict=True)]
            logits = torch.cat([_logits(t.first, g) for t, g in zip(traces, level.groups, strict=True)], dim=1).float()
            if level.gates:
                found = [experts.float() for experts in found]
                mixed = torch.empty(len(level.gates), x.shape[1], level.out_width)
                weights = torch.empty_like(logits)
                plan = _plan(level)
                gates.mix(*_addresses(found), logits.numpy(), *plan, weights.numpy(), mixed.numpy())
            else:
                mixed, weights = torch.cat([experts.float() for experts in found]), logits
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
        kind = traces[0].x.dtype
        firsts = [torch.empty_like(trace.first, dtype=torch.float32) for trace in traces]
        targets = [
            torch.empty(experts.shape) if trace.deeper else _by_expert(first, group)
            for trace, first, group, experts in zip(traces, firsts, level.groups, ctx.found, strict=True)
        ]
        if level.gates:
            slopes = torch.empty_like(ctx.weights)
            arguments = (*_addresses(ctx.found), ctx.weights.numpy(), *_plan(level), gradient.contiguous().numpy())
            gates.mix_back(*arguments, *_addresses(targets), slopes.numpy())
        else:
            slopes = torch.zeros_like(ctx.weights)
            for target, part in zip(targets, torch.split(gradient, [g.experts for g in level.groups]), strict=True):
                target.copy_(part)
        results: list[Any] = []
        read = torch.empty(x.shape) if ctx.needs_input_grad[2] else None
        from_tables = None
        column = 0
        for index, (group, trace, first, target) in enumerate(zip(level.groups, traces, firsts, targets, strict=True)):
            _logits(first, group).copy_(slopes[:, column : column + group.gate_logits])
            column += group.gate_logits
            to = None if read is None else read[index]
            own, from_tables = _group_backward(group, trace, small, first, target.to(kind), to)
            results += own
        return None, None, read, from_tables, *results


def _group_forward(group: Any, parameters: Sequence[Tensor], x: Tensor, small: Narrow | None) -> _Trace:
    weight, bias, *deeper = parameters
    rows, outputs = len(x), weight.shape[1]
    if small is None:
        weight = weight.to(x.dtype)
        first = torch.mm(x, weight)
        _rectify(first[None], bias[None])
    else:
        padded = -(-outputs // LANES) * LANES
        weight = weight.detach() if padded == outputs else torch.nn.functional.pad(weight, (0, padded - outputs))
        few, first = _split_wide(x, weight, rows, padded)
        biases = torch.nn.functional.pad(bias, (0, padded - group.hidden))
        scratch = torch.empty(narrow.GROUPS, len(small.tables) + STEP + few.shape[1] + 3, LANES)
        read = (_array(t) for t in (small.tables, small.begins, weight, biases))
        listed = (t.numpy() for t in (small.counts, small.usual, small.places, small.lengths, few))
        added = x.shape[1] > few.shape[1]
        narrow.project(*read, group.hidden, *listed, added, scratch.numpy(), first.numpy())
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
        results = [torch.bmm(read.transpose(1, 2), gradient).float(), bias[:, None], *results]
        if index == 0 and to is not None and to.dtype == gradient.dtype:
            gradient = torch.bmm(gradient, weight.transpose(1, 2), out=to)
        else:
            gradient = torch.bmm(gradient, weight.transpose(1, 2))
            if index == 0 and to is not None:
                to.copy_(gradient)
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
        first = first.to(trace.x.dtype)
        own = torch.mm(trace.x.t(), first).float()
        if to is not None:
            torch.mm(first, trace.weight.t(), out=to) if to.dtype == first.dtype else to.copy_(first @ trace.weight.t())
        return [own, bias, *results], None
    padding = first.shape[1] - group.hidden - group.gate_logits
    if padding:
        first[:, -padding:] = 0.0
    x, weight, size = trace.x, trace.weight, len(small.tables)
    few = x.contiguous() if x.shape[1] <= _FEW else x[:, :0]
    own, tables, bias = torch.empty_like(weight), torch.empty(small.tables.shape), torch.empty(first.shape[1])
    scratch = torch.empty(narrow.GROUPS, size + STEP + few.shape[1] + 3, LANES)
    parts = torch.empty(narrow.GROUPS, size, -(-tables.shape[1] // LANES) * LANES)
    wide = weight.shape[0] - x.shape[1]
    turned = torch.empty(first.shape[1] * wide + LANES)
    narrow.turn(weight.numpy(), wide, turned.numpy())
    read = (_array(small.tables), small.begins.numpy(), first.shape[1], turned.numpy())
    listed = (t.numpy() for t in (small.counts, small.usual, small.places, small.lengths, few))
    written = (t.numpy() for t in (trace.first, first, scratch, parts, bias, own, tables))
    narrow.project_back(*read, group.hidden, *listed, np.float32(scale), *written)
    if x.shape[1] > few.shape[1]:
        torch.mm(x.t(), first, out=own[wide:])
    if to is not None:
        torch.mm(first, weight[wide:].t(), out=to)
    outputs = group.hidden + group.gate_logits
    return [own[:, :outputs].contiguous(), bias[: group.hidden], *results], tables


def _split_wide(x: Tensor, weight: Tensor, rows: int, outputs: int) -> tuple[Tensor, Tensor]:
    """What of the wide input the kernel multiplies itself (all if it is little), and the product of the rest."""
    if x.shape[1] <= _FEW:
        return x.contiguous(), torch.empty(rows, outputs)
    return x[:, :0], torch.mm(x, weight[weight.shape[0] - x.shape[1] :])


def _rectify(values: Tensor, bias: Tensor) -> None:
    """Add the bias `[G, H]` to the first H columns of `values [G, B, N]` and cut off what is negative, in place."""
    if values.dtype == torch.float32:
        activations.rectify(values.numpy(), bias.detach().numpy())
    else:
        own = values[:, :, : bias.shape[1]]
        own.add_(bias.to(own.dtype)[:, None]).relu_()


def _drop(values: Tensor, width: int, dropout: Dropout) -> None:
    """Dropout on the first `width` columns of `values [G, B, N]`, in place."""
    if not dropout.active:
        return
    own = values[:, :, :width]
    bits = dropout.bits(own.shape)
    if values.dtype == torch.float32:
        activations.drop(values.numpy(), bits.numpy(), dropout.dropped, np.float32(dropout.scale))
    else:
        own.mul_(dropout.factors(bits, own.dtype))


def _rectify_back(gradient: Tensor, values: Tensor, scale: float, width: int) -> Tensor:
    """The gradient under ReLU and dropout, in place, and its sum over rows: the bias' `[G, H]`."""
    if gradient.dtype == values.dtype == torch.float32:
        chunks = -(-gradient.shape[1] // activations.CHUNK)
        partial = torch.empty(chunks, len(gradient), width)
        activations.rectify_back(gradient.numpy(), values.numpy(), np.float32(scale), partial.numpy())
        return partial.sum(dim=0)
    own = gradient[:, :, :width]
    own.mul_((values[:, :, :width] > 0).to(own.dtype).mul_(scale))
    return own.sum(dim=1, dtype=torch.float32)


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
        count, apart = len(outputs), outputs.stride(0) * 4
        assert outputs.dtype == torch.float32, "kernels read rows of float32"
        assert outputs.stride(2) == 1
        starts += [outputs.data_ptr() + expert * apart for expert in range(count)]
        strides += [outputs.stride(1) * 4] * count
    return np.array(starts, np.uint64), np.array(strides, np.int64)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()
