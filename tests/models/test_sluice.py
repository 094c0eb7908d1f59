"""Ruder et al.'s subspaces, layer mixture and penalty by hand."""

import pytest
import torch

from polyrank.models.sluice import Sluice, SluiceConfig
from polyrank.nn.inputs import Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def golden(**knobs):
    model = Sluice(1, 2, SluiceConfig(widths=(2, 2), own=0.7, **knobs))
    with torch.no_grad():
        model.networks.first.groups[0].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        identity, swap = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
        model.networks.later[0].layers[0].weight.copy_(torch.tensor([identity, swap]))
        model.betas.copy_(torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    return model


def test_golden():
    """x = 1; α is 0.7 on the diagonal and 0.1 elsewhere, so a half h becomes 0.1 · (sum of all halves) + 0.6 h.

    Layer 1 gives (1, 2) and (3, 4), sum 10: mixed (1.6, 2.2) and (2.8, 3.4). Layer 2 is the identity for task 1 and
    swaps for task 2: (1.6, 2.2) and (3.4, 2.8), sum 10: mixed (1.96, 2.32) and (3.04, 2.68). Task 1 takes ¼ and ¾ of
    the layers, task 2 the first alone.
    """
    expected = torch.tensor([[[0.25 * 1.6 + 0.75 * 1.96, 0.25 * 2.2 + 0.75 * 2.32]], [[2.8, 3.4]]])
    torch.testing.assert_close(golden()(Inputs(torch.ones(1, 1))), expected)


def test_the_penalty_by_hand():
    # Layer 1's halves: (1 · 2)² + (3 · 4)² = 148; layer 2's are orthogonal.
    assert golden(strength=0.5).penalty().item() == pytest.approx(74.0)
    assert golden().penalty() is None


def test_it_starts_near_separate_networks_with_equal_layers():
    model = Sluice(3, 3, SluiceConfig(widths=(4, 4)))
    (first, second) = model.alphas
    assert torch.equal(first, second)
    assert first.diagonal().tolist() == pytest.approx([0.95] * 6)
    torch.testing.assert_close(first.sum(dim=1), torch.ones(6))
    assert model.betas.tolist() == [[0.5, 0.5]] * 3


def test_layers_of_other_widths_are_brought_to_the_last_one():
    model = Sluice(3, 2, SluiceConfig(widths=(6, 4)))
    assert model(Inputs(torch.randn(5, 3))).shape == (2, 5, 4)
    assert list(model.widen) == ["0"]
    assert list(Sluice(3, 2, SluiceConfig(widths=(4, 4))).widen) == []


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match=r"widths must be even. Received: \[4, 3\]"):
        Sluice(3, 2, SluiceConfig(widths=(4, 3)))
