"""What the study runs: sizes, the settings of every method, the seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polyrank.simulator.oracle import OracleConfig

# Tuned on worlds of seeds 100 and 101; the reported worlds are 10 to 19.
NOTES = (
    "An earlier run, in worlds 0 to 9, had linear_cem with a pessimism fixed at 1: 48 % [45 %, 52 %] of the headroom, "
    "and +0.0 % in mode A; with less it gained more in C and lost up to 3 % in A. Since then held-out sessions choose "
    "it; that was tried in worlds of seeds 100 and 101 before these were made.",
    "UnifiedRL with the paper's η = 1.2 gained 2.2 % [-9.2 %, 13.6 %] in these worlds, left the box in 13 % of states, "
    "and conservative FQE, low for what the log does not show, ranked it too low: ρ = 0.94, 0.57, 0.75. η = 12 was "
    "chosen in world 100 (-0.5 % there, -5.8 % with 1.2) after that was seen; it keeps to the box better and gains "
    "nothing in these.",
)
BEST = "linear_cem"  # of all methods, on those worlds
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "linear_cem": {"gamma": 0.99, "states": 2_048, "steps": 200},
    "bandit": {"gamma": 0.99, "steps": 4_000},
    "gaussian": {"gamma": 0.99, "sigma": 0.8, "narrowest": 0.4},
    **{name: {"steps": 6_000, "learning_rate": 1e-3} for name in ("batchrl_mtf", "iql", "td3_bc", "td3")},
    "cql": {"steps": 3_000, "learning_rate": 1e-3},
    # With the paper's η = 1.2 the actor leaves the box in 7 % of the states of world 100, and loses 6 % there.
    "unified_rl": {"steps": 4_000, "learning_rate": 1e-3, "eta": 12.0},
}


@dataclass(frozen=True)
class Plan:
    """How large everything is.

    Attributes:
        sessions: of the log that policies are fitted from.
        held_out: sessions of the log that the estimators read.
        truth: sessions that a policy's true value is the mean of, the same users and luck for all policies.
        half: of the width of the exploration box, in each weight, around the best static formula (of mean |w| = 1);
            that of the simulator's certificate.
        search: how the best static formula and the oracle are found.
        search_sessions: on so many sessions.
        judge_steps: training steps of an estimator's Q.
        judge_gamma: its γ, near 1: the truth is not discounted.
        conservative: its α.
        scale: every method's training steps are multiplied by this.
    """

    sessions: int = 200_000
    held_out: int = 100_000
    truth: int = 20_000
    half: float = 0.7
    search: OracleConfig = field(default_factory=OracleConfig)
    search_sessions: int = 1_000
    judge_steps: int = 2_500
    judge_gamma: float = 0.99
    conservative: float = 0.1
    scale: float = 1.0


PLANS = {
    "full": Plan(),
    "smoke": Plan(2_000, 600, 1_000, search=OracleConfig(3, 3), search_sessions=200, judge_steps=60, scale=0.01),
}
