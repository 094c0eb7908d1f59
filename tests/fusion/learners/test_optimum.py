"""Learners on a problem whose optimum is known: what they reach of it, from a log alone."""

import pytest
import torch

from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import Box
from polyrank.progress import Silent
from polyrank.simulator.linear_quadratic import Linear, LinearQuadratic

PROBLEM = LinearQuadratic()
SHARED = {"gamma": 0.95, "hidden": (64, 64), "learning_rate": 1e-3, "batch_size": 128, "averaging": 0.01}
# The log is even over the box, where the optimum nearly always is: what holds a learner to the log may be loose.
KNOBS = {
    "batchrl_mtf": SHARED | {"rho": 1.0},
    "cql": SHARED | {"conservative": 0.2},
    "iql": SHARED | {"temperature": 10.0},
    "td3_bc": SHARED | {"alpha": 20.0},
    "unified_rl": SHARED | {"reach": 1.0, "critics": 8, "every": 1},
}


@pytest.fixture(scope="module")
def log():
    return PROBLEM.log(20_000, width=1.5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", KNOBS)
def test_it_reaches_the_optimum_but_for_a_twentieth(method, log):
    torch.set_num_threads(2)
    known = METHODS[method]
    config = known.config(**KNOBS[method], steps=8_000)
    policy = known.fit(log, Box.of(log), config, Silent()).policy
    assert PROBLEM.reached(Linear(0 * PROBLEM.best())) < 0.65  # what the best weights alike for all reach
    assert 0.95 <= PROBLEM.reached(policy) <= 1.0 + 1e-3
