"""The generator's loss and the candidates by hand; and a problem of known optimum."""

import math

import pytest
import torch

from polyrank.fusion.learners.batchrl_mtf import BatchRLMTFConfig, _Learner, fit
from polyrank.fusion.learners.learning import Experience
from polyrank.fusion.policy import Box
from polyrank.progress import Silent


@pytest.fixture
def learner(quadratic):
    log = quadratic(50)
    return _Learner(Experience(log, Box.of(log)), BatchRLMTFConfig(hidden=(8,), candidates=3, rho=0.15, kl=0.5))


def silence(stack, bias):
    """A network that says one thing whatever it reads."""
    weights, biases = stack.seen[-1]
    weights.zero_()
    biases.copy_(torch.as_tensor(bias))


def test_the_generators_loss_by_hand(learner):
    """K = 2, four latents N(0.5, e⁰·²): KL = ½ Σ (μ² + σ² − 1 − ln σ²); the decoder makes tanh(0.3, −0.1)."""
    silence(learner.encoder, [[[0.5] * 4 + [0.1] * 4]])
    silence(learner.decoder, [[[0.3, -0.1]]])
    actions = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    a, b = math.tanh(0.3), math.tanh(-0.1)
    squares = (a**2 + b**2 + (1 - a) ** 2 + (-1 - b) ** 2) / 2
    divergence = 4 * 0.5 * (0.25 + math.exp(0.2) - 1 - 0.2)
    found = learner.generator_loss(torch.zeros(2, 2), actions)
    assert found.item() == pytest.approx(squares + 0.5 * divergence, rel=1e-5)


def test_a_candidate_moves_by_rho_at_most_and_stays_in_the_box(learner):
    silence(learner.perturbation, [[[50.0, -50.0]]])
    made = torch.tensor([[0.2, 0.2], [0.95, -0.95]])
    found = learner.moved(torch.zeros(2, 2), made, learner.perturbation)
    torch.testing.assert_close(found, torch.tensor([[0.35, 0.05], [1.0, -1.0]]))


@torch.no_grad()
def test_the_best_is_the_largest_of_the_lesser_of_two_qs(learner):
    states = torch.tensor([[0.3, -0.7], [1.0, 0.1]])
    expected = []
    for state in states:
        worst = []
        for latent in learner.latents:
            made = torch.tanh(learner.decoder(state[None], latent[None])[0])
            action = learner.moved(state[None], made, learner.perturbation)
            worst.append(min(q.item() for q in learner.critics(state[None], action)[:, 0, 0]))
        expected.append(max(worst))
    found = learner.best(states, learner.decoder, learner.perturbation, learner.critics)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_it_gains_most_of_what_a_known_problem_holds(quadratic, regret):
    log = quadratic(4_000)
    knobs = {"steps": 800, "hidden": (32,), "learning_rate": 3e-3, "batch_size": 128, "rho": 0.5, "clip": 1.5}
    policy = fit(log, Box.of(log), BatchRLMTFConfig(**knobs), Silent()).policy
    assert regret(policy) < 0.2 * regret.constant
