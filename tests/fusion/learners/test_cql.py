"""Densities and the penalty against references; and a problem of known optimum."""

import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from polyrank.fusion.learners.cql import CQLConfig, _Learner, fit
from polyrank.fusion.learners.learning import Experience
from polyrank.fusion.policy import Box
from polyrank.progress import Silent


def learner_of(log, **knobs):
    data = Experience(log, Box.of(log))
    return data, _Learner(data, CQLConfig(hidden=(8,), **knobs))


def test_densities_are_those_of_a_squashed_gaussian(quadratic):
    data, learner = learner_of(quadratic(50))
    with torch.no_grad():
        actions, densities = learner.draw(data.beginnings, 4)
        mean, log_deviation = learner.actor(data.beginnings)[0].chunk(2, dim=-1)
    squashed = TransformedDistribution(Normal(mean[:, None], log_deviation[:, None].exp()), TanhTransform())
    expected = squashed.log_prob(actions).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(densities, expected, rtol=1e-3, atol=1e-3)


def test_the_soft_maximum_of_a_constant_is_its_integral(quadratic):
    """Each third of the sum is n times an unbiased estimate of ∫ eᑫ da = 2ᴷ eᑫ: two critics, log(3 n 2ᴷ) + q each."""
    data, learner = learner_of(quadratic(400), samples=2_000)
    weights, biases = learner.critics.seen[-1]
    weights.zero_()
    biases.fill_(0.5)
    batch = data.sample(8, learner.generator)
    found = learner.soft_maximum(batch).item()
    assert found == pytest.approx(2 * (0.5 + math.log(3 * 2_000 * 2**2)), abs=0.05)


def test_it_gains_most_of_what_a_known_problem_holds(quadratic, regret):
    log = quadratic(4_000)
    knobs = {"steps": 800, "hidden": (32,), "learning_rate": 3e-3, "batch_size": 128}
    policy = fit(log, Box.of(log), CQLConfig(conservative=0.1, samples=3, **knobs), Silent()).policy
    assert regret(policy) < 0.02 * regret.constant
