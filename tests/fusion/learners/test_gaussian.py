"""The density is exact, the bound is the formula, the known optimum is reached, pessimism lowers the variance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import t as student
from scipy.stats import truncnorm

from polyrank.errors import TrainingDiverged
from polyrank.fusion.estimate import effective_size
from polyrank.fusion.learners.gaussian import GaussianConfig, GaussianPolicy, fit, log_density, lower_bound
from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.policy import Box, Standard, load_policy, save_policy
from polyrank.fusion.ratios import density_ratio
from polyrank.progress import Silent

QUICK = GaussianConfig(steps=300, learning_rate=0.03, batch_size=8000)


@pytest.mark.parametrize("mean", [0.0, 0.7, -1.4, 4.0])
def test_the_density_is_that_of_a_truncated_normal(mean):
    at = np.linspace(-0.99, 0.99, 7)
    sigma = 0.4
    expected = truncnorm((-1 - mean) / sigma, (1 - mean) / sigma, loc=mean, scale=sigma).logpdf(at)
    found = log_density(torch.full((7, 1), mean), torch.tensor([sigma]), torch.from_numpy(at[:, None]).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def policy_of(weights=1):
    box = Box(np.array([2.0] * weights), np.array([6.0] * weights))
    scale = Standard(np.zeros(1, np.float32), np.ones(1, np.float32))
    mode = LinearPolicy(scale, box, np.full(weights, 0.5, np.float32), np.ones((weights, 1), np.float32))
    return GaussianPolicy(mode, np.full(weights, 0.3, np.float32))


def test_the_density_is_per_unit_of_the_weights():
    policy = policy_of()
    states = np.array([[0.2]], np.float32)
    mass = quad(lambda a: np.exp(policy.log_density(states, np.array([[a]], np.float32))[0]), 2, 6)[0]
    assert mass == pytest.approx(1.0, abs=1e-4)
    assert policy.log_density(states, np.array([[6.5]], np.float32))[0] == -np.inf
    assert policy.act(states)[0, 0] == pytest.approx(4 + 2 * 0.7)
    assert policy.act(np.array([[9.0]], np.float32))[0, 0] == pytest.approx(6.0)


def test_the_bound_by_hand():
    weights, y = np.array([0.5, 2.0, 1.0, 0.5]), np.array([1.0, 3.0, 0.0, 2.0])
    value = 7.5 / 4
    error = np.sqrt((weights**2 * (y - value) ** 2).sum()) / 4
    found = lower_bound(torch.from_numpy(weights).log(), torch.from_numpy(y), 1.645, 4.0)
    n = effective_size(weights)
    assert float(found[0]) == pytest.approx(value)
    assert float(found[2]) == pytest.approx(n)
    t = 1.645 + (1.645**3 + 1.645) / (4 * (n - 1))
    assert float(found[1]) == pytest.approx(value - t * error)
    twice = lower_bound(torch.from_numpy(weights).log(), torch.from_numpy(y), 1.645, 8.0)  # were there two of each row
    assert float(twice[2]) == pytest.approx(2 * n)
    assert float(found[0] - twice[1]) == pytest.approx(
        (1.645 + (1.645**3 + 1.645) / (4 * (2 * n - 1))) * error / 2**0.5
    )


def test_a_policy_on_one_row_is_not_sure():
    weights, y = np.array([1e-9, 1.0, 1e-9, 1e-9]), np.array([1.0, 3.0, 0.0, 2.0])
    value, bound, effective = lower_bound(torch.from_numpy(weights).log(), torch.from_numpy(y), 1.645, 4.0)
    assert float(effective) == pytest.approx(1.0)
    assert float(value) == pytest.approx(3.0)
    assert float(bound) < 3.0 - 1.645 * y.std()


def test_the_expansion_of_students_quantile():
    for n in (12.0, 60.0):
        same = torch.zeros(int(n))
        y = torch.from_numpy(np.random.default_rng(0).normal(size=int(n)))
        value, bound, _ = lower_bound(same, y, float(student.ppf(0.95, 1e9)), n)
        assert float(value - bound) == pytest.approx(
            student.ppf(0.95, n - 1) * float(y.std(correction=0)) / n**0.5, rel=0.01
        )


def test_the_known_optimum(quadratic, regret):
    log = quadratic(8000)
    fitted = fit(log, Box.of(log), QUICK, Silent())
    assert regret(fitted.policy) < 0.05 * regret.constant
    assert fitted.curves["bound"][-1][1] < fitted.curves["value"][-1][1]
    # what the curve says of the stochastic policy is what its exact weights say
    weights = density_ratio(fitted.policy.log_density(log.states, log.actions), log.log_densities)
    assert weights.mean() == pytest.approx(1.0, abs=0.1)
    assert (weights * log.rewards).sum() / weights.sum() == pytest.approx(fitted.curves["value"][-1][1], abs=0.01)


def test_pessimism_lowers_the_variance(one_step):
    """Noise alone, 400 rows: what is left to choose is how far to follow it."""
    rng = np.random.default_rng(3)
    log = one_step(
        rng.normal(size=(400, 2)), rng.uniform(-1, 1, size=(400, 2)), np.full(400, np.log(0.25)), rng.normal(size=400)
    )
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    found = {c: fit(log, box, replace(QUICK, confidence=c), Silent()) for c in (0.5, 0.99)}
    weights = {
        c: density_ratio(f.policy.log_density(log.states, log.actions), log.log_densities) for c, f in found.items()
    }
    assert effective_size(weights[0.99]) > 2 * effective_size(weights[0.5])
    over = {c: f.curves["value"][-1][1] for c, f in found.items()}  # the truth is about 0
    assert 0 < over[0.99] - log.rewards.mean() < over[0.5] - log.rewards.mean()


def test_a_policy_that_leaves_the_log_is_told(quadratic):
    log = quadratic(1000, noise=0.01)
    sharp = replace(QUICK, confidence=0.5, narrowest=0.01, sigma=0.02)
    with pytest.raises(TrainingDiverged, match="effective sample size of 200"):
        fit(log, Box.of(log), sharp, Silent())


def test_a_weight_that_never_varied_is_no_matter(quadratic, regret):
    log = quadratic(2000)
    wider = replace(log, actions=np.hstack([log.actions, np.full((2000, 1), 7.0, np.float32)]))
    policy = fit(wider, Box.of(wider), replace(QUICK, steps=50), Silent()).policy
    acted = policy.act(log.states)
    np.testing.assert_allclose(acted[:, 2], 7.0)
    narrow = fit(log, Box.of(log), replace(QUICK, steps=50), Silent()).policy
    np.testing.assert_allclose(acted[:, :2], narrow.act(log.states), atol=1e-5)


def test_saved_and_loaded_it_acts_the_same(tmp_path):
    policy = policy_of(2)
    save_policy(policy, tmp_path)
    states = np.random.default_rng(0).normal(size=(9, 1)).astype(np.float32)
    loaded = load_policy(tmp_path)
    np.testing.assert_array_equal(loaded.act(states), policy.act(states))
    np.testing.assert_array_equal(loaded.sigma, policy.sigma)
