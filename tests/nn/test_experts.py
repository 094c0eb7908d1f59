"""The reference runs each expert and each gate by itself."""

import math

import pytest
import torch

from polyrank.nn.experts import ExpertGroup, GatedConfig, Level, mix
from polyrank.nn.inputs import InputColumns, Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return module


def by_loop(group, x):
    """Each expert's output, and the gate logits."""
    width = group.first_width
    found = []
    for expert in range(group.experts):
        part = slice(expert * width, (expert + 1) * width)
        hidden = torch.relu(x @ group.weight[:, part] + group.bias[part])
        for layer in group.deeper.layers:
            hidden = torch.relu(hidden @ layer.weight[expert] + layer.bias[expert])
        found.append(hidden)
    return found, x @ group.weight[:, group.experts * width :]


class TestExpertGroup:
    @pytest.mark.parametrize("experts", [1, 3])
    @pytest.mark.parametrize("widths", [(5,), (5, 3), (4, 6, 2)])
    @pytest.mark.parametrize("gate_logits", [0, 4])
    def test_agrees_with_a_loop_over_experts(self, experts, widths, gate_logits):
        group = randomised(ExpertGroup(6, experts, widths, gate_logits=gate_logits))
        x = torch.randn(7, 6)
        outputs, logits = group(x)
        assert outputs.shape == (experts, 7, widths[-1])
        assert logits.shape == (7, gate_logits)
        expected, expected_logits = by_loop(group, x)
        torch.testing.assert_close(outputs, torch.stack(expected))
        torch.testing.assert_close(logits, expected_logits)

    def test_gates_start_uniform(self):
        _, logits = ExpertGroup(6, 3, (4,), gate_logits=5)(torch.randn(8, 6))
        assert not logits.any()

    @pytest.mark.parametrize("widths", [(8,), (8, 8)])
    def test_experts_start_differently(self, widths):
        outputs, _ = ExpertGroup(6, 8, widths)(torch.randn(9, 6))
        for one in range(8):
            for other in range(one):
                assert not torch.allclose(outputs[one], outputs[other])

    @pytest.mark.parametrize("experts", [1, 30])
    def test_every_expert_starts_with_the_fan_in_of_one_network(self, experts):
        group = ExpertGroup(64, experts, (64, 64), gate_logits=0)
        assert group.weight.abs().max() <= math.sqrt(6 / 64)
        assert group.weight.var().item() == pytest.approx(2 / 64, rel=0.1)
        assert group.deeper.layers[0].weight.var().item() == pytest.approx(2 / 64, rel=0.1)
        assert not group.bias.any()

    def test_dropout_acts_after_every_layer_in_training_alone(self):
        group = ExpertGroup(6, 2, (300, 300), dropout=0.5, gate_logits=3)
        torch.nn.init.ones_(group.weight)
        x = torch.rand(4, 6)
        outputs, logits = group(x)
        again, same = group(x)
        assert not torch.equal(outputs, again)
        assert torch.equal(logits, same)  # gate logits are never dropped
        group.eval()
        assert torch.equal(group(x)[0], group(x)[0])


def level_by_loop(level, xs):
    """The mixtures `[I, B, H]` and the gates' weights, row by row."""
    parts = [by_loop(group, x) for group, x in zip(level.groups, xs, strict=True)]
    experts = [expert for found, _ in parts for expert in found]
    logits = torch.cat([some for _, some in parts], dim=1)
    mixed, weights = [], []
    column = 0
    for gate in level.gates:
        rows, shares = [], []
        for row in range(len(logits)):
            powers = [math.exp(logits[row, column + i].item()) for i in range(len(gate))]
            share = [power / sum(powers) for power in powers]
            rows.append(sum(s * experts[e][row] for s, e in zip(share, gate, strict=True)))
            shares.append(share)
        column += len(gate)
        mixed.append(torch.stack(rows))
        weights.append(torch.tensor(shares))
    return torch.stack(mixed), torch.cat(weights, dim=1)


PATHS = pytest.mark.parametrize("plainly", [True, False])


def ran(level, inputs, plainly):
    return level.plainly(inputs) if plainly else level(inputs)


class TestLevel:
    """By hand and by loops; that both paths agree in every corner is tests/nn/test_fused.py."""

    @PATHS
    @pytest.mark.parametrize("width", [1, 16])  # kernels take multiples of sixteen alone
    def test_golden(self, plainly, width):
        # x = 1: experts give 2 and 4; gates (¼, ¾) and (¾, ¼).
        level = Level(1, [(2, 4)], [[0, 1], [0, 1]], (width,))
        with torch.no_grad():
            level.groups[0].weight.copy_(
                torch.tensor([2.0] * width + [4.0] * width + [0.0, math.log(3), math.log(3), 0.0])[None]
            )
        mixed, weights = ran(level, [Inputs(torch.ones(1, 1))], plainly)
        torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75, 0.75, 0.25]]))
        torch.testing.assert_close(mixed, torch.tensor([3.5, 2.5]).view(2, 1, 1).expand(2, 1, width))

    @PATHS
    @pytest.mark.parametrize("width", [3, 16])
    def test_gates_see_the_experts_they_name_in_the_order_they_name_them(self, plainly, width):
        level = randomised(Level(6, [(2, 3), (3, 4)], [[4, 0, 1], [2], [1, 3, 2]], (5, width)))
        x = torch.randn(2, 7, 6)
        mixed, weights = ran(level, x, plainly)
        expected, shares = level_by_loop(level, x)
        torch.testing.assert_close(mixed, expected)
        torch.testing.assert_close(weights, shares)

    @PATHS
    @pytest.mark.parametrize("width", [3, 16])
    def test_equal_experts_come_out_as_they_are(self, plainly, width):
        level = randomised(Level(6, [(4, 8)], [range(4)] * 2, (width,)))
        with torch.no_grad():
            group = level.groups[0]
            group.weight[:, : 4 * width] = group.weight[:, :width].repeat(1, 4)
            group.bias.copy_(group.bias[:width].repeat(4))
        x = torch.randn(5, 6)
        mixed, _ = ran(level, [Inputs(x)], plainly)
        (expert, *_), _ = by_loop(group, x)
        torch.testing.assert_close(mixed, expert.expand(2, 5, width))

    @PATHS
    @pytest.mark.parametrize("width", [3, 16])
    def test_without_gates_the_experts_come_out(self, plainly, width):
        level = randomised(Level(6, [(2, 0), (1, 0)], [], (5, width)))
        x = torch.randn(2, 7, 6)
        outputs, weights = ran(level, x, plainly)
        expected = by_loop(level.groups[0], x[0])[0] + by_loop(level.groups[1], x[1])[0]
        torch.testing.assert_close(outputs, torch.stack(expected))
        assert weights.shape == (7, 0)

    @PATHS
    def test_masks_by_hand(self, plainly):
        """Two gates over both experts: expert e is given Σ_t w_te · mask_te ⊙ δ_t, the logits Σ of the whole δ."""
        level = Level(1, [(2, 4)], [[0, 1], [0, 1]], (16,))
        weight = torch.zeros(1, 36)
        weight[0, :16], weight[0, 16:32], weight[0, 33] = 2.0, 4.0, math.log(3.0)  # gate 0: ¼, ¾; gate 1: ½, ½
        level.groups[0].weight.data = weight
        masks = torch.ones(4, 16)
        masks[0, 0], masks[3, 1] = 0.0, 0.5  # of expert 0 from task 0, unit 0; of expert 1 from task 1, unit 1
        mixed, _ = ran(level, [Inputs(torch.ones(1, 1))], plainly)
        with level.masked(masks):
            mixed.sum().backward()
        gradient = level.groups[0].weight.grad[0]
        assert gradient[:3].tolist() == pytest.approx([0.5, 0.75, 0.75])
        assert gradient[16:19].tolist() == pytest.approx([1.25, 1.0, 1.25])
        # r (f − mean f), 16 units: gate 0: ¼ (2 − 3.5), ¾ (4 − 3.5); gate 1: ½ (2 − 3), ½ (4 − 3)
        assert gradient[32:].tolist() == pytest.approx([-6.0, 6.0, -8.0, 8.0])

    @PATHS
    def test_weights_carry_no_gradient(self, plainly):
        level = randomised(Level(6, [(2, 2)], [[0, 1]], (16,)))
        mixed, weights = ran(level, [Inputs(torch.randn(7, 6))], plainly)
        assert mixed.requires_grad
        assert not weights.requires_grad

    def test_every_gate_logit_belongs_to_a_gate(self):
        with pytest.raises(AssertionError, match="belongs to a gate"):
            Level(6, [(2, 3)], [[0, 1]], (4,))


@pytest.mark.parametrize("residual", [False, True])
def test_normalised_experts_are_networks_of_their_own(residual):
    style = {"layer_norm": True, "residual": residual}
    level = randomised(Level(5, [(2, 0)], [], (4, 4), **style))
    (group,) = level.groups
    x = torch.randn(6, 5)
    experts, _ = level([Inputs(x)])
    for e in range(2):
        alone = ExpertGroup(5, 1, (4, 4), **style)
        with torch.no_grad():
            alone.weight.copy_(group.weight[:, 4 * e : 4 * e + 4])
            alone.bias.copy_(group.bias[4 * e : 4 * e + 4])
            alone.norm.gain.copy_(group.norm.gain[e : e + 1])
            alone.norm.bias.copy_(group.norm.bias[e : e + 1])
            for mine, theirs in zip(alone.deeper.parameters(), group.deeper.parameters(), strict=True):
                mine.copy_(theirs[e : e + 1])
        torch.testing.assert_close(alone(x)[0][0], experts[e])
    assert [m.shape for m in group.matrices()] == [(2, 5, 4), (2, 4, 4)]
    assert torch.equal(group.matrices()[0][1], group.weight[:, 4:])


def test_a_residual_adds_what_a_layer_of_the_same_width_read():
    group = randomised(ExpertGroup(4, 2, (4, 4), residual=True))
    x = torch.randn(6, 4)
    assert not group.plain
    for expert, found in enumerate(group(x)[0]):
        part = slice(4 * expert, 4 * expert + 4)
        hidden = x + torch.relu(x @ group.weight[:, part] + group.bias[part])
        layer = group.deeper.layers[0]
        expected = hidden + torch.relu(hidden @ layer.weight[expert] + layer.bias[expert])
        torch.testing.assert_close(found, expected)
    assert ExpertGroup(5, 2, (4,), residual=True).plain


@pytest.mark.parametrize("width", [5, 16])  # kernels take 16·k alone
def test_gates_that_read_some_columns(width):
    level = Level(4, [(2, 4)], [range(2)] * 2, (width,), gate_columns=[1, 3])
    optimizer = torch.optim.Adam(level.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        level([Inputs(torch.randn(8, 4))])[0][0].square().sum().backward()
        optimizer.step()
    gates = level.groups[0].weight[:, 2 * width :]
    assert not gates[[0, 2]].any()
    assert gates[[1, 3], :2].all()
    x = torch.randn(6, 4)
    other = x.clone()
    other[:, [0, 2]] = 7.0
    assert torch.equal(level([Inputs(x)])[1], level([Inputs(other)])[1])
    assert not torch.equal(level([Inputs(x)])[0], level([Inputs(other)])[0])


def test_gate_features_are_columns():
    columns = InputColumns({"user": (0, 1), "age": (2,)}, [(0, 1, 2)])
    assert GatedConfig().gate_columns(None) is None
    assert GatedConfig(gate_features=("age",)).gate_columns(columns) == [2]
    with pytest.raises(ValueError, match="'aeg'; did you mean 'age'"):
        GatedConfig(gate_features=("aeg",)).gate_columns(columns)


def test_mix_by_hand():
    # experts (1, 2) and (3, 4) of one row: ¼ · 1 + ¾ · 3, ¼ · 2 + ¾ · 4; and 2 · 1 − 3, 2 · 2 − 4
    experts = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    weights = torch.tensor([[[0.25, 0.75]], [[2.0, -1.0]]])
    assert mix(weights, experts).tolist() == [[[2.5, 3.5]], [[-1.0, 0.0]]]
