"""One trunk, whose output every task gets."""

import pytest
import torch

from polyrank.models.shared_bottom import SharedBottom, SharedBottomConfig
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_by_hand():
    model = SharedBottom(2, 3, SharedBottomConfig(widths=(2,)))
    (layer,) = model.trunk.groups
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.0]))
    # relu(1 + 4 + ½, −1 + 2) for each of three tasks
    assert model(Inputs(torch.tensor([[1.0, 2.0]]))).tolist() == [[[5.5, 1.0]]] * 3


def test_every_task_reads_the_same_vector():
    model = SharedBottom(5, 3, SharedBottomConfig(widths=(7, 4)))
    output = model(Inputs(torch.randn(6, 5)))
    assert output.shape == (3, 6, 4)
    assert torch.equal(output[0], output[1])
    assert torch.equal(output[0], output[2])
    assert model.gates(Inputs(torch.randn(6, 5))) == []


def test_the_trunk_is_trained_by_the_sum_of_the_tasks():
    model = SharedBottom(5, 2, SharedBottomConfig(widths=(7,)))
    x, weight = Inputs(torch.randn(6, 5)), model.trunk.groups[0].weight
    gradients = [torch.autograd.grad(model(x)[task].square().sum(), weight)[0] for task in range(2)]
    both = torch.autograd.grad(model(x).square().sum(), weight)[0]
    torch.testing.assert_close(both, gradients[0] + gradients[1])


@pytest.mark.parametrize("tasks", [1, 4])
def test_the_trunk_does_not_grow_with_the_tasks(tasks):
    model = SharedBottom(5, tasks, SharedBottomConfig(widths=(7, 4)))
    assert sum(p.numel() for p in model.parameters()) == 5 * 7 + 7 + 7 * 4 + 4
