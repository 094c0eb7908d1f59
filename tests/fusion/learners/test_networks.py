"""Stacks give what E networks of torch would, gradients too; descent goes down."""

import numpy as np
import pytest
import torch

from polyrank.fusion.forward import Network
from polyrank.fusion.learners.networks import Descent, Stack

PARTS, COUNT, OUT = (3, 2), 3, 2


def stack_of(count=COUNT, hidden=(8, 5)):
    return Stack(PARTS, hidden, OUT, torch.Generator().manual_seed(0), count=count)


def reference(stack, index):
    """One of the networks, as torch has it."""
    layers = []
    for weights, bias in stack.layers(stack.flat.detach()):
        linear = torch.nn.Linear(*weights.shape[1:])
        linear.weight.data, linear.bias.data = weights[index].T.clone(), bias[index, 0].clone()
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", [(8,), (8, 5), (4, 6, 5)])
@pytest.mark.parametrize("shapes", [((7,), (7,)), ((7, 1), (7, 4)), ((7, 1), (1, 4))], ids=str)
def test_outputs_and_gradients_are_those_of_separate_networks(hidden, shapes):
    stack = stack_of(hidden=hidden)
    parts = [torch.randn(*lead, width, requires_grad=True) for lead, width in zip(shapes, PARTS, strict=True)]
    lead = torch.broadcast_tensors(*(part[..., 0] for part in parts))[0].shape
    pull = torch.randn(COUNT, *lead, OUT)
    networks = [reference(stack, index) for index in range(COUNT)]
    whole = torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], dim=-1)
    expected = torch.stack([network(whole) for network in networks])
    found = stack(*parts)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad((found * pull).sum(), [stack.flat, *parts])
    learned = [p for network in networks for p in network.parameters()]
    theirs = torch.autograd.grad((expected * pull).sum(), [*parts, *learned])
    for mine, its in zip(gradients[1:], theirs[:2], strict=True):
        torch.testing.assert_close(mine, its)
    layers = stack.layers(gradients[0])
    for index in range(COUNT):
        for layer, (weights, bias) in enumerate(layers):
            at = 2 + index * 2 * len(layers) + 2 * layer
            torch.testing.assert_close(weights[index].T, theirs[at])
            torch.testing.assert_close(bias[index, 0], theirs[at + 1])


def test_constant_weights_pass_gradients_on_and_take_none():
    stack, parts = stack_of(), [torch.randn(4, 3), torch.randn(4, 2, requires_grad=True)]
    one, other = stack(*parts), stack.fixed(*parts)
    torch.testing.assert_close(one, other)
    wanted = torch.autograd.grad(one.sum(), parts[1])
    torch.testing.assert_close(torch.autograd.grad(other.sum(), parts[1], retain_graph=True), wanted)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(other.sum(), stack.flat)


def test_it_begins_as_torch_begins():
    flat = Stack((64,), (400,), 1, torch.Generator().manual_seed(1)).layers(torch.arange(400 * 66 + 1.0))
    assert [tuple(t.shape) for layer in flat for t in layer] == [(1, 64, 400), (1, 1, 400), (1, 400, 1), (1, 1, 1)]
    weights = Stack((64,), (400,), 1, torch.Generator().manual_seed(1))
    (first, bias), _ = weights.layers(weights.flat.detach())
    assert 0.12 < first.abs().max() <= 1 / 8  # 1/√64
    assert first.std().item() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.02)
    assert bias.abs().max() <= 1 / 8


def test_a_slow_copy_follows():
    fast = stack_of()
    slow = fast.copy()
    with torch.no_grad():
        fast.flat += 1
    slow.follow(fast, 0.25)
    torch.testing.assert_close(slow.flat, fast.flat.detach() - 0.75)
    assert not slow.flat.requires_grad


def test_without_torch_it_is_the_same():
    stack = stack_of()
    network = Network.of(stack.network().arrays("q"), "q")
    states, candidates = torch.randn(6, 1, 3), torch.randn(1, 4, 2)
    np.testing.assert_allclose(
        network(states.numpy(), candidates.numpy()), stack(states, candidates).detach().numpy(), atol=1e-6
    )
    assert network(np.zeros((0, 1, 3), np.float32), candidates.numpy()).shape == (COUNT, 0, 4, OUT)
    with pytest.raises(ValueError, match="no network 'r'"):
        Network.of(network.arrays("q"), "r")


def test_descent_is_adam_whose_rate_falls_over_the_second_half():
    stack, other = stack_of(), stack_of()
    single, its = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    descend, theirs = Descent(0.01, 10, stack, single), torch.optim.Adam([other.flat, its], lr=0.01)
    parts = [torch.randn(9, 3), torch.randn(9, 2)]
    for number in range(9):
        theirs.param_groups[0]["lr"] = 0.01 if number <= 5 else 0.005 * (1 + np.cos(np.pi * (number - 5) / 5))
        descend((stack(*parts) * single).square().mean())
        theirs.zero_grad()
        (other(*parts) * its).square().mean().backward()
        theirs.step()
    torch.testing.assert_close(stack.flat, other.flat)
    torch.testing.assert_close(single, its)
