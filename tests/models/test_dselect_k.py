"""Selectors by hand (Hazimeh et al., NeurIPS 2021)."""

import math

import pytest
import torch

from polyrank.models.dselect_k import DSelectK, DSelectKConfig, smooth_step
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import InputColumns, Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(tasks, bias, **knobs):
    """Experts that give 1, 2, 3, …; gates of these biases."""
    config = DSelectKConfig(**({"experts": 4, "selected": 1, "routing": "task", "widths": (1,)} | knobs))
    model = DSelectK(1, tasks, config)
    with torch.no_grad():
        model.level.groups[0].weight.copy_(torch.arange(1.0, config.experts + 1)[None])
        model.bias.copy_(torch.tensor(bias))
    return model


ONE = Inputs(torch.ones(1, 1))


def test_golden():
    # S(¼) = 0.84375, S(−0.1) = 0.352; S(½) = 1, S(−½) = 0
    model = made(2, [0.25, -0.1, 7.0, 0.5, -0.5, 7.0])
    first, second = model.gates(ONE)
    assert first.weights[0].tolist() == pytest.approx([0.10125, 0.055, 0.54675, 0.297])
    assert second.weights[0].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert first.experts == ((SHARED, 0), (SHARED, 1), (SHARED, 2), (SHARED, 3))
    mean = 0.10125 + 2 * 0.055 + 3 * 0.54675 + 4 * 0.297
    torch.testing.assert_close(model(ONE), torch.tensor([[[mean]], [[3.0]]]))


def test_two_selectors_are_weighed_by_a_softmax():
    # expert 3 (binary 10) with a = ln 3, expert 2 (01) with a = 0
    model = made(1, [0.5, -0.5, math.log(3), -0.5, 0.5, 0.0], selected=2)
    assert model.gates(ONE)[0].weights[0].tolist() == pytest.approx([0.0, 0.25, 0.75, 0.0])


def test_the_entropy_by_hand():
    model = made(2, [0.25, -0.1, 0.0, 0.5, -0.5, 0.0], entropy=2.0)
    model(Inputs(torch.ones(3, 1)))  # equal rows: the mean is one row's
    first = -sum(r * math.log(r + 1e-6) for r in (0.10125, 0.055, 0.54675, 0.297))
    assert model.penalty().item() == pytest.approx(2.0 * (first - math.log(1 + 1e-6)), rel=1e-5)
    assert model.penalty() is None  # there was no batch since
    model.eval()(ONE)
    assert model.penalty() is None


def test_codes_without_an_expert_are_kept_empty():
    # n = 3: the code 11 is nobody's; r = (0.10125, 0.055, 0.54675), sum 0.703
    model = made(1, [0.25, -0.1, 0.0], experts=3, entropy=0.0)
    model(ONE)
    penalty = model.penalty()
    assert penalty.item() == pytest.approx(1 / 0.703)
    penalty.backward()
    assert model.bias.grad[1] > 0  # a step down in the second digit leaves code 11
    model = made(1, [0.25, -0.1, 0.0], entropy=0.0)
    model(ONE)
    assert model.penalty() is None


def test_the_smooth_step():
    t = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0], requires_grad=True)
    step = smooth_step(t, 2.0)
    assert step.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    step.sum().backward()
    assert t.grad.tolist() == pytest.approx([0.0, 0.0, 0.75, 0.0, 0.0])
    inner = torch.linspace(-0.99, 0.99, 99)
    assert (smooth_step(inner, 2.0).diff() > 0).all()
    torch.testing.assert_close(smooth_step(inner, 2.0) + smooth_step(-inner, 2.0), torch.ones(99))


def test_gates_depend_on_the_row_or_not():
    x = Inputs(torch.randn(6, 3))
    for routing, distinct in (("example", 6), ("task", 1)):
        model = DSelectK(3, 2, DSelectKConfig(routing=routing))
        assert len(model.gates(x)[0].weights.unique(dim=0)) == distinct


def test_gates_may_read_one_feature_alone():
    columns = InputColumns({"user": (0, 1), "scene": (2,)}, [(0, 1, 2)])
    model = DSelectK(3, 2, DSelectKConfig(gate_features=("scene",)), columns)
    x = torch.randn(5, 3)
    other = torch.cat([torch.randn(5, 2), x[:, 2:]], dim=1)
    assert torch.equal(model.gates(Inputs(x))[1].weights, model.gates(Inputs(other))[1].weights)


def test_it_ends_with_k_experts():
    """Towards a target that the fourth expert alone gives, the choice goes to it."""
    model = made(1, [0.004, -0.003, 0.0], entropy=0.01)
    optimizer = torch.optim.Adam([model.bias], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (model(ONE) - 4.0).square().sum()
        (loss + model.penalty()).backward()
        optimizer.step()
    assert model.gates(ONE)[0].weights[0].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0], abs=1e-3)
