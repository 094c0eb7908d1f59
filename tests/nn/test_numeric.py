import math

import pytest
import torch

from polyrank.nn.numeric import NumberConfig, Periodic, Piecewise


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("x", "expected"), [(2.0, (1, 0.5, 0)), (8.0, (1, 1, 1.25)), (-1.0, (-1, 0, 0)), (0.25, (0.25, 0, 0))]
)
def test_piecewise_linear_encoding(x, expected):
    model = Piecewise([(0.0, 1.0, 3.0, 7.0)], NumberConfig("piecewise"))
    assert model.encode(torch.tensor([[x]]))[0, 0].tolist() == list(expected)


def test_features_with_fewer_bins_and_with_none():
    model = Piecewise([(0.0, 1.0, 3.0), (5.0,), (2.0, 2.0, 4.0)], NumberConfig("piecewise"))
    encoded = model.encode(torch.tensor([[2.0, 0.5, 3.0]]))[0]
    # the second has the one bin [−1, 1], the third [2, 4]
    assert encoded.tolist() == [[1.0, 0.5], [0.75, 0.0], [0.5, 0.0]]


def test_piecewise_starts_linear_and_can_bend():
    model = Piecewise([(0.0, 1.0, 2.0)], NumberConfig("piecewise", width=1))
    x = torch.tensor([[0.5], [1.5]])
    linear = x.unsqueeze(2) * model.linear + model.bias
    assert torch.equal(model(x), linear)
    torch.nn.init.constant_(model.weight[0, 1], 10.0)  # the second bin's
    torch.testing.assert_close(model(x) - linear, torch.tensor([[[0.0]], [[5.0]]]))


def test_periodic_encoding():
    model = Periodic(1, NumberConfig("periodic", frequencies=1, width=2))
    torch.nn.init.constant_(model.frequencies, 0.25)
    torch.testing.assert_close(model.encode(torch.tensor([[1.0]])), torch.tensor([[[0.0, 1.0]]]), atol=1e-6, rtol=0)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[[1.0, 1.0], [3.0, -3.0]]]))
        model.bias.copy_(torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(model(torch.tensor([[1.0]])), torch.tensor([[[3.5, 0.0]]]), atol=1e-6, rtol=0)


def test_frequencies_start_small():
    frequencies = Periodic(50, NumberConfig("periodic", frequency_scale=0.1)).frequencies
    assert frequencies.abs().max() <= 0.3
    assert frequencies.std().item() == pytest.approx(0.1, rel=0.1)


def test_each_number_has_its_own_weights():
    for model in (Piecewise([(0.0, 1.0), (0.0, 1.0)], NumberConfig("piecewise")), Periodic(2, NumberConfig())):
        out = model(torch.tensor([[0.3, 0.3]]))[0]
        assert not torch.allclose(out[0], out[1])
        out[0].sum().backward()
        for parameter in model.parameters():
            assert not parameter.grad[1].any()


def test_missing_and_extreme_values_are_finite():
    extreme = torch.tensor([[0.0], [10.0], [-10.0]])  # how missing and cut-off numbers are encoded
    for model in (Piecewise([(-math.pi, 0.1)], NumberConfig("piecewise")), Periodic(1, NumberConfig())):
        assert torch.isfinite(model(extreme)).all()
