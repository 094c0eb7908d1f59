"""The paper's formula by hand, and by a loop over experts (Tang et al., RecSys 2020, section 4.1)."""

import copy
import math

import pytest
import torch

from polyrank.models.cgc import CGC, CGCConfig
from polyrank.models.ple import PLE, PLEConfig
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(tasks, specific, shared, widths=(5,), *, in_width=6):
    config = CGCConfig(specific_experts=specific, shared_experts=shared, widths=widths)
    model = CGC(in_width, tasks, config)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return model


def by_loop(model, x, tasks, specific, shared):
    """g_t(x) = softmax(W_t x) S_t(x), row by row in float64; S_t stacks t's own experts, then the shared ones."""
    (group,) = copy.deepcopy(model).double().level.groups
    weight, bias, width = group.weight, group.bias.unflatten(0, (group.experts, -1)), group.first_width
    start, seen = (tasks * specific + shared) * width, specific + shared
    outputs = []
    for row in x.double():
        outputs.append([])
        for t in range(tasks):
            numbers = [t * specific + i for i in range(specific)] + [tasks * specific + i for i in range(shared)]
            gate = weight[:, start + t * seen : start + (t + 1) * seen]
            powers = [math.exp((row @ gate[:, i]).item()) for i in range(seen)]
            mixed = torch.zeros(group.out_width, dtype=torch.float64)
            for power, e in zip(powers, numbers, strict=True):
                hidden = torch.relu(row @ weight[:, e * width : (e + 1) * width] + bias[e])
                for layer in group.deeper.layers:
                    hidden = torch.relu(hidden @ layer.weight[e] + layer.bias[e, 0])
                mixed = mixed + power / sum(powers) * hidden
            outputs[-1].append(mixed)
        outputs[-1] = torch.stack(outputs[-1])
    return torch.stack(outputs, dim=1)


def test_golden():
    # x = 1: own experts 2 and 6, shared 4; task 0 gates (¼, ¾), task 1 (½, ½).
    model = CGC(1, 2, CGCConfig(specific_experts=1, shared_experts=1, widths=(1,)))
    with torch.no_grad():
        model.level.groups[0].weight.copy_(torch.tensor([[2.0, 6.0, 4.0, 0.0, math.log(3), 0.0, 0.0]]))
    torch.testing.assert_close(model(Inputs(torch.ones(1, 1))), torch.tensor([[[3.5]], [[5.0]]]))


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize(("specific", "shared"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("widths", [(5,), (4, 3), (16,), (7, 32)])  # the kernels take multiples of sixteen alone
def test_agrees_with_a_loop_over_experts(tasks, specific, shared, widths):
    model, x = made(tasks, specific, shared, widths), torch.randn(4, 6)
    expected = by_loop(model, x, tasks, specific, shared)
    torch.testing.assert_close(model(Inputs(x)).double(), expected, rtol=1e-5, atol=1e-5)
    exact, _ = model.double().level.plainly([Inputs(x.double())])
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-9)


def test_is_ple_of_one_level():
    model, x = made(2, 2, 3), Inputs(torch.randn(4, 6))
    config = PLEConfig(levels=1, specific_experts=2, shared_experts=3, widths=(5,))
    other = PLE(6, 2, config)
    other.first.load_state_dict(model.level.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("width", [8, 16])
def test_own_experts_are_trained_by_their_task_alone_and_shared_ones_by_all(width):
    tasks, specific, shared = 3, 2, 2
    model, x = made(tasks, specific, shared, (width,)), Inputs(torch.randn(64, 6))
    weight, bias = model.level.groups[0].weight, model.level.groups[0].bias
    everyone = tasks * specific + shared
    for t in range(tasks):
        by_weight, by_bias = torch.autograd.grad(model(x)[t].square().sum(), [weight, bias])
        experts = by_weight[:, : everyone * width].view(6, everyone, width)
        gates = by_weight[:, everyone * width :].view(6, tasks, specific + shared)
        heard = experts.abs().sum(dim=(0, 2)) > 0
        assert torch.equal(heard, by_bias.view(everyone, width).abs().sum(dim=1) > 0)
        own = torch.arange(tasks).repeat_interleave(specific) == t
        assert heard.tolist() == [*own.tolist(), *[True] * shared]
        assert gates[:, t].all()
        assert not gates[:, torch.arange(tasks) != t].any()


def test_gates_are_one_a_task_and_named_own_first():
    model = made(2, 2, 1)
    first, second = model.gates(Inputs(torch.randn(4, 6)))
    assert (first.level, first.owner, second.owner) == (1, 0, 1)
    assert first.experts == ((0, 0), (0, 1), (SHARED, 0))
    assert second.experts == ((1, 0), (1, 1), (SHARED, 0))


@pytest.mark.parametrize(("tasks", "specific", "shared"), [(2, 1, 1), (3, 2, 4), (1, 2, 2)])
def test_parameter_count_has_no_shared_gate(tasks, specific, shared):
    model = CGC(10, tasks, CGCConfig(specific_experts=specific, shared_experts=shared, widths=(8, 5)))
    experts = (tasks * specific + shared) * (10 * 8 + 8 + 8 * 5 + 5)
    assert sum(p.numel() for p in model.parameters()) == experts + tasks * 10 * (specific + shared)
