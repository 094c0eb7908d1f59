"""Feature gates, self gates and the hierarchy by hand (Wang et al., KDD 2025)."""

import math

import pytest
import torch

from polyrank.models.home import FeatureGate, HoME, HoMEConfig, SwishNetworks
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import InputColumns, Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def swish(a):
    return a / (1 + math.exp(-a))


def test_a_feature_gate_by_hand():
    # LoRA logits 0 and ln 3 at v = 1: 2σ gives 1 and 1.5, mixed evenly
    gate = FeatureGate(1, 1, 2)
    with torch.no_grad():
        gate.down.weight.fill_(1.0)
        gate.up.weight.copy_(torch.tensor([[[0.0]], [[math.log(3)]]]))
    assert gate(torch.ones(1, 1, 1)).item() == pytest.approx(1.25)
    with torch.no_grad():
        gate.choice.linear.weight.copy_(torch.tensor([[[0.0, math.log(3)]]]))
    assert gate(torch.ones(1, 1, 1)).item() == pytest.approx(0.25 * 1 + 0.75 * 1.5)


def test_more_low_rank_factors_do_not_add_parameters():
    counts = {factors: sum(p.numel() for p in FeatureGate(1, 12, factors).parameters()) for factors in (1, 2, 4)}
    assert [count - 12 * factors for factors, count in counts.items()] == [2 * 144] * 3


def test_experts_are_swish_of_normalised_sums():
    networks = SwishNetworks(1, 1, HoMEConfig(widths=(1,)))
    with torch.no_grad():
        networks.layers[0].weight.fill_(3.0)
    # sums 3 and 9 are −1 and 1 over the batch
    out = networks(torch.tensor([[[1.0], [3.0]]]))
    assert out.flatten().tolist() == pytest.approx([swish(-1), swish(1)], abs=1e-5)
    assert swish(1) == pytest.approx(0.731059, abs=1e-6)


def test_golden():
    """One task, one expert of each kind, feature gates of 1, uniform gates, self gates of ½; statistics at 0 and 1."""
    config = HoMEConfig(widths=(1,), shared_experts=1, category_experts=1, task_experts=1, gate_widths=())
    model = HoME(1, 1, config).eval()
    with torch.no_grad():
        for stage in (model.meta, model.tasks):
            stage.features.up.weight.zero_()
            stage.networks.layers[0].weight.fill_(1.0)
        model.meta.networks.layers[0].weight[1] = 2.0
    shared, category = swish(1), swish(2)
    own = (shared + category) / 2 + category / 2
    common = (shared + category) / 2 + shared / 2
    expected = (swish(common) + 2 * swish(own)) / 3 + swish(own) / 2
    assert model(Inputs(torch.ones(1, 1))).item() == pytest.approx(expected, abs=1e-4)


def test_gates_are_networks():
    """Hidden 2v = 2; logits ½ ln 3 of it for the second expert: (¼, ¾); the self gate's are its biases, ln 3: ¾."""
    config = HoMEConfig(widths=(1,), shared_experts=1, category_experts=1, task_experts=1, gate_widths=(1,))
    model = HoME(1, 1, config).eval()
    with torch.no_grad():
        model.meta.features.up.weight.zero_()
        model.meta.networks.layers[0].weight.copy_(torch.tensor([[[1.0]], [[2.0]]]))
        model.meta.gate.hidden.layers[0].weight.fill_(2.0)
        model.meta.gate.linear.weight.copy_(torch.tensor([[[0.0, math.log(3) / 2]]]).expand(2, -1, -1))
        model.meta.self_gate.linear.weight.zero_()
        model.meta.self_gate.linear.bias.fill_(math.log(3))
    v = torch.ones(1, 1)
    states, weights = model.meta(v.expand(2, -1, -1), v, v)
    assert weights[:, 0].tolist() == [pytest.approx([0.25, 0.75])] * 2
    both = 0.25 * swish(1) + 0.75 * swish(2)  # the category's state adds its own expert, the shared one the shared
    assert states.flatten().tolist() == pytest.approx([both + 0.75 * swish(2), both + 0.75 * swish(1)], abs=1e-4)


def test_first_gates_may_read_one_feature_alone():
    columns = InputColumns({"user": (0, 1), "scene": (2,)}, [(0, 1, 2)])
    model = HoME(3, 2, HoMEConfig(gate_features=("scene",)), columns=columns).eval()
    x = torch.randn(5, 3)
    other = torch.cat([torch.randn(5, 2), x[:, 2:]], dim=1)
    for gate, same in zip(model.gates(Inputs(x)), model.gates(Inputs(other)), strict=True):
        assert torch.equal(gate.weights, same.weights) == (gate.level == 1)


NAMES = ("finish", "play", "like")
TWO = {"watch": ("finish", "play"), "act": ("like",)}


def made(**knobs):
    config = HoMEConfig(**({"widths": (4,), "categories": TWO} | knobs))
    return HoME(6, 3, config, NAMES)


def test_who_sees_whom():
    model = made(shared_experts=1, category_experts=1, task_experts=1)
    gates = model.gates(Inputs(torch.randn(5, 6)))
    seen = {(gate.level, gate.owner): gate.experts for gate in gates}
    everyone, watch, act = (SHARED, 0), (SHARED, 1), (SHARED, 2)
    assert seen == {
        (1, 0): (everyone, watch),
        (1, 1): (everyone, watch),
        (1, 2): (everyone, act),
        (1, SHARED): (everyone, watch, act),
        (2, 0): (everyone, watch, (0, 0)),
        (2, 1): (everyone, watch, (1, 0)),
        (2, 2): (everyone, act, (2, 0)),
    }


def test_a_task_trains_the_second_level_s_experts_that_it_sees():
    model = made(shared_experts=1, category_experts=1, task_experts=1, layer_norm=True)
    model(Inputs(torch.randn(9, 6)))[2].square().sum().backward()
    gradients = model.tasks.networks.layers[0].weight.grad
    # shared, watch, act, finish, play, like
    assert [bool(gradient.any()) for gradient in gradients] == [True, False, True, False, False, True]
    # At the first level the shared state has seen all categories.
    assert [bool(gradient.any()) for gradient in model.meta.networks.layers[0].weight.grad] == [True] * 3


@pytest.mark.parametrize(
    "categories",
    [
        {"watch": ("finish", "play")},  # like is missing
        {"watch": ("finish", "play"), "act": ("like", "share")},
        {"watch": ("finish", "play"), "act": ("like", "play")},
        {"watch": ("finish", "play", "like"), "act": ()},
    ],
)
def test_categories_must_divide_the_tasks(categories):
    with pytest.raises(ValueError, match=r"each task once \(finish, play, like\)[\s\S]*Received: watch: finish"):
        made(categories=categories)


def test_one_expert_has_a_sigmoid_for_a_self_gate_and_more_a_softmax():
    x = torch.randn(1, 5, 6)
    for count, total in ((1, 0.5), (2, 1.0)):
        stage = made(shared_experts=count, category_experts=2, layer_norm=True, gate_widths=()).meta
        inputs = x.expand(3, -1, -1)
        _, weights = stage(inputs, inputs, inputs)
        torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 5))
        # Of equal experts a unit gives (1 + Σ self gate) times the output.
        with torch.no_grad():
            for parameter in (*stage.networks.parameters(), *stage.features.parameters()):
                parameter.copy_(parameter[:1].expand_as(parameter))
        out, _ = stage(inputs, inputs, inputs)
        torch.testing.assert_close(out[2] / out[0], torch.full((5, 4), (1 + total) / 2.0), rtol=1e-4, atol=1e-5)
