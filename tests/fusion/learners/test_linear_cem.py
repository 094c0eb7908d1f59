"""It reaches the best linear policy, plans ahead, stays in the box, and is the same again for a seed."""

from dataclasses import replace

import numpy as np
import pytest

from polyrank.fusion.learners.linear_cem import LinearCEMConfig, fit
from polyrank.fusion.policy import Box
from polyrank.progress import Silent

QUICK = LinearCEMConfig(steps=150, states=512)


def test_the_known_optimum(quadratic, regret):
    log = quadratic(4000)
    fitted = fit(log, Box.of(log), QUICK, Silent())
    assert regret(fitted.policy) < 0.05 * regret.constant
    assert fitted.curves["q"][-1][1] == pytest.approx(0, abs=0.05)  # what the best policy earns


def test_it_gives_up_reward_now_for_more_later(delayed):
    """Only the second step earns, by what the first one did: what is best at once says nothing of it."""
    log = delayed(3000)
    policy = fit(log, Box.of(log), replace(QUICK, gamma=1.0), Silent()).policy
    x = np.linspace(-1, 1, 21, dtype=np.float32)
    states = np.stack([np.zeros_like(x), x], axis=1)
    assert np.abs(policy.act(states)[:, 0] - x / 2).mean() < 0.05
    myopic = fit(log, Box.of(log), replace(QUICK, gamma=0.0), Silent()).policy
    assert np.abs(myopic.act(states)[:, 0] - x / 2).mean() > 0.12


def test_pessimism_stays_where_nothing_is_known(one_step):
    """Noise alone: a pessimist finds nothing that is surely better than the log's mean weights."""
    rng = np.random.default_rng(0)
    log = one_step(
        rng.normal(size=(300, 2)), rng.uniform(-1, 1, size=(300, 2)), np.full(300, np.log(0.25)), rng.normal(size=300)
    )
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    far = [
        np.abs(fit(log, box, replace(QUICK, pessimism=(pessimism,)), Silent()).policy.act(log.states)).mean()
        for pessimism in (0.0, 1.0)
    ]
    assert far[1] < 0.1 < far[0]


@pytest.mark.parametrize(("rows", "noise", "better"), [(1_000, 1.0, 1), (4_000, 2.0, 0)])
def test_the_other_half_of_the_sessions_chooses_the_pessimism(quadratic, regret, rows, noise, better):
    """Timid where boldness follows noise, bold where it gains."""
    log, choices = quadratic(rows, noise=noise), (0.0, 1.0)
    own = [fit(log, Box.of(log), replace(QUICK, pessimism=(choice,)), Silent()).policy for choice in choices]
    assert regret(own[better]) < regret(own[1 - better])
    chosen = fit(log, Box.of(log), replace(QUICK, pessimism=choices), Silent()).policy
    np.testing.assert_array_equal(chosen.act(log.states), own[better].act(log.states))


def test_of_noise_the_timid_choice_is_taken_and_one_session_is_not_halved(one_step, quadratic):
    rng, choices = np.random.default_rng(0), replace(QUICK, pessimism=(0.0, 1.0))
    noise = one_step(
        rng.normal(size=(300, 2)), rng.uniform(-1, 1, size=(300, 2)), np.full(300, np.log(0.25)), rng.normal(size=300)
    )
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    assert np.abs(fit(noise, box, choices, Silent()).policy.act(noise.states)).mean() < 0.1
    one = quadratic(1)
    assert np.isfinite(fit(one, box, replace(choices, steps=3), Silent()).policy.act(one.states)).all()


def test_a_seed_gives_the_same_again_and_the_box_holds(quadratic):
    log = quadratic(500)
    box = Box.of(log)
    tiny = replace(QUICK, steps=10, pessimism=(0.0,))
    states = np.random.default_rng(0).normal(scale=50, size=(50, 2)).astype(np.float32)
    one, two = (fit(log, box, tiny, Silent()).policy.act(states) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not box.outside(one).any()
    assert (fit(log, box, replace(tiny, seed=1), Silent()).policy.act(states) != one).any()
