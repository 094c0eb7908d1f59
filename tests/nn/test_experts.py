"""The reference runs each expert and each gate by itself."""

import math

import pytest
import torch

from polyrank.nn.experts import ExpertGroup, mix, mix_own


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(group):
    for parameter in group.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return group


class TestExpertGroup:
    @pytest.mark.parametrize("inputs", [1, 3])
    @pytest.mark.parametrize("widths", [(5,), (5, 3), (4, 6, 2)])
    @pytest.mark.parametrize("gate_logits", [0, 4])
    def test_agrees_with_a_loop_over_inputs_and_experts(self, inputs, widths, gate_logits):
        experts, rows, first = 2, 7, widths[0]
        group = randomised(ExpertGroup(6, experts, widths, inputs=inputs, gate_logits=gate_logits))
        x = torch.randn(inputs, rows, 6)
        outputs, logits = group(x)
        assert outputs.shape == (rows, inputs, experts, widths[-1])
        assert logits.shape == (rows, inputs, gate_logits)
        for place in range(inputs):
            for expert in range(experts):
                weight = group.weight[place, :, expert * first : (expert + 1) * first]
                hidden = torch.relu(x[place] @ weight + group.bias[place, 0, expert])
                for layer in group.deeper.layers:
                    number = place * experts + expert
                    hidden = torch.relu(hidden @ layer.weight[number] + layer.bias[number])
                torch.testing.assert_close(outputs[:, place, expert], hidden)
            torch.testing.assert_close(logits[:, place], x[place] @ group.weight[place, :, experts * first :])

    def test_gates_start_uniform(self):
        _, logits = ExpertGroup(6, 3, (4,), gate_logits=5)(torch.randn(1, 8, 6))
        assert not logits.any()

    @pytest.mark.parametrize("widths", [(8,), (8, 8)])
    def test_experts_start_differently(self, widths):
        outputs, _ = ExpertGroup(6, 4, widths, inputs=2)(torch.randn(1, 9, 6).expand(2, -1, -1))
        flat = outputs.reshape(9, 8, 8)
        for one in range(8):
            for other in range(one):
                assert not torch.allclose(flat[:, one], flat[:, other])

    @pytest.mark.parametrize("experts", [1, 30])
    def test_every_expert_starts_with_the_fan_in_of_one_network(self, experts):
        group = ExpertGroup(64, experts, (64, 64), gate_logits=0)
        assert group.weight.abs().max() <= math.sqrt(6 / 64)
        assert group.weight.var().item() == pytest.approx(2 / 64, rel=0.1)
        assert group.deeper.layers[0].weight.var().item() == pytest.approx(2 / 64, rel=0.1)

    def test_dropout_acts_after_every_layer_in_training_alone(self):
        group = ExpertGroup(6, 2, (300, 300), dropout=0.5, gate_logits=3)
        torch.nn.init.ones_(group.weight)
        x = torch.rand(1, 4, 6)
        outputs, logits = group(x)
        again, same = group(x)
        assert not torch.equal(outputs, again)
        assert torch.equal(logits, same)  # gate logits are never dropped
        group.eval()
        assert torch.equal(group(x)[0], group(x)[0])


class TestMix:
    def test_mmoe_golden(self):
        experts = torch.tensor([[[2.0], [4.0]]])
        logits = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0.0]]])
        weights = torch.softmax(logits, dim=2)
        torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.75], [0.75, 0.25]]]))
        torch.testing.assert_close(mix(weights, experts), torch.tensor([[[3.5], [2.5]]]))

    def test_equal_experts_come_out_as_they_are(self):
        output = torch.randn(5, 1, 3)
        weights = torch.full((5, 2, 4), 0.25)
        torch.testing.assert_close(mix(weights, output.expand(5, 4, 3)), output.expand(5, 2, 3))

    def test_own_experts_by_hand(self):
        weights = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])
        own = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
        assert mix_own(weights, own).tolist() == [[[2.0, 3.0], [5.0, 6.0]]]

    def test_both_agree_with_einsum(self):
        weights, experts, own = torch.randn(5, 2, 3), torch.randn(5, 3, 4), torch.randn(5, 2, 3, 4)
        torch.testing.assert_close(mix(weights, experts), torch.einsum("bte,beh->bth", weights, experts))
        torch.testing.assert_close(mix_own(weights, own), torch.einsum("btm,btmh->bth", weights, own))
