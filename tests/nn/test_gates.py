"""The reference runs each unit by itself."""

import math

import pytest
import torch

from polyrank.nn.gates import Gates, softmax_over


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 2)])
def test_each_unit_is_a_network_of_its_own(hidden):
    gates = Gates(3, 4, 6, hidden)
    for parameter in gates.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    x = torch.randn(4, 7, 4)  # the fourth is not read
    found = gates(x)
    assert found.shape == (3, 7, 6)
    for unit in range(3):
        read = x[unit]
        for layer in gates.hidden.layers if hidden else ():
            read = torch.relu(read @ layer.weight[unit] + layer.bias[unit])
        expected = read @ gates.linear.weight[unit] + (gates.linear.bias[unit] if hidden else 0.0)
        torch.testing.assert_close(found[unit], expected)
    torch.testing.assert_close(gates(x[0]), gates(x[:1].expand(3, -1, -1)))  # one input of all


def test_linear_ones_start_uniform_and_others_can_learn_at_once():
    x = torch.randn(5, 4)
    assert not Gates(2, 4, 3)(x).any()
    gates = Gates(2, 4, 3, (8,))
    gates(x).square().sum().backward()
    assert all(parameter.grad.any() for parameter in gates.parameters())


def test_dropout_acts_on_hidden_layers():
    gates = Gates(1, 4, 3, (64,), dropout=0.5)
    x = torch.randn(5, 4)
    assert not torch.equal(gates(x), gates(x))
    assert torch.equal(gates.eval()(x), gates(x))


def test_a_softmax_over_some_experts():
    logits = torch.tensor([[[0.0, math.log(3), 50.0]]])
    found = softmax_over(logits, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found, torch.tensor([[[0.25, 0.75, 0.0]]]))
