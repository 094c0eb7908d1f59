import math

import torch

from polyrank.nn.gating import FeatureGate, FeatureGateConfig


def test_starts_as_the_identity():
    x = torch.randn(4, 6)
    assert torch.equal(FeatureGate((3, 2, 1), FeatureGateConfig(on=True))(x), x)


def test_by_hand():
    # means of (1, 3 | 4) are (2, 4); W₁ = (1, 1) → 6; W₂ = (½, 0), b₂ = (−3 + ln 3, 0): g = 2σ(ln 3) = 1.5, 2σ(0) = 1
    gate = FeatureGate((2, 1), FeatureGateConfig(on=True, reduction=2))
    with torch.no_grad():
        gate.squeeze.weight.fill_(1.0)
        gate.squeeze.bias.fill_(0.0)
        gate.excite.weight.copy_(torch.tensor([[0.5], [0.0]]))
        gate.excite.bias.copy_(torch.tensor([-3.0 + math.log(3.0), 0.0]))
    x = torch.tensor([[1.0, 3.0, 4.0]])
    torch.testing.assert_close(gate.weights(x), torch.tensor([[1.5, 1.0]]))
    torch.testing.assert_close(gate(x), torch.tensor([[1.5, 4.5, 4.0]]))


def test_few_features_still_have_a_unit():
    assert FeatureGate((2, 1), FeatureGateConfig(on=True, reduction=9)).squeeze.out_features == 1
