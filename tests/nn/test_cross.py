import pytest
import torch

from polyrank.nn.cross import Cross, CrossConfig

X = torch.tensor([[1.0, 2.0]])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_full_matrices():
    # x₁ = x₀ ⊙ x₀ + x₀ = (2, 6); x₂ = x₀ ⊙ x₁ + x₁ = (4, 18)
    model = Cross(2, CrossConfig(layers=2, rank=0))
    for layer in model.layers:
        torch.nn.init.eye_(layer.weight)
    assert model(X).tolist() == [[4.0, 18.0]]


def test_low_rank():
    # U = (1, 0)ᵀ, V = (0, 1)ᵀ: W x = (2, 0), x₁ = (1, 2) ⊙ (2, 0) + (1, 2) = (3, 2)
    model = Cross(2, CrossConfig(layers=1, rank=1))
    with torch.no_grad():
        model.layers[0].inner_weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.layers[0].outer_weight.copy_(torch.tensor([[1.0, 0.0]]))
    assert model(X).tolist() == [[3.0, 2.0]]


def test_mixture_by_its_formula():
    model = Cross(3, CrossConfig(layers=1, rank=2, experts=2))
    layer = model.layers[0]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(4, 3)
    gate = torch.softmax(x @ layer.gate_weight, dim=1)
    expected = x.clone()
    for i in range(2):
        hidden = torch.tanh(torch.tanh(x @ layer.inner_weight[:, i]) @ layer.core_weight[i])
        expected += gate[:, i : i + 1] * x * (hidden @ layer.outer_weight[i] + layer.bias)
    torch.testing.assert_close(model(x), expected)


def test_a_zero_input_stays_zero_and_without_weights_it_is_the_identity():
    model = Cross(3, CrossConfig(layers=3, rank=2))
    assert not model(torch.zeros(2, 3)).any()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(2, 3)
    assert torch.equal(model(x), x)


def test_experts_need_a_rank():
    with pytest.raises(ValueError, match=r"cross.experts need cross.rank. Received: 2 experts"):
        Cross(3, CrossConfig(layers=1, rank=0, experts=2))
