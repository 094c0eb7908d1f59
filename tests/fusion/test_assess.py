"""Estimates of a policy whose value is known: sessions of 1 to 3 steps, r = 1 − (a₀ − s)² − a₁² + noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyrank.fusion import crossfit
from polyrank.fusion.assess import MODELS, SESSION, STEP, AssessConfig, Assessed, assess
from polyrank.fusion.compared import LOG, compare
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Silent

CONFIG = AssessConfig(
    gamma=0.9, hidden=(24,), learning_rate=5e-3, batch_size=128, steps=400, averaging=0.05, replicates=60
)
GAMMA = 0.9
SPREAD = 1 / 12  # the variance of a state, uniform on [−0.5, 0.5]


def world(sessions: int, seed: int, longest: int = 3) -> SessionLog:
    """States do not follow actions; a session goes on with chance 0.7, so that a return is known by hand."""
    rng = np.random.default_rng(seed)
    lengths = (
        1 + (rng.random((sessions, longest - 1)) < 0.7).cumprod(axis=1).sum(axis=1)
        if longest > 1
        else np.ones(sessions, int)
    )
    starts = np.append(0, np.cumsum(lengths)).astype(np.int64)
    n = int(starts[-1])
    states = rng.uniform(-0.5, 0.5, (n, 1)).astype(np.float32)
    actions = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    rewards = 1 - (actions[:, 0] - states[:, 0]) ** 2 - actions[:, 1] ** 2 + rng.normal(0, 0.1, n)
    done = np.zeros(n, np.bool_)
    done[starts[1:] - 1] = True
    return SessionLog(np.arange(sessions), starts, states, actions, np.full(n, -np.log(4.0)), rewards, done)


def follow(states: np.ndarray) -> np.ndarray:
    return np.hstack([0.8 * states, 0 * states]).astype(np.float32)


STEP_VALUE = 1 - 0.2**2 * SPREAD
DISCOUNTED = 1 + 0.7 * GAMMA + (0.7 * GAMMA) ** 2


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return world(4_000, 0)


@pytest.fixture(scope="module")
def found(log: SessionLog) -> Assessed:
    return assess(log, follow, CONFIG, Silent())


def noisy(scale: float) -> float:
    """The value of a step where noise of the kernel's size is added, as far as that stays within [−1, 1]."""
    rng, h = np.random.default_rng(9), scale * 2 / np.sqrt(12)
    s = rng.uniform(-0.5, 0.5, 400_000)
    a = np.stack([0.8 * s, 0 * s]) + rng.normal(0, h, (2, len(s)))
    kept = (np.abs(a) < 1).all(axis=0)
    return float((1 - (a[0] - s) ** 2 - a[1] ** 2)[kept].mean())


def test_every_estimator_finds_the_known_value(log, found) -> None:
    assert list(found.terms) == [*STEP, *SESSION]
    assert not found.failed
    document = compare(log, {"policy": found}, CONFIG, Silent())
    for name, entry in document["policies"]["policy"].items():
        # Without a model, a kernel estimator judges the policy with the kernel's noise.
        unit = "session" if name in SESSION else "step"
        smoothed = name in ("kernel_is", "kernel_snis", "pdis", "wis", "wpdis")
        truth = (noisy(found.scales[unit]) if smoothed else STEP_VALUE) * (DISCOUNTED if unit == "session" else 1)
        assert not entry["refusal"], name
        if name == "conservative_fqe":  # below the truth, and still above the 0.5 of the log
            assert 1.0 < entry["value"] < 0.95 * truth
            continue
        assert entry["value"] == pytest.approx(truth, rel=0.1), name
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert (entry["effective"] is None) == (name in MODELS)


def test_lifts_over_the_log_and_over_a_worse_policy(log, found) -> None:
    still = assess(log, lambda states: np.zeros((len(states), 2), np.float32), CONFIG, Silent())
    document = compare(log, {"policy": found, "still": still}, CONFIG, Silent())
    for name in ("kernel_dr", "wdr"):
        lift = document["lifts"]["policy"]["still"][name]
        assert lift["verdict"] == "gain"
        truth = 0.96 * SPREAD * (DISCOUNTED if name == "wdr" else 1)  # E s² − 0.04 E s²
        assert lift["mean"] == pytest.approx(truth, abs=0.04 if name == "wdr" else 0.02)
        assert document["lifts"]["policy"][LOG][name]["verdict"] == "gain"
    assert "policy" not in document["lifts"]["still"]
    mean = np.mean(log.rewards)
    assert document["log"]["step"]["value"] == pytest.approx(mean)


def test_sessions_of_one_step_have_no_session_estimators_but_the_conservative_one() -> None:
    found = assess(world(1_500, 1, longest=1), follow, CONFIG, Silent())
    assert list(found.terms) == [*STEP, "conservative_fqe"]


def test_a_policy_far_from_the_log_is_refused_not_guessed(log) -> None:
    def away(states: np.ndarray) -> np.ndarray:
        return np.full((len(states), 2), 30.0, np.float32)

    document = compare(log, {"policy": assess(log, away, replace(CONFIG, steps=20), Silent())}, CONFIG, Silent())
    for name, entry in document["policies"]["policy"].items():
        if name not in MODELS:
            assert "box" in entry["refusal"], name
            assert entry["value"] is None


def test_of_many_weights_the_effective_sample_size_is_said() -> None:
    rng = np.random.default_rng(0)
    log = world(1_000, 0)
    wide = replace(
        log,
        actions=rng.uniform(-1, 1, (len(log.rewards), 8)).astype(np.float32),
        log_densities=np.full(len(log.rewards), -8 * np.log(2.0)),
    )
    few = replace(CONFIG, steps=20, scales=(0.1, 0.3))

    def act(states: np.ndarray) -> np.ndarray:
        return np.zeros((len(states), 8), np.float32)

    document = compare(wide, {"policy": assess(wide, act, few, Silent())}, few, Silent())
    for name in ("kernel_snis", "wdr"):
        assert "effective sample size" in document["policies"]["policy"][name]["refusal"]


def test_what_diverges_fails_alone(log, monkeypatch) -> None:
    wild = replace(CONFIG, learning_rate=1e4, steps=50)
    found = assess(log, follow, wild, Silent())
    assert set(found.failed) == {"dm", "kernel_dr", "wdr", "fqe", "conservative_fqe"}
    assert all("diverged" in why for why in found.failed.values())
    assert "kernel_snis" in found.terms
    entry = compare(log, {"policy": found}, CONFIG, Silent())["policies"]["policy"]["fqe"]
    assert entry["value"] is None
    assert "diverged" in entry["refusal"]


def test_what_was_learned_is_not_learned_again(log, tmp_path: Path, monkeypatch) -> None:
    few = replace(CONFIG, steps=20)
    first = assess(log, follow, few, Silent(), store=tmp_path)
    monkeypatch.setattr(crossfit, "fitted_q", None)
    again = assess(log, follow, few, Silent(), store=tmp_path)
    for name, terms in first.terms.items():
        np.testing.assert_array_equal(terms.above, again.terms[name].above)
    np.testing.assert_array_equal(first.curves["fqe"], again.curves["fqe"])
