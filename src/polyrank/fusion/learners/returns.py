"""What followed a step: the target of one-step methods. N steps."""

import numpy as np

from polyrank.errors import DataError
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows


def returns_to_go(log: SessionLog, values: Rows, gamma: float) -> Floats:
    """`G_t = Σ_{u ≥ t} γ^{u−t} v_u` over the rest of the session, `[N]` or `[N, C]` as `values`.

    With γ = 0 the values themselves: what a step earned at once. With γ > 0, a one-step method that maximises
    E[G | s, a] takes the best first step before going on as the log's policy did: one step of policy improvement
    (Brandfonbrener et al. 2021), no more.
    """
    found = np.array(values, np.float64)
    if gamma == 0:
        return found
    longest = int(log.lengths.max(initial=0))
    for back in range(2, longest + 1):  # the last step but one of every session that has it, and so on
        at = log.starts[1:][log.lengths >= back] - back
        found[at] += gamma * found[at + 1]
    return found


def known_sessions(log: SessionLog, gamma: float) -> Rows:
    """`[S]` bool, the sessions whose return is in the log: those that ended, or with γ = 0 all."""
    found: Rows = log.done[log.starts[1:] - 1] | (gamma == 0)
    return found


def known(log: SessionLog, gamma: float) -> Rows:
    """The steps whose return is in the log: row numbers. With γ > 0, those of sessions that were cut off are not.

    Raises:
        DataError: there is none.
    """
    rows = np.flatnonzero(np.repeat(known_sessions(log, gamma), log.lengths))
    if not len(rows):
        raise DataError(
            "with gamma above 0 a log must have sessions that are done",
            received=f"{len(log.sessions):,} sessions, all cut off",
            mend="log their ends, or set gamma to 0",
        )
    return rows
