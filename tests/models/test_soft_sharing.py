"""Distances by hand and by a loop over pairs; networks that share nothing but a penalty."""

import dataclasses
from itertools import combinations

import pytest
import torch

from polyrank.models.soft_sharing import SoftSharing, SoftSharingConfig, pairwise_distance
from polyrank.nn.inputs import InputColumns, Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def golden(**knobs):
    # θ₁ = (1, 2), θ₂ = (0, 4)
    model = SoftSharing(2, 2, SoftSharingConfig(widths=(1,), strength=1.0, **knobs))
    (group,) = model.networks.groups
    with torch.no_grad():
        group.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 4.0]]))
        group.bias.copy_(torch.tensor([0.5, -100.0]))  # no part of the distance
    return model


@pytest.mark.parametrize(("norm", "distance"), [("l1", 3.0), ("l2", 5.0)])
def test_golden(norm, distance):
    model = golden(norm=norm)
    assert model.penalty().item() == pytest.approx(distance)
    # x = (1, 1): 1 + 2 + ½; relu(4 − 100)
    assert model(Inputs(torch.ones(1, 2))).tolist() == [[[3.5]], [[0.0]]]


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_distances_are_those_of_all_pairs(tasks):
    weights = torch.randn(tasks, 4, 3, dtype=torch.float64)
    pairs = [weights[s] - weights[t] for s, t in combinations(range(tasks), 2)]
    squares, absolute = (
        sum(f(d).sum() for d in pairs) if pairs else torch.zeros(()) for f in (torch.square, torch.abs)
    )
    torch.testing.assert_close(pairwise_distance(weights, "l2"), squares, check_dtype=False)
    torch.testing.assert_close(pairwise_distance(weights, "l1"), absolute, check_dtype=False)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradients_are_those_of_all_pairs(norm):
    weights = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    power = 1 if norm == "l1" else 2
    pairs = sum((weights[s] - weights[t]).abs().pow(power).sum() for s, t in combinations(range(4), 2))
    (expected,) = torch.autograd.grad(pairs, weights)
    (found,) = torch.autograd.grad(pairwise_distance(weights, norm), weights)
    torch.testing.assert_close(found, expected)


def test_equal_networks_have_distance_and_gradient_zero():
    weights = torch.ones(3, 2, requires_grad=True)
    distance = pairwise_distance(weights, "l2")
    distance.backward()
    assert distance.item() == 0.0
    assert weights.grad.tolist() == [[0.0, 0.0]] * 3


def test_the_penalty_is_over_all_layers_times_its_strength():
    model = SoftSharing(3, 2, SoftSharingConfig(widths=(4, 2), strength=0.5))
    (group,) = model.networks.groups
    first = group.weight[:, :4] - group.weight[:, 4:]
    deeper = group.deeper.layers[0].weight
    expected = 0.5 * (first.square().sum() + (deeper[0] - deeper[1]).square().sum())
    torch.testing.assert_close(model.penalty(), expected)
    assert SoftSharing(3, 2, SoftSharingConfig(strength=0.0)).penalty() is None


def test_a_task_trains_its_own_network_alone():
    model = SoftSharing(3, 2, SoftSharingConfig(widths=(4,)))
    model(Inputs(torch.randn(8, 3)))[0].square().sum().backward()
    gradient = model.networks.groups[0].weight.grad
    assert gradient[:, :4].any()
    assert not gradient[:, 4:].any()


def test_separate_embeddings():
    # x = (e₁, e₂, number): task 1 reads (e₁, number), task 2 (e₂, number)
    config = SoftSharingConfig(widths=(1,), embeddings="separate")
    columns = InputColumns({"user": (0, 1), "age": (2,)}, [(0, 2), (1, 2)])
    model = SoftSharing(3, 2, config, columns)
    with torch.no_grad():
        for group, weight in zip(model.networks.groups, ([[1.0], [3.0]], [[2.0], [1.0]]), strict=True):
            group.weight.copy_(torch.tensor(weight))
    x = torch.tensor([[1.0, 10.0, 2.0]])
    assert model(Inputs(x)).tolist() == [[[7.0]], [[22.0]]]
    assert model.penalty().item() == pytest.approx(1e-4 * (1 + 4))
    assert SoftSharing.embedding_sets(2, config) == 2
    assert SoftSharing.embedding_sets(2, dataclasses.replace(config, embeddings="shared")) == 1
