"""Policies that serve: by hand, and as the networks that were learned."""

import numpy as np
import pytest
import torch

from polyrank.fusion.actors import ActorPolicy, CandidatePolicy
from polyrank.fusion.forward import Network
from polyrank.fusion.learners.networks import Stack
from polyrank.fusion.policy import Box, Standard, load_policy, save_policy

STANDARD = Standard(np.array([1.0], np.float32), np.array([2.0], np.float32))
BOX = Box(np.array([0.0]), np.array([4.0]))


def linear(*weights, bias=0.0):
    """x ↦ Σ w x + b through one ReLU that lets everything pass."""
    first = np.array(weights, np.float32).reshape(1, -1, 1)
    return Network([(first, np.full((1, 1, 1), 100.0, np.float32)), (np.ones((1, 1, 1), np.float32),
                     np.full((1, 1, 1), bias - 100.0, np.float32))])  # fmt: skip


def test_an_actor_by_hand():
    policy = ActorPolicy(STANDARD, BOX, linear(2.0, bias=0.5), 1.5)
    # s = 3: s̃ = 1, tanh(2.5) · 1.5 half-widths of 2 about 2
    np.testing.assert_allclose(policy.act(np.array([[3.0]])), [[2 + 2 * 1.5 * np.tanh(2.5)]], rtol=1e-5)


def test_candidates_by_hand():
    """Three latents make tanh(z); P moves by 0.1 tanh(50 s̃) = 0.1; Q = min(a, 0.6 − a) is best near 0.3."""
    critics = Network([
        (np.array([[[0.0], [1.0]], [[0.0], [-1.0]]], np.float32), np.full((2, 1, 1), 100.0, np.float32)),
        (np.ones((2, 1, 1), np.float32), np.array([[[-100.0]], [[-99.4]]], np.float32)),
    ])  # fmt: skip
    latents = np.arctanh(np.array([[-0.5], [0.15], [0.95]])).astype(np.float32)
    policy = CandidatePolicy(STANDARD, BOX, linear(0.0, 1.0), linear(50.0, 0.0), critics, latents, 0.1)
    np.testing.assert_allclose(policy.act(np.array([[3.0]])), [[2 + 2 * 0.25]], rtol=1e-4)
    np.testing.assert_allclose(policy.act(np.array([[-1.0]])), [[2 + 2 * 0.05]], rtol=1e-4)  # moved the other way
    high = CandidatePolicy(STANDARD, BOX, linear(0.0, 1.0), linear(50.0, 0.0), linear(0.0, 1.0), latents, 0.1)
    np.testing.assert_allclose(high.act(np.array([[3.0]])), [[4.0]])  # 0.95 + 0.1, cut off at the box


@pytest.mark.parametrize("rows", [0, 1, 9_000])
def test_what_serves_is_what_was_learned(rows, tmp_path):
    """Within 1e-5 of torch, for any number of states, after saving and reading."""
    generator = torch.Generator().manual_seed(0)
    decoder, mover = (Stack((3, width), (32, 32), 2, generator) for width in (4, 2))
    critics = Stack((3, 2), (32, 32), 1, generator, count=2)
    latents = torch.randn(10, 4, generator=generator)
    standard = Standard(np.array([1.0, 0.0, 5.0], np.float32), np.array([2.0, 1.0, 0.0], np.float32))
    box = Box(np.array([-1.0, 0.0]), np.array([1.0, 3.0]))
    networks = (decoder.network(), mover.network(), critics.network())
    save_policy(CandidatePolicy(standard, box, *networks, latents.numpy(), 0.15), tmp_path)
    states = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    with torch.no_grad():
        seen = torch.from_numpy(standard(states))[:, None]
        made = torch.tanh(decoder(seen, latents[None])[0])
        moved = (made + 0.15 * torch.tanh(mover(seen, made)[0])).clamp(-1, 1)
        values = critics(seen, moved).amin(dim=0)[..., 0]
        best = moved[torch.arange(rows), values.argmax(dim=1)] if rows else torch.empty(0, 2)
    found = load_policy(tmp_path).act(states)
    # Where two candidates are worth the same to float32, either may be taken.
    clear = np.ones(rows, np.bool_) if not rows else (values.topk(2).values.diff().abs()[:, 0] > 1e-5).numpy()
    assert clear.mean() > 0.99 if rows else True
    np.testing.assert_allclose(found[clear], box.weights(best.numpy())[clear], atol=1e-5)


def test_an_actor_serves_what_was_learned(tmp_path):
    actor = Stack((3,), (32, 32), 2, torch.Generator().manual_seed(0))
    standard = Standard(np.zeros(3, np.float32), np.ones(3, np.float32))
    box = Box(np.array([-1.0, 0.0]), np.array([1.0, 3.0]))
    save_policy(ActorPolicy(standard, box, actor.network(), 2.0), tmp_path)
    states = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    expected = box.weights(2 * torch.tanh(actor(torch.from_numpy(states))[0]).detach().numpy())
    np.testing.assert_allclose(load_policy(tmp_path).act(states), expected, atol=1e-5)
