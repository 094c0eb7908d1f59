"""The paper's formula by hand, and by a loop over experts (Ma et al., KDD 2018, section 4.2)."""

import copy
import math

import pytest
import torch

from polyrank.models.mmoe import MMoE, MMoEConfig
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(experts=4, widths=(5,), *, tasks=3, in_width=6):
    model = MMoE(in_width, tasks, MMoEConfig(experts=experts, widths=widths))
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return model


def by_loop(model, x):
    """f_t(x) = Σ_e softmax(W_t x)_e f_e(x), row by row in float64, and the gates' weights."""
    (group,) = copy.deepcopy(model).double().level.groups
    weight, bias, width = group.weight, group.bias.unflatten(0, (group.experts, -1)), group.first_width
    start = model.experts * width
    outputs, gates = [], []
    for row in x.double():
        experts = []
        for e in range(model.experts):
            hidden = torch.relu(row @ weight[:, e * width : (e + 1) * width] + bias[e])
            for layer in group.deeper.layers:
                hidden = torch.relu(hidden @ layer.weight[e] + layer.bias[e, 0])
            experts.append(hidden)
        mixed, shares = [], []
        for t in range(model.tasks):
            powers = [math.exp((row @ weight[:, start + t * model.experts + e]).item()) for e in range(model.experts)]
            share = [power / sum(powers) for power in powers]
            shares.append(share)
            mixed.append(sum(s * expert for s, expert in zip(share, experts, strict=True)))
        outputs.append(torch.stack(mixed))
        gates.append(shares)
    return torch.stack(outputs, dim=1), torch.tensor(gates, dtype=torch.float64)


def test_golden():
    # x = 1: experts give 2 and 4; gates (¼, ¾) and (¾, ¼).
    model = MMoE(1, 2, MMoEConfig(experts=2, widths=(1,)))
    with torch.no_grad():
        model.level.groups[0].weight.copy_(torch.tensor([[2.0, 4.0, 0.0, math.log(3), math.log(3), 0.0]]))
    x = Inputs(torch.ones(1, 1))
    torch.testing.assert_close(model(x), torch.tensor([[[3.5]], [[2.5]]]))
    first, second = model.gates(x)
    torch.testing.assert_close(first.weights, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(second.weights, torch.tensor([[0.75, 0.25]]))


@pytest.mark.parametrize("widths", [(5,), (5, 3), (4, 6, 2), (16,), (5, 32), (4, 6, 16)])  # kernels take 16·k alone
def test_agrees_with_a_loop_over_experts(widths):
    model, x = made(widths=widths), torch.randn(7, 6)
    outputs, gates = by_loop(model, x)
    torch.testing.assert_close(model(Inputs(x)).double(), outputs, rtol=1e-5, atol=1e-5)
    exact, _ = copy.deepcopy(model).double().level.plainly([Inputs(x.double())])
    torch.testing.assert_close(exact, outputs, rtol=0, atol=1e-9)
    for t, gate in enumerate(model.gates(Inputs(x))):
        torch.testing.assert_close(gate.weights.double(), gates[:, t], rtol=1e-5, atol=1e-6)
        assert (gate.level, gate.owner) == (1, t)
        assert gate.experts == ((SHARED, 0), (SHARED, 1), (SHARED, 2), (SHARED, 3))


@pytest.mark.parametrize("width", [5, 16])
def test_starts_as_the_mean_of_its_experts(width):
    model = MMoE(6, 2, MMoEConfig(experts=4, widths=(width,)))
    x = torch.randn(7, 6)
    experts, _ = model.level.groups[0](x)
    torch.testing.assert_close(model(Inputs(x)), experts.mean(dim=0).expand(2, 7, width))


@pytest.mark.parametrize("width", [2, 16])
def test_equal_experts_under_any_gate_give_their_output(width):
    model, x = made(experts=3, widths=(width,)), torch.randn(5, 6)
    (group,) = model.level.groups
    with torch.no_grad():
        group.weight[:, width : 3 * width] = group.weight[:, :width].repeat(1, 2)
        group.bias.copy_(group.bias[:width].repeat(3))
    experts, _ = group(x)
    torch.testing.assert_close(model(Inputs(x)), experts[:1].expand(3, 5, width))


def test_permuting_experts_with_their_gate_columns_changes_nothing():
    model, x = made(experts=3, widths=(2, 16)), Inputs(torch.randn(5, 6))
    before = model(x)
    (group,) = model.level.groups
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        weight = group.weight
        weight[:, :6] = weight[:, :6].unflatten(1, (3, 2))[:, order].flatten(1).clone()
        weight[:, 6:] = weight[:, 6:].unflatten(1, (3, 3))[:, :, order].flatten(1).clone()
        group.bias.copy_(group.bias.view(3, 2)[order].flatten())
        for layer in group.deeper.layers:
            layer.weight.copy_(layer.weight[order].clone())
            layer.bias.copy_(layer.bias[order].clone())
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("width", [8, 16])
def test_every_task_trains_every_expert_and_its_own_gate_alone(width):
    model, x = made(experts=3, widths=(width,), tasks=2), Inputs(torch.randn(64, 6))
    model(x)[0].square().sum().backward()
    gradient = model.level.groups[0].weight.grad
    experts, gates = gradient[:, : 3 * width].view(6, 3, width), gradient[:, 3 * width :].view(6, 2, 3)
    assert experts.abs().sum(dim=(0, 2)).all()
    assert gates[:, 0].all()
    assert not gates[:, 1].any()


def test_parameter_count():
    model = MMoE(10, 3, MMoEConfig(experts=4, widths=(8, 5)))
    experts = 4 * (10 * 8 + 8 + 8 * 5 + 5)
    assert sum(p.numel() for p in model.parameters()) == experts + 3 * 10 * 4
