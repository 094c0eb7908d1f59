"""Golden values of the reference, and a distribution that is known."""

import math

import pytest
import torch

from polyrank.heads.log_normal import LogNormal, log_normal_loss, spread

NO_BINS = torch.zeros(0, dtype=torch.int64)


def one(*values):
    return [torch.tensor([value]) for value in values]


def test_loss_by_hand():
    """a = 0, μ = 1, s = ½, y = e: ln 2 of the zero part, and ln y + ln s + ½ ln 2π = 1.225791 of the other."""
    zero, mu, raw, label = one(0.0, 1.0, -0.432752, math.e)
    assert spread(raw).item() == pytest.approx(0.5, abs=1e-6)
    loss = log_normal_loss(zero, mu, raw, label, torch.log(label)).item() + 1.0  # + ln y
    assert loss == pytest.approx(0.693147 + 1.225791, abs=1e-6)


def test_loss_is_the_likelihood_of_the_distributions_of_torch():
    z, mu, raw, y = torch.randn(50), torch.randn(50), torch.randn(50), torch.rand(50) * 9 + 0.1
    density = torch.distributions.LogNormal(mu, spread(raw)).log_prob(y) + torch.log(y)
    expected = torch.nn.functional.softplus(-z) - density
    torch.testing.assert_close(log_normal_loss(z, mu, raw, y, torch.log(y)), expected)


def test_a_zero_costs_only_the_zero_part():
    zero, mu, raw, label = one(0.7, 1e4, 3.0, 0.0)
    assert log_normal_loss(zero, mu, raw, label, label).item() == pytest.approx(math.log1p(math.exp(0.7)))


def test_the_mean_is_not_the_median():
    """μ = 1, s = ½: mean e^1.125 = 3.080217; with π = ½ 1.540108."""
    head = LogNormal([math.e**0, math.e**2])  # logarithms of mean 1 and deviation 1
    logits = torch.tensor([[20.0, 0.0, -0.432752], [0.0, 0.0, -0.432752]])
    assert head.predict(logits, NO_BINS).tolist() == pytest.approx([3.080217, 1.540108], abs=1e-5)


def test_it_starts_at_the_training_labels():
    torch.manual_seed(0)
    labels = torch.exp(torch.randn(20_000) * 0.8 + 7.0) * (torch.rand(20_000) < 0.7)
    head = LogNormal(torch.quantile(labels, torch.linspace(0, 1, 513)).tolist())
    mean = head.predict(torch.tensor([head.biases()]), NO_BINS).item()
    assert mean == pytest.approx(labels.mean().item(), rel=0.1)
    assert torch.sigmoid(torch.tensor(head.biases()[0])).item() == pytest.approx(0.7, abs=0.01)


def test_another_unit_is_another_unit_of_the_predictions():
    quantiles = [0.0, 3.0, 9.0, 50.0]
    one_unit, other = LogNormal(quantiles), LogNormal([1000 * q for q in quantiles])
    logits, labels = torch.randn(9, 3), torch.tensor([0.0, 1.0, 5.0] * 3)
    found = other.predict(logits, NO_BINS), other.loss(logits, 1000 * labels, NO_BINS)
    torch.testing.assert_close(found[0], 1000 * one_unit.predict(logits, NO_BINS), rtol=1e-4, atol=0.0)
    torch.testing.assert_close(found[1], one_unit.loss(logits, labels, NO_BINS))


def test_it_finds_the_mean_of_what_it_is_made_for():
    torch.manual_seed(0)
    labels = torch.exp(torch.randn(50_000) * 0.5 + 2.0) * (torch.rand(50_000) < 0.6)
    head = LogNormal(torch.quantile(labels, torch.linspace(0, 1, 513)).tolist())
    logits = torch.tensor([[2.0, 1.0, 1.0]], requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(logits.expand(50_000, 3), labels, NO_BINS).mean().backward()
        optimizer.step()
    assert head.predict(logits.detach(), NO_BINS).item() == pytest.approx(0.6 * math.exp(2.125), rel=0.01)


@pytest.mark.parametrize("quantiles", [[0.0, 0.0, 0.0, 5.0], [5.0, 5.0, 6.0], [0.0, 3.0e38]])
@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_extremes_stay_finite(quantiles, logit):
    head = LogNormal(quantiles)
    logits = torch.full((3, 3), logit, requires_grad=True)
    loss = head.loss(logits, torch.tensor([0.0, 5.0, 3.0e38]), NO_BINS)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(head.predict(logits, NO_BINS)).all()
