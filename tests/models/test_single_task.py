"""The reference is torch's own Linear, layer by layer."""

import pytest
import torch
from torch.nn import functional

from polyrank.models.single_task import SingleTask, SingleTaskConfig
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_by_hand():
    model = SingleTask(2, 1, SingleTaskConfig(widths=(2, 1)))
    (first,) = model.network.groups
    (second,) = first.deeper.layers
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        first.bias.copy_(torch.tensor([0.5, 0.0]))
        second.weight.copy_(torch.tensor([[[2.0], [3.0]]]))
        second.bias.copy_(torch.tensor([[[-1.0]]]))
    # x = (1, 2): relu(1 + 4 + ½, −1 + 2) = (5½, 1), 11 + 3 − 1 = 13. x = (1, −1): relu(−½, −2) = 0, relu(−1) = 0.
    assert model(Inputs(torch.tensor([[1.0, 2.0], [1.0, -1.0]]))).tolist() == [[[13.0], [0.0]]]


def test_agrees_with_torch_linear_layers():
    model = SingleTask(5, 1, SingleTaskConfig(widths=(7, 3)))
    x = torch.randn(6, 5)
    (first,) = model.network.groups
    hidden = functional.relu(functional.linear(x, first.weight.t(), first.bias))
    for layer in first.deeper.layers:
        hidden = functional.relu(functional.linear(hidden, layer.weight[0].t(), layer.bias[0, 0]))
    torch.testing.assert_close(model(Inputs(x)), hidden[None])
    assert model.out_width == 3
    assert model.gates(Inputs(x)) == []


@pytest.mark.parametrize("tasks", [0, 2, 3])
def test_is_for_one_task(tasks):
    with pytest.raises(ValueError, match=f"one task. Received: {tasks} tasks"):
        SingleTask(5, tasks, SingleTaskConfig())
