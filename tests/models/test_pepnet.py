"""Gates by hand, and where gradients stop (Chang et al., KDD 2023)."""

import math

import pytest
import torch

from polyrank.models.pepnet import GateNU, PEPNet, PEPNetConfig
from polyrank.nn.inputs import InputColumns, Inputs

COLUMNS = InputColumns({"scene": (0,), "user": (1,)}, [(0, 1)])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_gate_by_hand():
    # logits (0, ln 3), h = (3, 4): 2σ gives (1, 1.5)
    gate = GateNU(1, 1, [2], 1)
    with torch.no_grad():
        gate.second[0].weight.zero_()
        gate.second[0].bias.copy_(torch.tensor([[[0.0, math.log(3)]]]))
    (factors,) = gate(torch.ones(1, 1))
    torch.testing.assert_close(factors * torch.tensor([3.0, 4.0]), torch.tensor([[[3.0, 6.0]]]))


def test_a_gate_s_hidden_layer():
    # a = 2: relu(1.5 · 2 − 1) = 2, and relu(−2) = 0 for the second group; 2σ(ln 3 / 2 · 2) = 1.5, 2σ(0) = 1
    gate = GateNU(1, 1, [1], 2)
    with torch.no_grad():
        gate.first.weight.copy_(torch.tensor([[[1.5, -1.0]]]))
        gate.first.bias.copy_(torch.tensor([[[-1.0, 0.0]]]))
        gate.second[0].weight.fill_(math.log(3) / 2)
    (factors,) = gate(torch.full((1, 1), 2.0))
    assert factors.flatten().tolist() == pytest.approx([1.5, 1.0])


def golden():
    """δ_domain = (1, 1.5); δ of the one layer 1.5 for task 1, 1 for task 2."""
    model = PEPNet(2, 2, PEPNetConfig(widths=(1,), domain=("scene",), prior=("user",)), COLUMNS)
    with torch.no_grad():
        for gate, bias in ((model.epnet, [[[0.0, math.log(3)]]]), (model.ppnet, [[[math.log(3)]], [[0.0]]])):
            gate.second[0].weight.zero_()
            gate.second[0].bias.copy_(torch.tensor(bias))
        model.networks.first.groups[0].weight.copy_(torch.tensor([[1.0, 2.0], [1.0, 0.0]]))
    return model


def test_golden():
    # x = (1, 2): O = (1, 3); hidden 1 + 3 and 2 · 1, times 1.5 and 1
    assert golden()(Inputs(torch.tensor([[1.0, 2.0]]))).flatten().tolist() == pytest.approx([6.0, 2.0])
    assert golden().gates(Inputs(torch.ones(1, 2))) == []


def test_gates_do_not_rewrite_the_embeddings():
    """Without names, gates are constants to the gradient of x."""
    model = PEPNet(3, 2, PEPNetConfig(widths=(4, 5)), InputColumns({}, [(0, 1, 2)]))
    x = torch.randn(6, 3, requires_grad=True)
    output = model(Inputs(x))
    (found,) = torch.autograd.grad(output.square().sum(), x)
    with torch.no_grad():
        (outer,) = model.epnet(x)
        inner = model.ppnet(outer[0] * x)
    fixed = model.networks(Inputs(outer[0] * x), lambda layer, hidden: hidden * inner[layer])
    torch.testing.assert_close(output, fixed)
    (expected,) = torch.autograd.grad(fixed.square().sum(), x)
    torch.testing.assert_close(found, expected)


def test_named_features_learn_from_the_gates():
    model = PEPNet(2, 1, PEPNetConfig(widths=(4,), domain=("scene",)), COLUMNS)
    with torch.no_grad():
        model.networks.first.groups[0].weight[0] = 0.0  # the scene matters through the gate alone
    x = torch.randn(6, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(Inputs(x)).sum(), x)
    assert gradient[:, 0].any()


def test_gates_exist_for_each_task_and_layer():
    model = PEPNet(3, 2, PEPNetConfig(widths=(4, 5), gate_width=7), InputColumns({}, [(0, 1, 2)]))
    assert [tuple(delta.shape) for delta in model.ppnet(torch.randn(6, 3))] == [(2, 6, 4), (2, 6, 5)]
    gates = 3 * 2 * 2 * 7 + 2 * 2 * 7 + 2 * (7 * 4 + 4 + 7 * 5 + 5)
    assert sum(p.numel() for p in model.ppnet.parameters()) == gates


def test_an_unknown_feature():
    with pytest.raises(ValueError, match=r"Received: 'scenes'; did you mean 'scene'\?"):
        PEPNet(2, 2, PEPNetConfig(domain=("scenes",)), COLUMNS)
