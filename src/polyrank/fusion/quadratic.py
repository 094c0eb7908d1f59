"""What a quadratic of states and fusion weights is made of. N steps, D state numbers, K weights, P features."""

import numpy as np

from polyrank.metrics.checks import Rows


def features(states: Rows, actions: Rows) -> Rows:
    """`[N, P]` float32: (1, s) ⊗ (1, a, a²), all a_k a_l with k < l, all s_i s_j with i ≤ j.

    Quadratic in both, with what weights do and where they are best linear in the state.
    """
    n = len(states)
    seen = np.concatenate([np.ones((n, 1), np.float32), states], axis=1)
    done = np.concatenate([np.ones((n, 1), np.float32), actions, actions * actions], axis=1)
    both = (seen[:, :, None] * done[:, None, :]).reshape(n, -1)
    one, other = np.triu_indices(actions.shape[1], 1)
    i, j = np.triu_indices(states.shape[1])
    found: Rows = np.concatenate([both, actions[:, one] * actions[:, other], states[:, i] * states[:, j]], axis=1)
    return found.astype(np.float32, copy=False)
