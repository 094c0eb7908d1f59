"""The paper's formula by hand, and by a loop over experts (Ma et al., KDD 2018, section 4.2)."""

import math

import pytest
import torch

from polyrank.models.mmoe import MMoE, MMoEConfig
from polyrank.nn.experts import SHARED


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(experts=4, widths=(5,), *, tasks=3, in_width=6):
    model = MMoE(in_width, tasks, MMoEConfig(experts=experts, widths=widths)).double()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return model


def by_loop(model, x):
    """f_t(x) = Σ_e softmax(W_t x)_e f_e(x), row by row, and the gates' weights."""
    weight, bias, width = model.group.weight[0], model.group.bias[0, 0], model.group.first_width
    start = model.experts * width
    outputs, gates = [], []
    for row in x:
        experts = []
        for e in range(model.experts):
            hidden = torch.relu(row @ weight[:, e * width : (e + 1) * width] + bias[e])
            for layer in model.group.deeper.layers:
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
    return torch.stack(outputs), torch.tensor(gates, dtype=torch.float64)


def test_golden():
    # x = 1: experts give 2 and 4; gates (¼, ¾) and (¾, ¼).
    model = MMoE(1, 2, MMoEConfig(experts=2, widths=(1,)))
    with torch.no_grad():
        model.group.weight.copy_(torch.tensor([2.0, 4.0, 0.0, math.log(3), math.log(3), 0.0]).view(1, 1, 6))
    x = torch.ones(1, 1)
    torch.testing.assert_close(model(x), torch.tensor([[[3.5], [2.5]]]))
    first, second = model.gates(x)
    torch.testing.assert_close(first.weights, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(second.weights, torch.tensor([[0.75, 0.25]]))


@pytest.mark.parametrize("widths", [(5,), (5, 3), (4, 6, 2)])
def test_agrees_with_a_loop_over_experts(widths):
    model, x = made(widths=widths), torch.randn(7, 6, dtype=torch.float64)
    outputs, gates = by_loop(model, x)
    torch.testing.assert_close(model(x), outputs, rtol=0, atol=1e-9)
    for t, gate in enumerate(model.gates(x)):
        torch.testing.assert_close(gate.weights, gates[:, t], rtol=0, atol=1e-9)
        assert (gate.level, gate.owner) == (1, t)
        assert gate.experts == ((SHARED, 0), (SHARED, 1), (SHARED, 2), (SHARED, 3))


def test_starts_as_the_mean_of_its_experts():
    model = MMoE(6, 2, MMoEConfig(experts=4, widths=(5,)))
    x = torch.randn(7, 6)
    experts, _ = model.group(x[None])
    torch.testing.assert_close(model(x), experts[:, 0].mean(dim=1, keepdim=True).expand(7, 2, 5))


def test_equal_experts_under_any_gate_give_their_output():
    model, x = made(experts=3, widths=(2,)), torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        model.group.weight[:, :, 2:6] = model.group.weight[:, :, :2].repeat(1, 1, 2)
        model.group.bias[:, :, 1:] = model.group.bias[:, :, :1]
    experts, _ = model.group(x[None])
    torch.testing.assert_close(model(x), experts[:, 0, :1].expand(5, 3, 2))


def test_permuting_experts_with_their_gate_columns_changes_nothing():
    model, x = made(experts=3, widths=(2, 4)), torch.randn(5, 6, dtype=torch.float64)
    before = model(x)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        weight = model.group.weight
        weight[:, :, :6] = weight[:, :, :6].unflatten(2, (3, 2))[:, :, order].flatten(2).clone()
        weight[:, :, 6:] = weight[:, :, 6:].unflatten(2, (3, 3))[:, :, :, order].flatten(2).clone()
        model.group.bias.copy_(model.group.bias[:, :, order].clone())
        for layer in model.group.deeper.layers:
            layer.weight.copy_(layer.weight[order].clone())
            layer.bias.copy_(layer.bias[order].clone())
    torch.testing.assert_close(model(x), before)


def test_every_task_trains_every_expert_and_its_own_gate_alone():
    model, x = made(experts=3, widths=(8,), tasks=2), torch.randn(64, 6, dtype=torch.float64)
    model(x)[:, 0].square().sum().backward()
    gradient = model.group.weight.grad[0]
    experts, gates = gradient[:, :24].view(6, 3, 8), gradient[:, 24:].view(6, 2, 3)
    assert experts.abs().sum(dim=(0, 2)).all()
    assert gates[:, 0].all()
    assert not gates[:, 1].any()


def test_parameter_count():
    model = MMoE(10, 3, MMoEConfig(experts=4, widths=(8, 5)))
    experts = 4 * (10 * 8 + 8 + 8 * 5 + 5)
    assert sum(p.numel() for p in model.parameters()) == experts + 3 * 10 * 4
