"""Heads speak the label's unit; a task of several logits gives one value."""

import math

import pytest
import torch

from polyrank.heads.d2q import D2Q
from polyrank.heads.heads import Heads
from polyrank.heads.log_normal import LogNormal
from polyrank.losses import masked_mean, poisson_deviance
from polyrank.nn.towers import Towers

NO_IDS = torch.zeros((0, 0), dtype=torch.int32)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestHeads:
    def test_by_hand(self):
        heads = Heads(["binary", "regression"], [0.2, 10.0], [0.4, 4.0])
        logits = torch.tensor([[math.log(3), 0.5], [0.0, -2.0]])
        torch.testing.assert_close(heads.predict(logits, NO_IDS), torch.tensor([[0.75, 12.0], [0.5, 2.0]]))
        labels = torch.tensor([[1.0, 12.0], [0.0, 2.0]])
        assert heads.targets(labels).tolist() == [[1.0, 0.5], [0.0, -2.0]]

    def test_regression_targets_and_predictions_undo_each_other(self):
        heads = Heads(["regression"], [1234.5], [678.9])
        labels = torch.rand(50, 1) * 5000
        torch.testing.assert_close(heads.predict(heads.targets(labels), NO_IDS), labels, rtol=1e-6, atol=1e-3)

    @pytest.mark.parametrize(("scale", "shift"), [(60.0, 0.0), (1.0, 500.0), (0.001, -3.0)])
    def test_another_unit_of_the_labels_is_another_unit_of_the_predictions(self, scale, shift):
        labels, logits = torch.rand(20, 1) * 9, torch.randn(20, 1)
        mean, std = labels.mean().item(), labels.std().item()
        one, other = Heads(["regression"], [mean], [std]), Heads(["regression"], [mean * scale + shift], [std * scale])
        tolerance = {"rtol": 1e-5, "atol": 1e-4}
        torch.testing.assert_close(
            other.predict(logits, NO_IDS), one.predict(logits, NO_IDS) * scale + shift, **tolerance
        )
        # The loss sees the same targets, so training cannot differ.
        torch.testing.assert_close(other.targets(labels * scale + shift), one.targets(labels), **tolerance)

    def test_binary_labels_have_no_unit(self):
        heads = Heads(["binary"], [0.3], [0.5])
        assert heads.targets(torch.tensor([[0.0], [1.0]])).tolist() == [[0.0], [1.0]]

    @pytest.mark.parametrize("kind", ["duration", "", "Binary"])
    def test_an_unknown_kind_is_refused(self, kind):
        with pytest.raises(ValueError, match="binary, regression, count"):
            Heads(["binary", kind], [0.5, 0.5], [1.0, 1.0])

    def test_units_are_saved_with_the_weights(self):
        state = Heads(["regression"], [5.0], [2.0]).state_dict()
        restored = Heads(["regression"], [0.0], [1.0])
        restored.load_state_dict(state)
        assert restored.predict(torch.ones(1, 1), NO_IDS).tolist() == [[7.0]]

    @pytest.mark.parametrize("rate", [0.5, 0.003, 0.97])
    def test_untrained_with_zero_weights_it_predicts_the_base_rate(self, rate):
        kinds, means = ["binary", "regression"], [rate, 41.5]
        towers = Towers(2, 4, (8,), biases=Heads(kinds, means, [0.1, 7.0]).biases())
        torch.nn.init.zeros_(towers.output.weight)
        predictions = Heads(kinds, means, [0.1, 7.0]).predict(towers(torch.randn(2, 6, 4)), NO_IDS)
        assert predictions[:, 0].tolist() == pytest.approx([rate] * 6, rel=1e-6)
        assert predictions[:, 1].tolist() == [41.5] * 6

    def test_starting_biases_by_hand(self):
        heads = Heads(["binary", "regression", "binary", "count"], [0.5, 88.0, 0.1, 2.0], [0.5, 9.0, 0.3, 4.0])
        assert [len(own) for own in heads.biases()] == [1] * 4
        assert [own[0] for own in heads.biases()] == pytest.approx([0.0, 0.0, -math.log(9), math.log(2.0 / 8.0)])

    def test_counts_by_hand(self):
        """Of variance 16 and mean 2: the dispersion is 8, and the loss the Poisson deviance over 8."""
        heads = Heads(["count"], [2.0], [4.0])
        logits = torch.tensor([[math.log(0.5)], [0.0]])
        assert heads.predict(logits, NO_IDS).tolist() == [[4.0], [8.0]]
        labels = torch.tensor([[6.0], [0.0]])
        everywhere = torch.ones(2, 1, dtype=torch.bool)
        expected = poisson_deviance(torch.log(torch.tensor([[4.0], [8.0]])), labels) / 8.0
        torch.testing.assert_close(heads.losses(logits, labels, everywhere, NO_IDS), expected)

    @pytest.mark.parametrize("kinds", [["binary", "binary"], ["binary", "regression"], ["count", "count"]])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_mean_losses_are_the_masked_means_of_the_losses(self, kinds, weighted):
        heads = Heads(kinds, [0.4, 0.6], [0.5, 0.5])
        logits, labels, where = torch.randn(30, 2), (torch.rand(30, 2) < 0.5).float(), torch.rand(30, 2) < 0.8
        weights = torch.rand(30, 2) if weighted else None
        expected = masked_mean(heads.losses(logits, labels, where, NO_IDS), where, weights)
        found = heads.mean_losses(logits, labels, where, NO_IDS, weights)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    def test_counts_that_scatter_less_than_poisson_are_not_scaled_up(self):
        assert Heads(["count"], [2.0], [0.5]).predict(torch.zeros(1, 1), NO_IDS).tolist() == [[1.0]]

    @pytest.mark.parametrize("logit", [1e4, -1e4])
    def test_a_predicted_count_is_finite_and_positive(self, logit):
        value = Heads(["count"], [2.0], [3.0]).predict(torch.full((1, 1), logit), NO_IDS).item()
        assert 0.0 < value < math.inf


class TestWide:
    GRIDS = ((0.0, 2.0, 4.0), (0.0, 20.0, 40.0))

    def heads(self):
        wide = {1: LogNormal([0.0, 0.0, 1.0, math.e**2]), 2: D2Q(self.GRIDS)}
        return Heads(["binary", "duration", "duration"], [0.5, 3.0, 9.0], [0.5, 2.0, 5.0], wide, {2: 1})

    def test_one_value_a_task(self):
        heads = self.heads()
        assert heads.starts == [0, 1, 4, 5]
        assert [len(own) for own in heads.biases()] == [1, 3, 1]
        ids = torch.tensor([[7, 0], [7, 1]], dtype=torch.int32)
        logits = torch.tensor([[0.0, 0.0, 0.0, math.log(math.e - 1), 0.0]] * 2)
        # ln of 1 and e²: mean 1, deviation 1; π = ½
        expected = [[0.5, 0.5 * math.exp(1.5), 2.0], [0.5, 0.5 * math.exp(1.5), 20.0]]
        torch.testing.assert_close(heads.predict(logits, ids), torch.tensor(expected))

    def test_each_task_s_loss_is_its_head_s(self):
        heads = self.heads()
        logits, labels = torch.randn(8, 5), torch.rand(8, 3).round(decimals=1) * torch.tensor([0.0, 9.0, 4.0])
        ids = torch.randint(0, 2, (8, 2), dtype=torch.int32)
        found = heads.losses(logits, labels, torch.ones(8, 3, dtype=torch.bool), ids)
        torch.testing.assert_close(found[:, 0], torch.nn.functional.softplus(logits[:, 0]))
        torch.testing.assert_close(found[:, 1], heads.wide["1"].loss(logits[:, 1:4], labels[:, 1], ids[:, 0].long()))
        torch.testing.assert_close(found[:, 2], heads.wide["2"].loss(logits[:, 4:], labels[:, 2], ids[:, 1].long()))

    def test_what_stands_where_a_label_does_not_count_is_never_seen(self):
        heads, logits, ids = self.heads(), torch.randn(4, 5), torch.zeros(4, 2, dtype=torch.int32)
        nowhere = torch.zeros(4, 3, dtype=torch.bool)
        strange = torch.tensor([math.nan, 1e30, -5.0, math.inf])[:, None].expand(4, 3)
        found = heads.losses(logits, strange, nowhere, ids)
        assert torch.equal(found, heads.losses(logits, torch.zeros(4, 3), nowhere, ids))
        assert torch.isfinite(found).all()

    def test_mean_losses_are_the_masked_means_of_the_losses(self):
        heads, where, ids = self.heads(), torch.rand(8, 3) < 0.7, torch.zeros(8, 2, dtype=torch.int32)
        case = (torch.randn(8, 5), torch.rand(8, 3), where, ids)
        assert torch.equal(heads.mean_losses(*case), masked_mean(heads.losses(*case), where))

    def test_a_binary_task_with_a_head_of_its_own_is_not_taken_for_one_of_one_logit(self):
        assert Heads(["binary", "binary"], [0.5, 0.5], [0.5, 0.5]).all_binary
        wide = {1: LogNormal([0.0, 0.0, 1.0, math.e**2])}
        assert not Heads(["binary", "binary"], [0.5, 0.5], [0.5, 0.5], wide).all_binary

    def test_constants_are_saved_with_the_weights(self):
        state = self.heads().state_dict()
        other = Heads(
            ["binary", "duration", "duration"],
            [0.5] * 3,
            [0.5] * 3,
            {1: LogNormal([1.0, 5.0]), 2: D2Q(((0.0, 1.0, 2.0), (0.0, 1.0, 2.0)))},
            {2: 1},
        )
        other.load_state_dict(state)
        logits, ids = torch.randn(6, 5), torch.ones(6, 2, dtype=torch.int32)
        assert torch.equal(other.predict(logits, ids), self.heads().predict(logits, ids))
