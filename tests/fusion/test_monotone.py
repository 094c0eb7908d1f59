import math

import numpy as np
import pytest
import torch

from polyrank.fusion.monotone import MonotoneConfig, MonotoneNet


def net_of(heads=1, context=0, **knobs):
    torch.manual_seed(0)
    return MonotoneNet(heads, context, MonotoneConfig(**knobs)).double()


def test_at_a_flat_integrand_the_curve_is_the_identity():
    net = net_of(heads=2)
    with torch.no_grad():
        net.out.zero_()
    z = torch.tensor([[-9.0, 0.5], [0.0, 7.0], [1.0, -0.3]], dtype=torch.float64)
    c = torch.zeros(3, 0, dtype=torch.float64)
    torch.testing.assert_close(net.curves(z, c), z)
    torch.testing.assert_close(net(z, c), z.sum(dim=1))  # at first every weight is 1


def test_the_integral_by_hand():
    # Knots −1, 0, 1 with slopes 1, 2, 4: linear between, constant beyond.
    net = net_of(knots=3, reach=1.0)
    slopes = torch.tensor([[[1.0, 2.0, 4.0]]], dtype=torch.float64)

    def integral(z):
        return net._integral(torch.tensor([[z]], dtype=torch.float64), slopes).item()

    assert integral(-1.0) == 0.0
    assert integral(0.0) == pytest.approx(1.5)
    assert integral(0.5) == pytest.approx(1.5 + 2 * 0.5 + 2 * 0.125)
    assert integral(1.0) == pytest.approx(1.5 + 3)
    assert integral(3.0) == pytest.approx(1.5 + 3 + 2 * 4)
    assert integral(-2.0) == pytest.approx(-1.0)


def test_on_many_knots_it_agrees_with_quadrature():
    net = net_of(context=2, knots=2_001)
    c = torch.randn(1, 2, dtype=torch.float64)

    def slope(t):
        inner = net.on_value[0] * t + (c @ net.on_context[0])[0] + net.bias[0]
        return (torch.nn.functional.elu(torch.nn.functional.elu(inner) @ net.out[0]) + 1).item()

    nodes, weights = np.polynomial.legendre.leggauss(60)
    for z in (-2.5, 0.7, 3.1):
        expected = z / 2 * sum(w * slope(z / 2 * (x + 1)) for x, w in zip(nodes, weights, strict=True))
        assert net.curves(torch.tensor([[z]], dtype=torch.float64), c).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_it_rises_whatever_its_parameters(seed):
    net = net_of(heads=3, context=2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(8 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    z = torch.linspace(-6, 6, 2_000, dtype=torch.float64).unsqueeze(1).expand(-1, 3)
    c = torch.randn(1, 2, generator=generator, dtype=torch.float64).expand(2_000, 2)
    rises = net.curves(z, c).diff(dim=0)
    assert (rises >= -1e-9).all()
    assert (net.weights(c) >= 0).all()


def test_the_context_bends_curves_and_moves_weights():
    net = net_of(context=1)
    with torch.no_grad():
        net.out.copy_(torch.ones_like(net.out))
        net.weight_context.fill_(2.0)
    z = torch.ones(2, 1, dtype=torch.float64)
    c = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    curves, weights = net.curves(z, c), net.weights(c)
    assert abs((curves[0] - curves[1]).item()) > 0.05
    assert weights[0].item() == pytest.approx(1.0)
    assert weights[1].item() == pytest.approx(math.log(1 + math.exp(2 + math.log(math.e - 1))))


def test_every_parameter_learns():
    net = net_of(heads=2, context=3)
    net(torch.randn(40, 2).double(), torch.randn(40, 3).double()).square().sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters())
