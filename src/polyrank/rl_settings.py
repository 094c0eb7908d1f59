"""`[rl]`: what a policy is learned from, by which method, and how it is estimated. It needs no `[data]`, and no run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval, MinLen

from polyrank import config
from polyrank.errors import ConfigError
from polyrank.fusion.assess import AssessConfig
from polyrank.fusion.methods import METHODS
from polyrank.fusion.session_reward import SatisfactionConfig


@dataclass(frozen=True)
class RLConfig:
    """`[rl]`: fusion weights as the action of a policy that is learned from a session log.

    Attributes:
        log: the session log (Parquet).
        method: a key of METHODS; its own knobs, γ among them, stand in `[rl.<method>]`.
        test: a log for the estimates; where not given, `held` of the sessions are set aside: no session judges a policy
            that learned from it.
        held: see `test`.
        low: the lowest weights that were explored, one a head; where not given, the lowest that the log shows.
        high: the highest.
        heads: the names of the weights, for people.
        users: the signal that names the user of a session, so that intervals draw users whole; where not given,
            sessions are taken as independent.
        cohorts: for whom lifts are told apart: `state:3` (a number of the state at a session's first step) or
            `signal:NAME` (of that step; a fact about the user, not an outcome).
        parts: into how many parts of equal size a cohort is divided.
        seed: of which sessions are set aside.
        reward: satisfaction, computed from the log's signals; where it has no weights, the log's reward counts.
        estimate: how policies are estimated.
    """

    log: Annotated[str, MinLen(1)]
    method: str = "batchrl_mtf"
    test: str = ""
    held: Annotated[float, Interval(gt=0, lt=1)] = 0.3
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    heads: tuple[str, ...] = ()
    users: str = ""
    cohorts: tuple[str, ...] = ()
    parts: Annotated[int, Gt(1)] = 4
    seed: Annotated[int, Ge(0)] = 0
    reward: SatisfactionConfig = field(default_factory=SatisfactionConfig)
    estimate: AssessConfig = field(default_factory=AssessConfig)


@dataclass(frozen=True)
class RLSettings:
    """`[rl]`, checked.

    Attributes:
        rl: the section.
        knobs: the method's own config.
        base: the directory that relative paths start from.
    """

    rl: RLConfig
    knobs: Any
    base: Path

    def table(self) -> dict[str, Any]:
        """As it is saved: what a resumed call must have again."""
        return config.to_table(self.rl) | {self.rl.method: config.to_table(self.knobs)}


def parse_rl(section: Mapping[str, Any], base: Path) -> RLSettings:
    """Check `[rl]` and every `[rl.<method>]` in it.

    Raises:
        ConfigError: an unknown key or method, a value out of bounds, or a box of one side.
    """
    rest = dict(section)
    knobs: dict[str, Any] = {}
    for name, method in METHODS.items():
        knobs[name] = config.build(method.config, rest.pop(name, {}), f"rl.{name}")
    parts = ("reward", "estimate")
    for name, value in rest.items():
        if isinstance(value, Mapping) and name not in parts:
            known = [*METHODS, *parts]
            raise ConfigError("[rl] has no such part", received=f"[rl.{name}]", mend=config.nearest(name, known))
    rl = config.build(RLConfig, rest, "rl")
    if rl.method not in METHODS:
        raise ConfigError("rl.method must be known", received=rl.method, mend=config.nearest(rl.method, METHODS))
    if len(rl.low) != len(rl.high) or any(low > high for low, high in zip(rl.low, rl.high, strict=False)):
        raise ConfigError(
            "rl.low and rl.high are the two sides of one box, a number a weight, low ≤ high",
            received=f"{list(rl.low)} and {list(rl.high)}",
            mend="give both, or neither: then the box is what the log shows",
        )
    return RLSettings(rl, knobs[rl.method], base)
