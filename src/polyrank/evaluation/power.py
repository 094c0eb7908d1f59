"""What a test could have shown: the smallest difference that a sample of users finds, and the users that one needs."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri


@dataclass(frozen=True)
class Power:
    """The power of a two-sided test of a paired difference whose standard error is known.

    Attributes:
        error: the difference's standard error on these users.
        detectable: the smallest true difference that is called one with the chance asked for.
        users_needed: how many such users it takes to find `target` with that chance; 0 where the error is.
    """

    error: float
    detectable: float
    users_needed: int


def power(error: float, users: int, target: float, *, chance: float = 0.8, level: float = 0.95) -> Power:
    """The power of the interval of a paired difference.

    `detectable = (z_{(1 + level)/2} + z_chance) · error`; an error falls with the root of the number of users, so that
    `users_needed = users · (detectable / target)²`.

    Args:
        error: standard error of the difference (σ of its bootstrap replicates).
        users: how many users it was measured on.
        target: the difference that matters, above 0.
        chance: the power, the chance to find it.
        level: of the interval that must leave out 0.

    Raises:
        ValueError: the error is negative or not finite, or target, chance or level are out of range.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, in the normal approximation.
    """
    if not (np.isfinite(error) and error >= 0) or target <= 0 or not 0 < chance < 1 or not 0 < level < 1:
        raise ValueError(f"a power needs error >= 0 and target > 0, got {error}, {target}, {chance}, {level}")
    detectable = float(ndtri(0.5 + level / 2) + ndtri(chance)) * error
    return Power(error, detectable, int(np.ceil(users * (detectable / target) ** 2)))
