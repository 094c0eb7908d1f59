"""Fusion and native residual by hand, and by a loop over units (Li et al., KDD 2023)."""

import math

import pytest
import torch

from polyrank.models.adatt import AdaTT, AdaTTConfig
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import InputColumns, Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_golden():
    # x = 1: experts give 2 and 4; gates (¼, ¾) and (¾, ¼); one expert each, so v = 1: 3½ + 2 and 2½ + 4
    model = AdaTT(1, 2, AdaTTConfig(levels=1, specific_experts=1, shared_experts=0, widths=(1,)))
    with torch.no_grad():
        model.fusions[0].groups[0].weight.copy_(torch.tensor([[2.0, 4.0]]))
        model.selectors[0].linear.weight.copy_(torch.tensor([[[0.0, math.log(3)]], [[math.log(3), 0.0]]]))
    x = Inputs(torch.ones(1, 1))
    torch.testing.assert_close(model(x), torch.tensor([[[5.5]], [[6.5]]]))
    first, second = model.gates(x)
    torch.testing.assert_close(first.weights, torch.tensor([[0.25, 0.75]]))
    assert (first.experts, second.owner) == (((0, 0), (1, 0)), 1)
    assert model.natives[0].v is None


def by_loop(model, x, tasks, own, shared):
    """Unit by unit: f_t^l = Σ_e softmax(W f)_e E_e + Σ_i v_i E_ti."""
    units = tasks + (shared > 0)
    counts = [own] * tasks + [shared] * (shared > 0)
    states = [x] * units
    for number, (level, selectors, native) in enumerate(
        zip(model.fusions, model.selectors, model.natives, strict=True)
    ):
        experts = []
        for unit in range(units):
            for index in range(counts[unit]):
                group = level.groups[0] if number == 0 else level.groups[unit]
                place = sum(counts[:unit]) + index if number == 0 else index
                width = group.first_width
                weight, bias = (p[..., place * width : (place + 1) * width] for p in (group.weight, group.bias))
                experts.append(torch.relu(states[unit] @ weight + bias))
        last = number == len(model.fusions) - 1
        learned = list(native.v) if native.v is not None else []
        fused = []
        for unit in range(tasks if last else units):
            weights = torch.softmax(states[unit] @ selectors.linear.weight[unit], dim=1)
            total = sum(weights[:, e : e + 1] * expert for e, expert in enumerate(experts))
            for index in range(counts[unit]):
                v = 1.0 if counts[unit] == 1 else learned.pop(0)
                total = total + v * experts[sum(counts[:unit]) + index]
            fused.append(total)
        assert not learned
        states = fused
    return torch.stack(states[:tasks])


@pytest.mark.parametrize(("own", "shared"), [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_agrees_with_a_loop_over_units(own, shared, levels):
    config = AdaTTConfig(levels=levels, specific_experts=own, shared_experts=shared, widths=(4,))
    model = AdaTT(3, 2, config)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(Inputs(x)), by_loop(model, x, 2, own, shared))


def test_the_shared_unit_lends_experts_on_the_last_level_but_has_no_gate_there():
    model = AdaTT(3, 2, AdaTTConfig(levels=2, specific_experts=1, shared_experts=1, widths=(4,)))
    owners = [(gate.level, gate.owner) for gate in model.gates(Inputs(torch.randn(5, 3)))]
    assert owners == [(1, 0), (1, 1), (1, SHARED), (2, 0), (2, 1)]
    model(Inputs(torch.randn(9, 3))).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters())


def test_natives_start_in_the_paper_s_range():
    v = torch.cat([AdaTT(3, 4, AdaTTConfig(specific_experts=4)).natives[0].v for _ in range(20)])
    assert v.abs().max() <= 0.5
    assert v.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.1)


def test_first_gates_may_read_one_feature_alone():
    columns = InputColumns({"user": (0, 1), "scene": (2,)}, [(0, 1, 2)])
    model = AdaTT(3, 2, AdaTTConfig(levels=1, gate_features=("scene",)), columns)
    torch.nn.init.normal_(model.selectors[0].linear.weight)
    x = torch.randn(5, 3)
    other = torch.cat([torch.randn(5, 2), x[:, 2:]], dim=1)
    assert torch.equal(model.gates(Inputs(x))[1].weights, model.gates(Inputs(other))[1].weights)
