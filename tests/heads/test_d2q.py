import math

import numpy as np
import pytest
import torch

from polyrank.heads.d2q import D2Q, quantile_of, value_at


def test_by_hand():
    """The reference's group {2, 5, 7, 10}: F⁻¹(0.6) = 6.6; F undoes it (its F(5) = ½ counts rows)."""
    grid = torch.tensor([[2.0, 5.0, 7.0, 10.0]])
    assert value_at(torch.tensor([0.6]), grid).item() == pytest.approx(6.6)
    assert quantile_of(torch.tensor([6.6]), grid).item() == pytest.approx(0.6)
    assert quantile_of(torch.tensor([5.0]), grid).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("label", "share"), [(-1.0, 0.0), (0.0, 0.5), (2.0, 0.625), (8.0, 1.0), (99.0, 1.0)])
def test_a_value_of_many_rows_counts_them_all(label, share):
    grid = torch.tensor([[0.0, 0.0, 0.0, 4.0, 8.0]])
    assert quantile_of(torch.tensor([label]), grid).item() == share


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.5, 0.0), (0.75, 4.0), (1.0, 8.0)])
def test_the_ends_of_a_group(share, value):
    assert value_at(torch.tensor([share]), torch.tensor([[0.0, 0.0, 0.0, 4.0, 8.0]])).item() == value


def test_they_undo_each_other():
    grid = torch.sort(torch.rand(5, 33), dim=1).values[torch.randint(0, 5, (200,))]
    shares = torch.rand(200)
    torch.testing.assert_close(quantile_of(value_at(shares, grid), grid), shares, rtol=0, atol=1e-4)


def test_agrees_with_numpy():
    values = np.random.default_rng(0).gamma(2.0, 9.0, 257)
    grid = torch.tensor(np.quantile(values, np.linspace(0, 1, 65)), dtype=torch.float32)[None]
    found = [value_at(torch.tensor([q]), grid).item() for q in (0.1, 0.5, 0.83)]
    assert found == pytest.approx(np.quantile(values, [0.1, 0.5, 0.83]).tolist(), rel=0.01)


def test_a_group_of_one_value():
    grid = torch.full((2, 9), 3.0)
    assert quantile_of(torch.tensor([2.0, 3.0]), grid).tolist() == [0.0, 1.0]
    assert value_at(torch.tensor([0.2, 0.9]), grid).tolist() == [3.0, 3.0]


class TestHead:
    GROUPS = ((0.0, 2.0, 4.0), (0.0, 20.0, 40.0))

    def test_the_same_quantile_is_another_time_for_another_duration(self):
        head = D2Q(self.GROUPS)
        logits = torch.tensor([[math.log(3)], [math.log(3)]])  # h = 0.75
        assert head.predict(logits, torch.tensor([0, 1])).tolist() == pytest.approx([3.0, 30.0])

    def test_loss_by_hand(self):
        head = D2Q(self.GROUPS)
        found = head.loss(torch.zeros(2, 1), torch.tensor([3.0, 3.0]), torch.tensor([0, 1]))
        assert found.tolist() == pytest.approx([12 * 0.25**2, 12 * (0.5 - 0.075) ** 2])

    def test_always_the_middle_costs_about_one(self):
        grid = tuple(np.linspace(0.0, 1.0, 129).tolist())
        found = D2Q((grid,)).loss(torch.zeros(9_999, 1), torch.linspace(0, 1, 9_999), torch.zeros(9_999).long())
        assert found.mean().item() == pytest.approx(1.0, abs=0.01)
