"""What a row was worth: the declared composite of what happened, which learned rankers are trained to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class RewardConfig:
    """`[fusion.reward]`: which behaviours count, and how much.

    Attributes:
        weights: the worth of one unit of a behaviour: of a click, of a millisecond watched. All behaviours named here,
            and no others, count.
        caps: the most of a behaviour that counts in one row (10 minutes watched), by behaviour.
    """

    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    caps: Mapping[str, Annotated[float, Gt(0)]] = field(default_factory=dict)


def reward(labels: Mapping[str, Rows], config: RewardConfig) -> Floats:
    """`r = Σ_b v_b · min(y_b, cap_b)`, `[N]`: the immediate reward of UnifiedRL and BatchRL-MTF.

    A label that is missing (NaN: outside its sample space) counts 0: what could not happen did not.

    Args:
        labels: `[N]` by behaviour, not negative.
        config: weights and caps.

    Raises:
        ValueError: a weight or cap names no behaviour, no weight is above 0, a label is negative.

    Source: Zhang et al., BatchRL-MTF, KDD 2022 (their weights are not published); caps as in PRL-PUTS's min(n, 1).
    """
    for name in (*config.weights, *config.caps):
        if name not in labels:
            raise ValueError(f"a reward is of behaviours {list(labels)}, got {name!r}")
    if not any(value > 0 for value in config.weights.values()):
        raise ValueError("a reward needs a behaviour whose weight is above 0")
    total = np.zeros(len(next(iter(labels.values()))))
    for name, weight in config.weights.items():
        happened = np.nan_to_num(np.asarray(labels[name], np.float64))
        if len(happened) and happened.min() < 0:
            raise ValueError(f"a reward is of labels that are not negative, got {happened.min()} of {name!r}")
        total += weight * np.minimum(happened, config.caps.get(name, np.inf))
    return total
