"""The reference is a loop over groups with torch's own linear layer."""

import math

import pytest
import torch
from torch.nn import functional

from polyrank.nn.layers import Dropout, StackedBatchNorm, StackedLinear, StackedMLP, StackedNorm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestStackedLinear:
    def test_by_hand(self):
        layer = StackedLinear(2, 2, 1)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[[1.0], [2.0]], [[-1.0], [0.5]]]))
            layer.bias.copy_(torch.tensor([[[10.0]], [[20.0]]]))
        x = torch.tensor([[[3.0, 4.0]], [[5.0, 6.0]]])
        # 3·1 + 4·2 + 10 and −5 + 6·½ + 20
        assert layer(x).tolist() == [[[21.0]], [[18.0]]]

    @pytest.mark.parametrize("bias", [True, False])
    def test_agrees_with_a_loop_over_groups(self, bias):
        layer = StackedLinear(3, 4, 5, bias=bias)
        if bias:
            layer.bias.data.normal_()
        x = torch.randn(3, 7, 4)
        expected = [functional.linear(x[g], layer.weight[g].t(), layer.bias[g, 0] if bias else None) for g in range(3)]
        torch.testing.assert_close(layer(x), torch.stack(expected))
        assert (layer.bias is not None) == bias

    @pytest.mark.parametrize("groups", [1, 40])
    def test_every_group_starts_with_the_fan_in_of_one_layer(self, groups):
        weight = StackedLinear(groups, 64, 64).weight
        assert weight.abs().max() <= math.sqrt(6 / 64)
        # He: variance 2 / D, whatever the number of groups.
        assert weight.var().item() == pytest.approx(2 / 64, rel=0.1)

    def test_groups_start_differently_and_biases_at_zero(self):
        layer = StackedLinear(2, 8, 8)
        assert not torch.equal(layer.weight[0], layer.weight[1])
        assert not layer.bias.any()

    def test_a_group_hears_of_its_own_output_only(self):
        layer = StackedLinear(3, 4, 2)
        layer(torch.randn(3, 5, 4))[1].sum().backward()
        assert layer.weight.grad[1].all()
        assert not layer.weight.grad[[0, 2]].any()
        assert not layer.bias.grad[[0, 2]].any()


class TestStackedMLP:
    @pytest.mark.parametrize("widths", [(5,), (5, 3), (6, 2, 4)])
    def test_agrees_with_a_loop_over_groups_and_layers(self, widths):
        network = StackedMLP(3, 4, widths)
        x = torch.randn(3, 7, 4)
        for group in range(3):
            hidden = x[group]
            for layer in network.layers:
                hidden = functional.relu(hidden @ layer.weight[group] + layer.bias[group])
            torch.testing.assert_close(network(x)[group], hidden)
        assert network.out_width == widths[-1]

    def test_without_layers_it_is_the_identity(self):
        network = StackedMLP(2, 4, (), dropout=0.5)
        x = torch.randn(2, 3, 4)
        assert torch.equal(network(x), x)
        assert network.out_width == 4

    def test_the_last_layer_is_activated_too(self):
        assert StackedMLP(2, 4, (5, 50))(torch.randn(2, 20, 4)).min() == 0

    def test_dropout_scales_what_is_left_and_sleeps_in_evaluation(self):
        network = StackedMLP(1, 4, (1000,), dropout=0.25)
        x = torch.randn(1, 8, 4)
        trained = network(x)
        whole = network.eval()(x)
        kept = trained != 0
        torch.testing.assert_close(trained[kept], whole[kept] / 0.75)
        assert kept[whole > 0].float().mean().item() == pytest.approx(0.75, abs=0.03)
        assert torch.equal(network(x), whole)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_the_share_and_scales_the_rest(p: float) -> None:
    torch.manual_seed(0)
    x = torch.full((1_000, 401), 3.0)  # 401: not a multiple of the four elements drawn at a time
    y = Dropout(p)(x)
    dropped = (y == 0).double().mean().item()
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5)
    assert y[y != 0].unique().tolist() == pytest.approx([3.0 / (1.0 - round(p * 65_536) / 65_536)])
    # neighbours are independent: both dropped with probability p²
    both = ((y[:, 1:] == 0) & (y[:, :-1] == 0)).double().mean().item()
    assert both == pytest.approx(p * p, abs=0.005)


def test_dropout_passes_gradients_of_what_it_kept_and_follows_the_generator() -> None:
    x = torch.ones(7, 5, requires_grad=True)
    layer = Dropout(0.5)
    torch.manual_seed(1)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(1)
    assert torch.equal(layer(x), y)
    assert not torch.equal(layer(x), y)


def test_dropout_is_the_identity_in_evaluation_and_at_zero() -> None:
    x = torch.randn(3, 4)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x


class TestStyle:
    def test_normalisation_by_hand(self):
        norm = StackedNorm(2, 2, epsilon=0.0)
        with torch.no_grad():
            norm.gain.copy_(torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]))
            norm.bias.copy_(torch.tensor([[[0.5, 0.0]], [[0.0, 0.0]]]))
        # (1, 5) has mean 3 and deviation 2: (−1, 1), times (1, 2), plus (½, 0)
        out = norm(torch.tensor([[[1.0, 5.0]], [[7.0, 1.0]]]))
        torch.testing.assert_close(out, torch.tensor([[[-0.5, 2.0]], [[1.0, -1.0]]]))

    @pytest.mark.parametrize("residual", [False, True])
    def test_agrees_with_torch_layer_by_layer(self, residual):
        mlp = StackedMLP(2, 4, (6, 6, 3), layer_norm=True, residual=residual)
        for parameter in mlp.parameters():
            torch.nn.init.uniform_(parameter, -1, 1)
        x = torch.randn(2, 5, 4)
        for group in range(2):
            hidden = x[group]
            for layer, norm in zip(mlp.layers, mlp.norms, strict=True):
                sums = hidden @ layer.weight[group] + layer.bias[group]
                sums = functional.layer_norm(sums, sums.shape[-1:], 1 + norm.gain[group, 0], norm.bias[group, 0])
                same = hidden.shape == sums.shape
                hidden = torch.relu(sums) + (hidden if residual and same else 0)
            torch.testing.assert_close(mlp(x)[group], hidden)

    def test_a_residual_needs_equal_widths(self):
        assert StackedMLP(2, 4, (4, 6, 6), residual=True).residual == [True, False, True]
        assert StackedMLP(2, 4, (6, 3), residual=True).plain
        assert not StackedMLP(2, 4, (4,), residual=True).plain
        assert not StackedMLP(2, 4, (6,), layer_norm=True).plain


class TestStackedBatchNorm:
    def test_agrees_with_torch_group_by_group(self):
        norm = StackedBatchNorm(2, 3)
        for parameter in norm.parameters():
            torch.nn.init.uniform_(parameter, -1, 1)
        theirs = [torch.nn.BatchNorm1d(3) for _ in range(2)]
        with torch.no_grad():
            for group, one in enumerate(theirs):
                one.weight.copy_(1 + norm.gain[group, 0])
                one.bias.copy_(norm.bias[group, 0])
        for rows in (8, 5):
            x = 3 * torch.randn(2, rows, 3) + 1
            torch.testing.assert_close(norm(x), torch.stack([one(x[g]) for g, one in enumerate(theirs)]))
        x = torch.randn(2, 4, 3)
        norm.eval()
        torch.testing.assert_close(norm(x), torch.stack([one.eval()(x[g]) for g, one in enumerate(theirs)]))

    def test_one_row_is_normalised_by_what_was_kept(self):
        norm = StackedBatchNorm(1, 2, epsilon=0.0)
        assert norm(torch.tensor([[[3.0, -1.0]]])).tolist() == [[[3.0, -1.0]]]
        assert norm.mean.tolist() == [[[0.0, 0.0]]]
