"""Equations 6 and 7 by hand, and by loops over rows, levels, gates and experts (Tang et al., RecSys 2020)."""

import copy
import itertools
import math

import pytest
import torch

from polyrank.models.ple import PLE, PLEConfig
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(levels, tasks, specific, shared, widths=(5,), *, in_width=6):
    config = PLEConfig(levels=levels, specific_experts=specific, shared_experts=shared, widths=widths)
    model = PLE(in_width, tasks, config)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return model


def expert(group, number, x):
    """Expert `number` of a group, on the vector x."""
    part = slice(number * group.first_width, (number + 1) * group.first_width)
    hidden = torch.relu(x @ group.weight[:, part] + group.bias[part])
    for layer in group.deeper.layers:
        hidden = torch.relu(hidden @ layer.weight[number] + layer.bias[number, 0])
    return hidden


def gated(group, first, selector, experts):
    """Σ_e softmax(W x)_e E_e, the gate's columns starting at `first`, and the gate's weights."""
    start = group.experts * group.first_width + first
    gate = group.weight[:, start : start + len(experts)]
    powers = [math.exp((selector @ gate[:, i]).item()) for i in range(len(experts))]
    weights = [power / sum(powers) for power in powers]
    return sum(w * output for w, output in zip(weights, experts, strict=True)), weights


def by_loop(model, row, tasks, specific, shared):
    """Task states of the last level for one row, and every gate's weights, level by level, in float64."""
    (group,) = model.first.groups
    own = [[expert(group, t * specific + i, row) for i in range(specific)] for t in range(tasks)]
    common = [expert(group, tasks * specific + i, row) for i in range(shared)]
    seen = specific + shared
    found = [gated(group, t * seen, row, own[t] + common) for t in range(tasks)]
    last = len(model.later) == 0
    if not last:
        found.append(gated(group, tasks * seen, row, [*itertools.chain(*own), *common]))
    gates = [weights for _, weights in found]
    for number, level in enumerate(model.later, start=2):
        states = [state for state, _ in found]  # x_1 … x_T, x_s
        *owns, shared_group = level.groups
        own = [[expert(owns[t], i, states[t]) for i in range(specific)] for t in range(tasks)]
        common = [expert(shared_group, i, states[tasks]) for i in range(shared)]
        found = [gated(owns[t], 0, states[t], own[t] + common) for t in range(tasks)]
        if number <= len(model.later):
            found.append(gated(shared_group, 0, states[tasks], [*itertools.chain(*own), *common]))
        gates += [weights for _, weights in found]
    return torch.stack([state for state, _ in found[:tasks]]), gates


def test_golden_of_two_levels():
    # x = 1. Level 1, uniform gates: own experts 2 and 6, shared 4: x_1 = 3, x_2 = 5, x_s = 4.
    # Level 2: own experts double (6 and 10), the shared one triples x_s (12). Task 0's gate has the logits (0, ln 3):
    # ¼·6 + ¾·12 = 10½; task 1's is uniform: ½·10 + ½·12 = 11.
    model = PLE(1, 2, PLEConfig(levels=2, specific_experts=1, shared_experts=1, widths=(1,)))
    (level,) = model.later
    with torch.no_grad():
        model.first.groups[0].weight.copy_(torch.tensor([[2.0, 6.0, 4.0] + [0.0] * 7]))
        level.groups[0].weight.copy_(torch.tensor([[2.0, 0.0, math.log(3) / 3]]))
        level.groups[1].weight.copy_(torch.tensor([[2.0, 0.0, 0.0]]))
        level.groups[2].weight.copy_(torch.tensor([[3.0]]))
    torch.testing.assert_close(model(Inputs(torch.ones(1, 1))), torch.tensor([[[10.5]], [[11.0]]]))


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize(("specific", "shared"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("widths", [(5,), (4, 3), (16,), (4, 16)])  # the kernels take multiples of sixteen alone
def test_agrees_with_loops(levels, tasks, specific, shared, widths):
    model, x = made(levels, tasks, specific, shared, widths), torch.randn(3, 6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(2)  # states stay of the order of one over three levels
    outputs, gates = model(Inputs(x)), model.gates(Inputs(x))
    exact = copy.deepcopy(model).double()
    for row in range(3):
        expected, weights = by_loop(exact, x[row].double(), tasks, specific, shared)
        torch.testing.assert_close(outputs[:, row].double(), expected, rtol=1e-5, atol=1e-5)
        for gate, share in zip(gates, weights, strict=True):
            assert gate.weights[row].tolist() == pytest.approx(share, abs=1e-5)
    states, _ = exact.first.plainly([Inputs(x.double())])
    for level in exact.later:
        states, _ = level.plainly(states)
    torch.testing.assert_close(states[:tasks, 2], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_number_of_gates(levels, tasks):
    gates = made(levels, tasks, 2, 3).gates(Inputs(torch.randn(2, 6)))
    assert len(gates) == levels * tasks + levels - 1
    for level in range(1, levels + 1):
        owners = [gate.owner for gate in gates if gate.level == level]
        assert owners == [*range(tasks), *([SHARED] if level < levels else [])]
    widths = {gate.weights.shape[1] for gate in gates if gate.owner == SHARED}
    assert widths == ({tasks * 2 + 3} if levels > 1 else set())


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("tasks", "specific", "shared"), [(2, 1, 1), (3, 2, 4)])
@pytest.mark.parametrize("widths", [(8,), (8, 5)])
def test_parameter_count_has_no_unused_shared_gate(levels, tasks, specific, shared, widths):
    in_width, out_width = 10, widths[-1]
    config = PLEConfig(levels=levels, specific_experts=specific, shared_experts=shared, widths=widths)
    model = PLE(in_width, tasks, config)
    expected = 0
    everyone = tasks * specific + shared
    for level in range(1, levels + 1):
        sizes = (in_width if level == 1 else out_width, *widths)
        expected += everyone * sum(a * b + b for a, b in itertools.pairwise(sizes))
        expected += sizes[0] * (tasks * (specific + shared) + (everyone if level < levels else 0))
    assert sum(p.numel() for p in model.parameters()) == expected


def test_gate_weights_of_the_smallest_model_by_hand():
    # Levels 2, tasks 2, one expert each: gate widths 2, 2, 3 on D = 10 and 2, 2 on H = 8.
    model = PLE(10, 2, PLEConfig(levels=2, specific_experts=1, shared_experts=1, widths=(8,)))
    experts = 3 * (10 * 8 + 8) + 3 * (8 * 8 + 8)
    assert sum(p.numel() for p in model.parameters()) - experts == 7 * 10 + 4 * 8


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("width", [8, 16])
def test_tasks_meet_through_the_shared_state_only(levels, width):
    """∂L_0 / ∂(own experts of task 1): zero at the last level, not below it."""
    model, x = made(levels, 2, 2, 2, (width,)), torch.randn(64, 6)
    model(Inputs(x))[0].square().sum().backward()
    of_task_1 = model.first.groups[0].weight.grad[:, 2 * width : 4 * width]
    assert bool(of_task_1.any()) == (levels > 1)
    for number, level in enumerate(model.later, start=2):
        mine, others, common = level.groups
        assert bool(others.weight.grad.any()) == (number < levels)
        assert bool(others.bias.grad.any()) == (number < levels)
        assert mine.weight.grad.any()
        assert common.weight.grad.any()


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("width", [8, 16])
def test_every_expert_and_every_gate_is_trained_by_all_tasks_together(levels, width):
    tasks, specific, shared = 2, 2, 3
    model, x = made(levels, tasks, specific, shared, (width,)), torch.randn(64, 6)
    model(Inputs(x)).square().sum().backward()
    for group in [*model.first.groups, *(group for level in model.later for group in level.groups)]:
        experts = group.weight.grad[:, : group.experts * width].unflatten(1, (group.experts, width))
        gates = group.weight.grad[:, group.experts * width :]
        assert experts.abs().sum(dim=(0, 2)).all()
        assert gates.abs().sum(dim=0).all()
