"""All forward, task-specific backward: by hand (Su et al., AAAI 2024)."""

import pytest
import torch

from polyrank.models.stem import STEM, STEMConfig
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import InputColumns, Inputs

THREE = InputColumns({"user": (0, 1, 2)}, [(0,), (1,), (2,)])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def golden():
    """x = (x₁, x₂, x_s) = (1, 2, 3); every expert doubles: 2, 4 and, shared, 6; uniform gates."""
    model = STEM(3, 2, STEMConfig(widths=(1,), gate_widths=()), THREE)
    with torch.no_grad():
        for group in model.level.groups:
            group.weight.fill_(2.0)
        model.gate.linear.weight.zero_()
    return model, torch.tensor([[1.0, 2.0, 3.0]])


def test_golden():
    model, x = golden()
    torch.testing.assert_close(model(Inputs(x)), torch.full((2, 1, 1), 4.0))


def test_gradients_by_hand():
    model, x = golden()
    x.requires_grad_()
    model(Inputs(x))[0].sum().backward()
    # ∂f₁/∂(2, 4, 6) = (⅓, 0, ⅓), so that weights get ⅓ · (1, 0, 3) and embeddings ⅓ · (2, 0, 2)
    assert [group.weight.grad.item() for group in model.level.groups] == pytest.approx([1 / 3, 0.0, 1.0])
    assert x.grad[0].tolist() == pytest.approx([2 / 3, 0.0, 2 / 3])
    # The gate learns from all experts: ⅓ · (e − 4) · (x₁ + x_s)
    assert model.gate.linear.weight.grad[0, 0].tolist() == pytest.approx([-8 / 3, 0.0, 8 / 3])
    assert not model.gate.linear.weight.grad[1].any()


def test_the_gate_reads_own_and_shared_embeddings():
    model, x = golden()
    with torch.no_grad():
        # task 1's logits are ln 2 / 4 · (x₁ + x_s) for its own expert: weights (½, ¼, ¼)
        model.gate.linear.weight[0, 0, 0] = torch.log(torch.tensor(2.0)) / 4
    (first, second) = model.gates(Inputs(x))
    assert first.weights[0].tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert second.weights[0].tolist() == pytest.approx([1 / 3] * 3)
    assert first.experts == ((0, 0), (1, 0), (SHARED, 0))
    assert model(Inputs(x))[0].item() == pytest.approx(0.5 * 2 + 0.25 * 4 + 0.25 * 6)


def test_a_task_reaches_its_own_and_the_shared_embeddings_alone():
    columns = InputColumns({}, [(0, 1, 6), (2, 3, 6), (4, 5, 6)])  # two of each set, and a number
    model = STEM(7, 2, STEMConfig(widths=(8, 4), specific_experts=2, shared_experts=2, gate_widths=(3,)), columns)
    x = torch.randn(9, 7, requires_grad=True)
    model(Inputs(x))[1].square().sum().backward()
    assert not x.grad[:, [0, 1]].any()
    assert x.grad[:, [2, 3]].any()
    assert x.grad[:, [4, 5]].any()
    assert not model.level.groups[0].weight.grad.any()
    assert model.level.groups[1].weight.grad.any()


def test_the_value_is_that_of_the_whole_mixture():
    columns = InputColumns({}, [(0, 1), (2, 3), (4, 5)])
    model = STEM(6, 2, STEMConfig(widths=(5,), specific_experts=2), columns)
    x = Inputs(torch.randn(4, 6))
    inputs = torch.stack([x.wide[:, a : a + 2] for a in (0, 2, 4)])
    experts = torch.cat([group(inputs[g])[0] for g, group in enumerate(model.level.groups)])
    for task, gate in enumerate(model.gates(x)):
        expected = torch.einsum("be,ebh->bh", gate.weights, experts)
        torch.testing.assert_close(model(x)[task], expected)


def test_gates_may_read_one_feature_alone():
    # sets (user, age): task 1 (0, 3), task 2 (1, 4), shared (2, 5); gates read age in each set
    columns = InputColumns({"user": (0, 1, 2), "age": (3, 4, 5)}, [(0, 3), (1, 4), (2, 5)])
    model = STEM(6, 2, STEMConfig(widths=(4,), gate_widths=(3,), gate_features=("age",)), columns)
    x = torch.randn(5, 6)
    other = torch.cat([torch.randn(5, 3), x[:, 3:]], dim=1)
    assert torch.equal(model.gates(Inputs(x))[1].weights, model.gates(Inputs(other))[1].weights)
    changed = x + torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # the shared age
    assert not torch.equal(model.gates(Inputs(x))[1].weights, model.gates(Inputs(changed))[1].weights)


def test_embedding_sets():
    assert STEM.embedding_sets(3, STEMConfig()) == 4
