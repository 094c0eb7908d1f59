"""Misra et al.'s units by hand."""

import pytest
import torch

from polyrank.models.cross_stitch import CrossStitch, CrossStitchConfig
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_unit_by_hand():
    # A = ((0.9, 0.1), (0.1, 0.9)), x₁ = (1, 2), x₂ = (3, −1)
    model = CrossStitch(1, 2, CrossStitchConfig(widths=(2,)))
    mixed = model._stitch(0, torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]]))
    torch.testing.assert_close(mixed, torch.tensor([[[1.2, 1.7]], [[2.8, -0.7]]]))


def test_golden():
    # x = 1: layer 1 gives 1 and 3, mixed 1.2 and 2.8; layer 2 doubles the first: 2.4 and 2.8, mixed 2.44 and 2.76
    model = CrossStitch(1, 2, CrossStitchConfig(widths=(1, 1)))
    with torch.no_grad():
        model.networks.first.groups[0].weight.copy_(torch.tensor([[1.0, 3.0]]))
        model.networks.later[0].layers[0].weight.copy_(torch.tensor([[[2.0]], [[1.0]]]))
    torch.testing.assert_close(model(Inputs(torch.ones(1, 1))), torch.tensor([[[2.44]], [[2.76]]]))
    assert model.gates(Inputs(torch.ones(1, 1))) == []


def test_a_unit_for_every_channel():
    model = CrossStitch(1, 2, CrossStitchConfig(widths=(2,), per_channel=True, rate=1.0))
    with torch.no_grad():
        model.moved[0][0, 1, 1] = 1.9  # task 1's second channel: 0.9 of its own, 2 of task 2's
    mixed = model._stitch(0, torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]]))
    torch.testing.assert_close(mixed, torch.tensor([[[1.2, -0.2]], [[2.8, -0.7]]]))


def test_units_start_as_told_and_their_rows_sum_to_1():
    units = CrossStitch(1, 3, CrossStitchConfig(widths=(2,), own=0.8)).units(0)[:, :, 0]
    torch.testing.assert_close(units, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    assert CrossStitch(1, 1, CrossStitchConfig(widths=(2,))).units(0).item() == 1.0


@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_units_move_as_many_times_faster(rate):
    model = CrossStitch(3, 2, CrossStitchConfig(widths=(4,), rate=rate))
    before = model.units(0).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(Inputs(torch.randn(8, 3))).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close((model.units(0) - before).abs(), torch.full((2, 2, 1), 1e-3 * rate), rtol=1e-3, atol=0)


def test_without_stitches_tasks_are_apart():
    model = CrossStitch(3, 2, CrossStitchConfig(widths=(4, 4), own=1.0))
    model(Inputs(torch.randn(8, 3)))[0].square().sum().backward()
    gradient = model.networks.first.groups[0].weight.grad
    assert gradient[:, :4].any()
    assert not gradient[:, 4:].any()
    assert model.moved[0].grad[0, 1] != 0  # but what would join them is asked
