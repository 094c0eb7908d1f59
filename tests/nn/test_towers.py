"""Towers start at the base rate; heads speak the label's unit."""

import math

import pytest
import torch

from polyrank.nn.towers import Heads, Towers, starting_biases


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestTowers:
    @pytest.mark.parametrize("plainly", [True, False])
    @pytest.mark.parametrize("widths", [(), (5,), (5, 3)])
    def test_agrees_with_a_loop_over_tasks(self, widths, plainly):
        towers = Towers(3, 4, widths, biases=[0.5, -1.0, 2.0])
        x = torch.randn(3, 7, 4)
        logits = towers.plainly(x) if plainly else towers(x)
        for task in range(3):
            hidden = x[task]
            for layer in towers.hidden.layers:
                hidden = torch.relu(hidden @ layer.weight[task] + layer.bias[task])
            logit = hidden @ towers.output.weight[task] + towers.output.bias[task]
            torch.testing.assert_close(logits[:, task], logit[:, 0])

    def test_one_row_and_one_task_keep_their_axes(self):
        assert Towers(1, 4, (3,), biases=[0.0])(torch.randn(1, 1, 4)).shape == (1, 1)

    def test_the_output_is_no_relu(self):
        towers = Towers(1, 4, (8,), biases=[-3.0])
        assert towers(torch.zeros(1, 5, 4)).tolist() == [[-3.0]] * 5

    @pytest.mark.parametrize("rate", [0.5, 0.003, 0.97])
    def test_untrained_with_zero_weights_it_predicts_the_base_rate(self, rate):
        kinds, means = ["binary", "regression"], [rate, 41.5]
        towers = Towers(2, 4, (8,), biases=starting_biases(kinds, means))
        torch.nn.init.zeros_(towers.output.weight)
        predictions = Heads(kinds, means, [0.1, 7.0]).predict(towers(torch.randn(2, 6, 4)))
        assert predictions[:, 0].tolist() == pytest.approx([rate] * 6, rel=1e-6)
        assert predictions[:, 1].tolist() == [41.5] * 6


class TestHeads:
    def test_by_hand(self):
        heads = Heads(["binary", "regression"], [0.2, 10.0], [0.4, 4.0])
        logits = torch.tensor([[math.log(3), 0.5], [0.0, -2.0]])
        torch.testing.assert_close(heads.predict(logits), torch.tensor([[0.75, 12.0], [0.5, 2.0]]))
        labels = torch.tensor([[1.0, 12.0], [0.0, 2.0]])
        assert heads.targets(labels).tolist() == [[1.0, 0.5], [0.0, -2.0]]

    def test_regression_targets_and_predictions_undo_each_other(self):
        heads = Heads(["regression"], [1234.5], [678.9])
        labels = torch.rand(50, 1) * 5000
        torch.testing.assert_close(heads.predict(heads.targets(labels)), labels, rtol=1e-6, atol=1e-3)

    @pytest.mark.parametrize(("scale", "shift"), [(60.0, 0.0), (1.0, 500.0), (0.001, -3.0)])
    def test_another_unit_of_the_labels_is_another_unit_of_the_predictions(self, scale, shift):
        labels, logits = torch.rand(20, 1) * 9, torch.randn(20, 1)
        mean, std = labels.mean().item(), labels.std().item()
        one, other = Heads(["regression"], [mean], [std]), Heads(["regression"], [mean * scale + shift], [std * scale])
        tolerance = {"rtol": 1e-5, "atol": 1e-4}
        torch.testing.assert_close(other.predict(logits), one.predict(logits) * scale + shift, **tolerance)
        # The loss sees the same targets, so training cannot differ.
        torch.testing.assert_close(other.targets(labels * scale + shift), one.targets(labels), **tolerance)

    def test_binary_labels_have_no_unit(self):
        heads = Heads(["binary"], [0.3], [0.5])
        assert heads.targets(torch.tensor([[0.0], [1.0]])).tolist() == [[0.0], [1.0]]

    @pytest.mark.parametrize("kind", ["duration", "", "Binary"])
    def test_an_unknown_kind_is_refused(self, kind):
        with pytest.raises(ValueError, match="binary or regression"):
            Heads(["binary", kind], [0.5, 0.5], [1.0, 1.0])

    def test_units_are_saved_with_the_weights(self):
        state = Heads(["regression"], [5.0], [2.0]).state_dict()
        restored = Heads(["regression"], [0.0], [1.0])
        restored.load_state_dict(state)
        assert restored.predict(torch.ones(1, 1)).tolist() == [[7.0]]


def test_starting_biases_by_hand():
    biases = starting_biases(["binary", "regression", "binary"], [0.5, 88.0, 0.1])
    assert biases == pytest.approx([0.0, 0.0, -math.log(9)])
