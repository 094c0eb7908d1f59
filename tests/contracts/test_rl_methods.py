"""Every way to learn a policy keeps the same promises."""

from dataclasses import replace

import numpy as np
import pytest

from polyrank.errors import TrainingDiverged
from polyrank.fusion.methods import METHODS
from polyrank.fusion.policy import Box, load_policy, save_policy
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent

SMALL = {"steps": 30, "hidden": (16, 16), "batch_size": 32}
QUICK = {
    "batchrl_mtf": SMALL,
    "unified_rl": SMALL | {"critics": 3},
    "cql": SMALL,
    "iql": SMALL,
    "td3_bc": SMALL,
    "td3": SMALL,
    "linear_cem": {"steps": 30, "gamma": 0.0, "pessimism": (0.0, 1.0)},  # with gamma, a log of cut sessions is refused
    "bandit": {"steps": 30, "hidden": (16,), "levels": 3, "batch_size": 32},
    "gaussian": {"steps": 30, "batch_size": 64},
}
ACTOR_CRITIC = ("batchrl_mtf", "unified_rl", "cql", "iql", "td3_bc", "td3")
STATES, WEIGHTS = 3, 2


def log_of(lengths, seed=0, *, reward=None, done=True):
    """Sessions of these lengths; the third state number and nothing else never varies."""
    rng = np.random.default_rng(seed)
    rows, starts = int(np.sum(lengths)), np.append(0, np.cumsum(lengths))
    states = np.concatenate([rng.normal(size=(rows, STATES - 1)), np.full((rows, 1), 5.0)], axis=1).astype(np.float32)
    actions = rng.uniform([0.0, 2.0], [1.0, 6.0], (rows, WEIGHTS)).astype(np.float32)
    rewards = rng.normal(size=rows) if reward is None else np.full(rows, reward)
    ends = np.zeros(rows, np.bool_)
    ends[starts[1:] - 1] = done
    return SessionLog(np.arange(len(lengths)), starts, states, actions, np.full(rows, -np.log(4.0)), rewards, ends)


LOG = log_of([1, 4, 2, 7, 3, 1, 6] * 8)
SEEN = np.random.default_rng(1).normal(size=(9, STATES)).astype(np.float32) * 10


def fit(name, log=LOG, **changes):
    method = METHODS[name]
    return method.fit(log, Box.of(log), method.config(**(QUICK[name] | changes)), Silent())


@pytest.mark.parametrize("name", METHODS)
def test_weights_of_any_states_are_finite_and_of_the_right_shape(name):
    fitted = fit(name)
    weights = fitted.policy.act(SEEN)
    assert weights.shape == (9, WEIGHTS)
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
    assert fitted.policy.act(SEEN[:0]).shape == (0, WEIGHTS)
    np.testing.assert_allclose(fitted.policy.act(SEEN[4:5]), weights[4:5], rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(value) for curve in fitted.curves.values() for _, value in curve)
    if name in ACTOR_CRITIC:
        assert fitted.curves["q"][-1][0] == 30


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("td3", "unified_rl")])
def test_what_is_held_to_the_log_stays_in_its_box(name):
    assert not Box.of(LOG).outside(fit(name).policy.act(SEEN)).any()


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_gives_the_same_again(name):
    one, two = (fit(name, seed=3).policy.act(SEEN) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (fit(name, seed=4).policy.act(SEEN) != one).any()


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_policy_acts_alike(name, tmp_path):
    policy = fit(name).policy
    save_policy(policy, tmp_path)
    np.testing.assert_array_equal(load_policy(tmp_path).act(SEEN), policy.act(SEEN))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "log",
    [
        log_of([5]),
        log_of([1]),
        log_of([3, 1, 8], reward=0.0),
        log_of([3, 1, 8], reward=-7.0),
        log_of([4, 2], done=False),
    ],
    ids=["one session", "one step", "no reward", "a constant reward", "all cut off"],
)
def test_poor_logs(name, log):
    assert np.isfinite(fit(name, log).policy.act(SEEN)).all()


@pytest.mark.parametrize("name", METHODS)
def test_states_of_another_width_are_refused(name):
    with pytest.raises(ValueError, match="states must have the shape"):
        fit(name).policy.act(SEEN[:, :2])


@pytest.mark.parametrize("name", ACTOR_CRITIC)
def test_divergence_is_told(name):
    huge = replace(LOG, rewards=LOG.rewards * 1e6)
    with pytest.raises(TrainingDiverged, match=f"{name}: Q must stay within what rewards allow"):
        fit(name, huge, learning_rate=30.0, averaging=1.0, steps=200, gamma=0.2)
