"""What weights do to the return of a session, by least squares: every step of a log counts at once, nothing is tuned.

N steps, P features.
"""

from dataclasses import dataclass

import numpy as np

from polyrank.fusion.learners.returns import known, returns_to_go
from polyrank.fusion.quadratic import features
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats

_BLOCK = 1 << 15


@dataclass(frozen=True, eq=False)
class Response:
    """Q̂(s, a) = f(s, a) · w, and how sure that is.

    Attributes:
        weights: `[P]` w.
        covariance: `[P, P]` of w; sessions are independent, steps of one session are not.
    """

    weights: Floats
    covariance: Floats


def response(log: SessionLog, gamma: float, ridge: float) -> Response:
    """Regress what followed a step, `G_t = Σ_{u ≥ t} γ^{u−t} r_u`, on its features, with a ridge.

    It is the Q of the log's own policy, by Monte Carlo. Temporal differences would have less noise, and believe that a
    state tells all: what a user felt and no state shows reaches later rewards past the state, and they miss it.

    The covariance is A⁻¹ B A⁻¹, A = Σ f f' + ridge, B the sum over sessions of g g', g = Σ_{t in session} f_t ε_t
    (Liang & Zeger 1986).

    Args:
        log: states standardised, actions normalised to the box; sessions that were cut off are left out if γ > 0.
        gamma: γ.
        ridge: in shares of the features' mean square.

    Raises:
        DataError: γ > 0, and all were cut off.
    """
    rows = known(log, gamma)
    followed = returns_to_go(log, log.rewards, gamma)
    size = features(log.states[:1], log.actions[:1]).shape[1]
    gram, earned = np.zeros((size, size)), np.zeros(size)
    blocks = [rows[begin : begin + _BLOCK] for begin in range(0, len(rows), _BLOCK)]
    for at in blocks:
        f = features(log.states[at], log.actions[at])
        gram += f.T @ f
        earned += f.T @ followed[at].astype(np.float32)
    inverse = np.linalg.inv(gram + ridge * np.trace(gram) / size * np.eye(size))
    w = inverse @ earned
    noise, session = np.zeros_like(gram), log.owners
    carried, number = np.zeros(size, np.float32), -1
    for at in blocks:
        f = features(log.states[at], log.actions[at])
        errors = (followed[at] - f @ w)[:, None].astype(np.float32)
        g = np.add.reduceat(f * errors, np.flatnonzero(np.diff(session[at], prepend=-1)), axis=0)
        if session[at[0]] == number:  # a session may go on from the block before
            g[0] += carried
        else:
            noise += np.outer(carried, carried)
        noise += g[:-1].T @ g[:-1]
        carried, number = g[-1], session[at[-1]]
    noise += np.outer(carried, carried)
    return Response(w, inverse @ noise @ inverse.T)
