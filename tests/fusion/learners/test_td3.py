"""A problem of known optimum, which the log shows whole: there nothing has to hold TD3 back."""

from polyrank.fusion.learners.td3 import TD3Config, fit
from polyrank.fusion.policy import Box
from polyrank.progress import Silent


def test_it_gains_most_of_what_a_known_problem_holds(quadratic, regret):
    log = quadratic(4_000)
    knobs = {"steps": 800, "hidden": (32,), "learning_rate": 3e-3, "batch_size": 128, "reach": 1.0}
    policy = fit(log, Box.of(log), TD3Config(**knobs), Silent()).policy
    assert regret(policy) < 0.16 * regret.constant
