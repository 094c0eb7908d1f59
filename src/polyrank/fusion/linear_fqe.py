"""Fitted Q evaluation with a Q that is linear in known features: solved at once, with the noise of the fit known.

N steps, S sessions, D state numbers, K fusion weights, P features.
"""

import numpy as np

from polyrank.errors import TrainingDiverged
from polyrank.fusion.crossfit import Act, unit_spread
from polyrank.fusion.estimate import Terms
from polyrank.fusion.quadratic import features
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Rows

_BLOCK = 1 << 15
_BEYOND = 10.0  # how many times what rewards allow a value may be before there is none


def linear_fqe(log: SessionLog, act: Act, gamma: float, *, ridge: float = 1e-4) -> Terms:
    """The value of a policy by the Q̂(s, a) = f(s, a) · w with Σ f(s, a) (r + γ Q̂(s', π(s')) − Q̂(s, a)) = 0 over a log.

    w = A⁻¹ Σ f r, A = Σ f (f − γ f')ᵀ + ridge, f' = f(s', π(s')), and 0 after a step that is `done`: LSTD-Q (Lagoudakis
    & Parr 2003), where fitted Q evaluation with linear Q converges to (Duan, Jia, Wang 2020). Features are `quadratic`:
    what weights do within a box of bounded exploration is smooth, and small beside the noise of rewards; here every
    step counts at once, and the order of policies is seen where a network still follows noise. The last step of a
    session that was cut off is left out: what came after is unknown.

    Args:
        log: of any scale; states, actions and rewards are brought to unit spread.
        act: the policy.
        gamma: γ; 1 where all sessions end.
        ridge: in shares of the features' mean square.

    Returns:
        By session f(s₀, π(s₀)) · w + S · Σ_t (f_t · v) δ_t, with v = A⁻ᵀ mean f(s₀, π(s₀)) and δ the temporal
        difference. The mean of the second part is 0, or what the ridge takes: it is the session's influence on w, so
        that an interval of these terms holds the noise of the fit. What a quadratic cannot say of Q is not in it.

    Raises:
        TrainingDiverged: a value beyond ten times what rewards allow, or a standard error beyond it: the policy does
            what the log does not show.
    """
    log, act, unit = unit_spread(log, act)
    chosen = np.asarray(act(log.states), np.float32)
    usable = log.outcomes
    size = features(log.states[:1], log.actions[:1]).shape[1]
    gram, moved, earned = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
    blocks = [usable[begin : begin + _BLOCK] for begin in range(0, len(usable), _BLOCK)]
    for at in blocks:
        f = features(log.states[at], log.actions[at])
        gram += f.T @ f
        moved += f.T @ _after(log, chosen, at)
        earned += f.T @ log.rewards[at].astype(np.float32)
    gram += ridge * np.trace(gram) / size * np.eye(size)
    inverse = np.linalg.inv(gram - gamma * moved)
    w = inverse @ earned
    first = log.starts[:-1]
    beginnings = features(log.states[first], chosen[first]).astype(np.float64)
    v = inverse.T @ beginnings.mean(axis=0)
    influence = np.zeros(len(log.rewards))
    for at in blocks:
        f = features(log.states[at], log.actions[at]).astype(np.float64)
        error = log.rewards[at] + gamma * (_after(log, chosen, at) @ w) - f @ w
        influence[at] = (f @ v) * error
    corrections = np.add.reduceat(influence, first)
    values = unit * (beginnings @ w + len(first) * corrections)
    terms = Terms(values[:, None], np.ones((len(values), 1)))
    longest = min(1 / (1 - gamma) if gamma < 1 else np.inf, float(log.lengths.max()))
    highest = unit * float(np.abs(log.rewards).max()) * longest
    # Where the log shows nothing like it the equations are all but singular: values are wild, or nobody's guess.
    if not (abs(terms.value()) <= _BEYOND * highest and terms.error() <= highest):
        raise TrainingDiverged(
            "a value must stay within what rewards allow",
            received=f"{terms.value():,.3g} ± {terms.error():,.3g}; rewards allow {highest:,.3g}",
            mend="a policy that leaves what the log shows cannot be judged by it",
        )
    return terms


def _after(log: SessionLog, chosen: Rows, at: Rows) -> Rows:
    """`[B, P]` f(s', π(s')), 0 where the session ended."""
    done = log.done[at]
    after = np.where(done, at, at + 1)
    found = features(log.states[after], chosen[after])
    found[done] = 0
    return found
