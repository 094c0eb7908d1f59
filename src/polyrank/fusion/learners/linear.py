"""Policies that are linear in the state: few numbers, read by a person, hard to overfit.

N states, S numbers, K weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from polyrank.fusion.policy import Box, Policy, Standard
from polyrank.metrics.checks import Rows


@dataclass(frozen=True, eq=False)
class LinearPolicy(Policy):
    """`w(s) = centre + half · clip(b + C s̃, −1, 1)`, s̃ the standardised state: a line, cut off at the box.

    Attributes:
        standard: of the log.
        box: of the log.
        bias: `[K]` b.
        slopes: `[K, S]` C.
    """

    kind = "linear"
    standard: Standard
    box: Box
    bias: Rows
    slopes: Rows

    def normalised(self, states: Rows) -> Rows:
        """`[N, S]` → `[N, K]` b + C s̃, which may lie outside [−1, 1]."""
        found: Rows = self.standard(states) @ self.slopes.T + self.bias
        return found

    def act(self, states: Rows) -> Rows:
        """See `Policy`."""
        return self.box.weights(np.clip(self.normalised(states), -1.0, 1.0))

    def arrays(self) -> Mapping[str, Rows]:
        """See `Policy`."""
        return {"bias": self.bias, "slopes": self.slopes, **scale_arrays(self.standard, self.box)}

    def document(self) -> dict[str, Any]:
        """See `Policy`."""
        return {}

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """See `Policy`."""
        return cls(*scales(arrays), arrays["bias"], arrays["slopes"])


def scale_arrays(standard: Standard, box: Box) -> dict[str, Rows]:
    """What a policy saves of how it scales states and actions."""
    return {"mean": standard.mean, "deviation": standard.deviation, "low": box.low, "high": box.high}


def scales(arrays: Mapping[str, Rows]) -> tuple[Standard, Box]:
    """What `scale_arrays` saved."""
    return Standard(arrays["mean"], arrays["deviation"]), Box(arrays["low"], arrays["high"])
