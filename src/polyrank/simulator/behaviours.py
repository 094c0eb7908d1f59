"""What a user does with a video: the chance of each behaviour, and what is drawn of it.

n users, C or L videos for each, B = 6 behaviours, F = 5 causes.
"""

import numpy as np

from polyrank.metrics.checks import Rows
from polyrank.simulator.draws import uniforms

BEHAVIOURS = ("watch", "complete", "like", "share", "comment", "hate")
CAUSES = ("relevance", "quality", "bait", "length", "disappointment")
# Log-odds: a base, what the user's activity adds, and what a unit of each cause does. Bait draws everybody alike; what
# it leaves behind (disappointment = the user's sensitivity × bait) hardly shows in behaviours: it shows in who stays.
LOG_ODDS: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "watch": (-0.3, 0.0, (0.6, 0.2, 1.0, -0.4, 0.0)),
    "like": (-2.5, 1.0, (0.7, 0.8, -0.4, 0.0, -0.3)),
    "share": (-3.5, 1.0, (0.5, 0.8, 0.2, 0.0, -0.2)),
    "comment": (-3.5, 1.0, (0.6, 0.3, 0.8, 0.0, 0.0)),
    "hate": (-4.0, 0.2, (-0.6, -0.5, 0.5, 0.1, 0.4)),
}
ENJOYMENT = (0.3, 0.3, 0.0, 0.0, -1.2)  # what a unit of each cause adds to how good a video was, which no log shows
COMPLETE = 0.9  # a video of which this share was watched is completed

_ROWS = list(LOG_ODDS.values())
_BASES, _ACTIVITY = (np.array([row[part] for row in _ROWS], np.float32)[:, None, None] for part in (0, 1))
_EFFECTS = np.array([row[2] for row in _ROWS], np.float32)  # [5, F]
_ENJOYMENT = np.array(ENJOYMENT, np.float32)


def log_odds(causes: Rows, activity: Rows) -> Rows:
    """The behaviours' log-odds, `[B, n, C]`.

    That of `watch` is of m, the mean share of the video that is watched. The share itself is Beta(m / (1 − m), 1), so
    that P(share ≥ 0.9) = 1 − 0.9^(m / (1 − m)): the chance of `complete` follows from that of `watch`.

    Args:
        causes: `[F, n, C]`.
        activity: `[n]`.
    """
    odds = np.empty((len(BEHAVIOURS), *causes.shape[1:]), np.float32)
    others = np.tensordot(_EFFECTS, causes, 1) + (_BASES + _ACTIVITY * activity[:, None])
    odds[0], odds[2:] = others[0], others[1:]
    less = np.exp(others[0]) * -np.float32(np.log(COMPLETE))
    odds[1] = less + np.log(-np.expm1(-less))  # ln(eˣ − 1), also where eˣ is beyond float32
    return odds


def enjoyment(causes: Rows) -> Rows:
    """`[F, n, L]` → `[n, L]`."""
    return np.asarray(np.tensordot(_ENJOYMENT, causes, 1))


def behave(key: Rows, odds: Rows, seconds: Rows) -> Rows:
    """What happened, `[B, n, L]` float32: the seconds watched, and 0 or 1 for each other behaviour.

    Args:
        key: `[n, L]` of the draws.
        odds: `[B, n, L]`.
        seconds: `[n, L]` how long the videos are.
    """
    luck = np.moveaxis(uniforms(key, len(BEHAVIOURS) - 1), -1, 0)
    happened = np.empty(odds.shape, np.float32)
    share = luck[0] ** np.exp(-odds[0])  # by inversion, as m / (1 − m) = exp(log-odds)
    happened[0] = share * seconds
    happened[1] = share >= COMPLETE
    happened[2:] = luck[1:] < 1 / (1 + np.exp(-odds[2:]))
    return happened
