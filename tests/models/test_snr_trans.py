"""The hard concrete gate and the routes by hand (Louizos et al., ICLR 2018; Ma et al., AAAI 2019)."""

import pytest
import torch

from polyrank.models.snr_trans import Routes, SNRTrans, SNRTransConfig
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("uniform", "z"), [(0.5, 0.5), (0.6, 0.730769), (0.9, 1.0), (0.1, 0.0)])
def test_a_connection_by_hand(uniform, z):
    # ln α = 0, β = ½: u = 0.6 → σ(2 ln 1.5) · 1.2 − 0.1
    routes = Routes(1, 1, 1, 0.5)
    assert routes.connections(torch.tensor([[uniform]])).item() == pytest.approx(z, abs=1e-6)


def test_without_noise_the_temperature_does_not_matter():
    for temperature in (0.5, 2.0):
        routes = Routes(1, 2, 1, temperature)
        with torch.no_grad():
            routes.log_alpha.copy_(torch.tensor([[0.0], [10.0]]))
        assert routes.connections().flatten().tolist() == pytest.approx([0.5, 1.0])


def test_the_expected_number_of_open_connections_by_hand():
    routes = Routes(2, 3, 1, 0.5)
    assert routes.expected_open().item() == pytest.approx(6 * 0.768338, abs=1e-5)
    model = SNRTrans(3, 2, SNRTransConfig(subnetworks=3, levels=2, temperature=0.5, strength=0.1))
    assert model.penalty().item() == pytest.approx(0.1 * (9 + 6) * 0.768338, abs=1e-5)
    assert SNRTrans(3, 2, SNRTransConfig(strength=0.0)).penalty() is None


def test_it_is_the_share_of_draws_that_are_open():
    routes = Routes(1, 1, 1, 0.5)
    with torch.no_grad():
        routes.log_alpha.fill_(-0.7)
    draws = torch.stack([routes.connections(u.view(1, 1)) for u in (torch.arange(2_000) + 0.5) / 2_000])
    assert (draws > 0).float().mean().item() == pytest.approx(routes.expected_open().item(), abs=1e-3)


def test_golden():
    # x = 1: sub-networks give 2 and 4; z = ½; W = (3, −1) for task 1, (1, 1) for task 2
    model = SNRTrans(1, 2, SNRTransConfig(levels=1, subnetworks=2, widths=(1,))).eval()
    with torch.no_grad():
        model.first.groups[0].weight.copy_(torch.tensor([[2.0, 4.0]]))
        model.routes[0].weight.copy_(torch.tensor([[3.0, -1.0], [1.0, 1.0]]).view(2, 2, 1, 1))
    assert model(Inputs(torch.ones(1, 1))).flatten().tolist() == pytest.approx([0.5 * (6 - 4), 0.5 * (2 + 4)])


def test_a_level_above_by_hand():
    # The same routes to two sub-networks of level 2 (weights 1 and 10, ReLU), then halves of all to the one task
    model = SNRTrans(1, 1, SNRTransConfig(levels=2, subnetworks=2, widths=(1,))).eval()
    with torch.no_grad():
        model.first.groups[0].weight.copy_(torch.tensor([[2.0, 4.0]]))
        model.routes[0].weight.copy_(torch.tensor([[3.0, -1.0], [1.0, 1.0]]).view(2, 2, 1, 1))
        model.later[0].layers[0].weight.copy_(torch.tensor([[[1.0]], [[10.0]]]))
        model.routes[1].weight.fill_(1.0)
    assert model(Inputs(torch.ones(1, 1))).item() == pytest.approx(0.5 * (1 + 30))


def test_noise_is_one_draw_a_step_and_only_in_training():
    model = SNRTrans(3, 2, SNRTransConfig(subnetworks=2, widths=(4,)))
    x = torch.randn(1, 3).expand(6, -1).contiguous()
    output = model(Inputs(x))
    assert (output == output[:, :1]).all()  # every row met the same connections
    assert not torch.equal(output, model(Inputs(x)))
    model.eval()
    assert torch.equal(model(Inputs(x)), model(Inputs(x)))
