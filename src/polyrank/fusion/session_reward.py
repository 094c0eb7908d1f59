"""What a step of a session was worth: satisfaction, recomputed from a log's signals. N steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self, get_args

import numpy as np
from annotated_types import Ge, Gt

from polyrank import config as configs
from polyrank.errors import ConfigError
from polyrank.fusion.reward import RewardConfig, reward
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows

Aspect = Literal["stickiness", "activeness", "aversion"]
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)


@dataclass(frozen=True)
class SatisfactionConfig:
    """`[rl.reward]`: which signals of a session log count as satisfaction, and how much. It is kept with the policy.

    Attributes:
        stickiness: the worth of one unit of a signal of staying: of a second watched, of a video finished.
        activeness: that of a signal of taking part: of a like, a share, a comment.
        aversion: how much a signal counts against: a hate, a report. Not negative here, and subtracted.
        caps: the most of a signal that counts in one step (120 seconds watched), by signal.
        clip: lowest and highest reward of a step, after all is summed; none: it is as it is.
    """

    stickiness: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    activeness: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    aversion: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    caps: Mapping[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    clip: tuple[float, float] | None = None

    def weights(self, aspect: Aspect) -> Mapping[str, float]:
        """The weights of one aspect."""
        found: Mapping[str, float] = getattr(self, aspect)
        return found

    def with_weights(self, parts: Mapping[Aspect, Mapping[str, float]]) -> Self:
        """The same caps and clip, with other weights; an aspect that is not named has none."""
        stickiness, activeness, aversion = (parts.get(aspect, {}) for aspect in ASPECTS)
        return replace(self, stickiness=stickiness, activeness=activeness, aversion=aversion)


def check(signals: Mapping[str, Rows], config: SatisfactionConfig) -> None:
    """Whether a log's signals can be rewarded by a config.

    Raises:
        ConfigError: a weight or cap names no signal, no weight is above 0, a signal has two aspects, the clip is empty.
    """
    named = [name for aspect in ASPECTS for name in config.weights(aspect)]
    for name in (*named, *config.caps):
        if name not in signals:
            raise ConfigError(
                "a reward is of signals that the session log has",
                received=f"{name!r}, and the log has {', '.join(signals) or 'none'}",
                mend=configs.nearest(name, list(signals)),
            )
        if named.count(name) > 1:
            mend = "name it in one of them"
            raise ConfigError("a signal belongs to one aspect of satisfaction", received=f"{name!r} in two", mend=mend)
        if name not in named:
            rule = "a cap is of a signal that has a weight"
            raise ConfigError(rule, received=f"a cap of {name!r} alone", mend="give it a weight, or leave the cap out")
    if not any(weight > 0 for aspect in ASPECTS for weight in config.weights(aspect).values()):
        rule = "a reward needs a signal whose weight is above 0"
        raise ConfigError(rule, received="none", mend="name some under stickiness or activeness")
    if config.clip is not None and not config.clip[0] < config.clip[1]:
        rule = "clip is the lowest and the highest reward of a step"
        raise ConfigError(rule, received=f"{list(config.clip)}", mend="give the lower one first")


def aspects(signals: Mapping[str, Rows], config: SatisfactionConfig) -> dict[Aspect, Floats]:
    """`Σ_i w_i · min(v_i, cap_i)` `[N]` of each aspect by itself; 0 where it has no signal.

    Raises:
        ConfigError: as in `check`.
        ValueError: a signal is negative.
    """
    check(signals, config)
    rows = len(next(iter(signals.values())))
    found: dict[Aspect, Floats] = {}
    for aspect in ASPECTS:
        weights = config.weights(aspect)
        counted = any(weight > 0 for weight in weights.values())
        caps = {name: cap for name, cap in config.caps.items() if name in weights}
        found[aspect] = reward(signals, RewardConfig(weights, caps)) if counted else np.zeros(rows)
    return found


def satisfaction(signals: Mapping[str, Rows], config: SatisfactionConfig) -> Floats:
    """`r = clip(Σ_i w_i · min(v_i, cap_i))` `[N]` over stickiness and activeness, less aversion.

    BatchRL-MTF's reward of a step (Zhang et al., KDD 2022): the two aspects are what it mixes, and what it is judged
    by online. Its weights are not published; `polyrank.fusion.reward_fit` fits them. Aversion and the clip are ours.

    Args:
        signals: `[N]` by name, not negative; NaN counts 0.
        config: weights, caps, clip.

    Raises:
        ConfigError: as in `check`.
        ValueError: a signal is negative.
    """
    parts = aspects(signals, config)
    total = parts["stickiness"] + parts["activeness"] - parts["aversion"]
    return total if config.clip is None else np.clip(total, *config.clip)


def rewarded(log: SessionLog, config: SatisfactionConfig) -> SessionLog:
    """The log with the rewards that its signals have under the config: what was logged as reward no longer counts.

    Raises:
        ConfigError: as in `check`; or the log has no signal.
        ValueError: a signal is negative.
    """
    if not log.signals:
        rule = "a reward is computed from the signals of a session log"
        raise ConfigError(rule, received="a log without a column signal_<name>", mend="leave [rl.reward] out")
    return replace(log, rewards=satisfaction(log.signals, config))


def variants(
    config: SatisfactionConfig, factors: tuple[float, ...] = (0.0, 0.5, 2.0)
) -> Iterator[tuple[str, float, SatisfactionConfig]]:
    """The config with one weight after another multiplied by each factor: what a sensitivity sweep goes through.

    In BatchRL-MTF's table the choice of reward weights moves the online metrics as much as the choice of algorithm.

    Yields:
        Signal, factor, config. A variant in which no weight is above 0 is left out.
    """
    for aspect in ASPECTS:
        for name, weight in config.weights(aspect).items():
            for factor in factors:
                weights = {**config.weights(aspect), name: weight * factor}
                changed = config.with_weights({one: config.weights(one) for one in ASPECTS} | {aspect: weights})
                if any(value > 0 for one in ASPECTS for value in changed.weights(one).values()):
                    yield name, factor, changed
