"""The weights of a known truth are found, within their intervals; what cannot be told apart is refused."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from polyrank.errors import ConfigError, DataError
from polyrank.fusion.reward_fit import fit_weights, sensitivity
from polyrank.fusion.session_reward import SatisfactionConfig, satisfaction
from polyrank.fusion.sessions import SessionLog

SIGNALS = {"stickiness": ("watch", "complete"), "activeness": ("like",), "aversion": ("hate",)}
CAPS = {"watch": 60.0}
TRUTH = {"watch": 0.02, "complete": 0.0, "like": 1.5, "hate": 0.8}


def log_of(sessions=3000, seed=0):
    """Sessions of 1 to 6 steps, and the outcome that their capped signals and the user's first state make."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, sessions)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n = int(starts[-1])
    active = np.repeat(rng.normal(size=sessions), lengths)
    signals = {
        "watch": rng.exponential(40.0, n),
        "complete": (rng.random(n) < 0.4).astype(float),
        "like": (rng.random(n) < 1 / (1 + np.exp(1 - active))).astype(float),
        "hate": (rng.random(n) < 0.1).astype(float),
    }
    done = np.zeros(n, bool)
    done[starts[1:] - 1] = True
    log = SessionLog(
        np.arange(sessions), starts, active[:, None].astype(np.float32), np.zeros((n, 1), np.float32), np.zeros(n),
        np.zeros(n), done, signals,
    )  # fmt: skip
    worth = TRUTH["watch"] * np.minimum(signals["watch"], 60) + TRUTH["like"] * signals["like"]
    worth -= TRUTH["hate"] * signals["hate"]
    outcome = 3 + np.add.reduceat(worth, starts[:-1]) + 2 * active[starts[:-1]] + rng.normal(size=sessions)
    return log, outcome


def found_of(config):
    return {**config.stickiness, **config.activeness, **config.aversion}


def test_a_known_truth_is_found():
    log, outcome = log_of()
    controls = log.states[log.starts[:-1]]
    fitted = fit_weights(log, outcome, SIGNALS, caps=CAPS, controls=controls, replicates=60)
    found = found_of(fitted.config)
    assert fitted.config.caps == CAPS
    for name, truth in TRUTH.items():
        assert found[name] == pytest.approx(truth, abs=0.1 if name != "watch" else 0.003)
        interval = fitted.intervals[name]
        assert interval.low - 1e-9 <= truth <= interval.high
        assert interval.low <= found[name] <= interval.high
    assert fitted.explained == pytest.approx(1 - 1 / outcome.var(), abs=0.02)


def test_without_controls_what_users_bring_along_is_in_the_weights():
    """Active users like more and have the better outcome: the weight of a like comes out too large, and hate's not."""
    log, outcome = log_of()
    found = found_of(fit_weights(log, outcome, SIGNALS, caps=CAPS, replicates=2).config)
    assert found["like"] > TRUTH["like"] + 0.3


def test_by_hand():
    """Two signals of which the outcome is an exact sum; the third counts against, and its weight is not negative."""
    signals = {"a": np.array([1.0, 2.0, 0.0, 5.0]), "b": np.array([0.0, 1.0, 3.0, 1.0]), "c": np.array([1.0, 0, 0, 1])}
    log = SessionLog(
        np.arange(4), np.arange(5), np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32), np.zeros(4),
        np.zeros(4), np.ones(4, bool), signals,
    )  # fmt: skip
    outcome = 7 + 2 * signals["a"] + 0.5 * signals["b"]
    fitted = fit_weights(log, outcome, {"stickiness": ("a",), "activeness": ("b",)}, replicates=1)
    assert fitted.config.stickiness["a"] == pytest.approx(2.0, abs=1e-6)
    assert fitted.config.activeness["b"] == pytest.approx(0.5, abs=1e-6)
    assert fitted.explained == pytest.approx(1.0)
    assert fitted.rank_correlation == pytest.approx(1.0)
    helps = fit_weights(log, outcome + signals["c"], {"stickiness": ("a", "b"), "aversion": ("c",)}, replicates=1)
    assert helps.config.aversion["c"] == pytest.approx(0.0, abs=1e-9)  # c goes with more of the outcome, not less


def test_users_are_drawn_whole():
    """Each session thrice: as if independent, intervals would come out √3 too narrow."""
    log, outcome = log_of(300)
    thrice = [np.concatenate([values] * 3) for values in (log.states, log.actions, log.done)]
    starts = np.concatenate([[0], np.cumsum(np.tile(log.lengths, 3))])
    n = int(starts[-1])
    bigger = SessionLog(
        np.arange(900), starts, thrice[0], thrice[1], np.zeros(n), np.zeros(n), thrice[2],
        {name: np.tile(values, 3) for name, values in log.signals.items()},
    )  # fmt: skip
    users, y = np.tile(np.arange(300), 3), np.tile(outcome, 3)
    widths = [
        fit_weights(bigger, y, {"activeness": ("like",)}, clusters=clusters, replicates=200).intervals["like"]
        for clusters in (users, None)
    ]
    assert (widths[0].high - widths[0].low) / (widths[1].high - widths[1].low) == pytest.approx(3**0.5, rel=0.25)


def test_what_cannot_be_told_apart_is_refused():
    log, outcome = log_of(200)
    signals = {**log.signals, "never": np.zeros(len(log.rewards)), "twin": log.signals["like"] * 2}
    log = SessionLog(
        log.sessions, log.starts, log.states, log.actions, log.log_densities, log.rewards, log.done, signals
    )
    with pytest.raises(DataError, match="never never happens"):
        fit_weights(log, outcome, {"activeness": ("like", "never")})
    with pytest.raises(DataError, match="linearly dependent"):
        fit_weights(log, outcome, {"activeness": ("like", "twin")})
    with pytest.raises(DataError, match="one finite number a session"):
        fit_weights(log, outcome[:-1], {"activeness": ("like",)})
    with pytest.raises(ConfigError, match="did you mean 'like'"):
        fit_weights(log, outcome, {"activeness": ("likes",)})


def test_sensitivity():
    log, outcome = log_of(500)
    config = SatisfactionConfig({"watch": 0.01}, {"like": 1.0}, {"hate": 1e-9}, CAPS)
    rows = sensitivity(log, config, outcome, (0.0, 1.0))
    assert rows[0]["rank_correlation"] == pytest.approx(1.0)
    assert sum(rows[0]["shares"].values()) == pytest.approx(1.0)
    by = {(row["signal"], row["factor"]): row for row in rows}
    assert by["like", 1.0]["rank_correlation"] == pytest.approx(1.0)
    assert by["like", 0.0]["shares"]["activeness"] == 0
    assert by["hate", 0.0]["rank_correlation"] > 0.999  # it weighed nothing
    assert by["like", 0.0]["rank_correlation"] < 0.9
    assert by["like", 0.0]["outcome"] < rows[0]["outcome"]
    total = np.add.reduceat(satisfaction(log.signals, config), log.starts[:-1])
    assert rows[0]["outcome"] == pytest.approx(spearmanr(total, outcome).statistic)
