"""The certificate of a world: how much there is to gain over the best static weights, and of what kind it is.

A world in which nothing can be gained proves nothing about a learner, and one in which anything helps neither. All
values are means over sessions that no search has seen, and all differences are paired: the same users, candidates and
luck for both sides.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from polyrank.fusion.policy import Box, Policy, StaticPolicy
from polyrank.metrics.checks import Floats
from polyrank.progress import Progress, Silent
from polyrank.simulator.oracle import OracleConfig, Rehearsal, best_static, oracle
from polyrank.simulator.sessions import value
from polyrank.simulator.world import World, WorldConfig

HEADROOM = {"a": (-np.inf, 0.005), "c": (0.10, np.inf)}  # what a world of these modes must have


@dataclass(frozen=True)
class CertificateConfig:
    """How well is searched and measured.

    Attributes:
        sessions: of the searches.
        judged: on how many others the winners are compared.
        half: half of the width of the box around the best static weights (of mean |w| = 1) in which a second oracle is
            searched: what can be reached by who explores there.
        search: how long is searched.
    """

    sessions: Annotated[int, Gt(0)] = 1_000
    judged: Annotated[int, Gt(1)] = 20_000
    half: Annotated[float, Gt(0)] = 0.7
    search: OracleConfig = field(default_factory=OracleConfig)


def certificate(
    world: WorldConfig, config: CertificateConfig, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Search a world, and say what was found.

    Returns:
        `mode`, `seed`, `half`; `static`: the best static weights, and the mean return of a session under them;
        `oracle`: the best policy of few numbers that follows the state, and its gain over `static`: the headroom;
        `bounded`, where users differ: the same inside the box; `myopic`: the static weights of the highest reward of
        one request; `stale`, where the world drifts, else None: the weights that are best in the first half of the
        days, judged in the second half against those that are
        best there. Each gain is relative to the mean return of what it is compared with, with its standard error.
        `accepted`: whether the headroom is as `HEADROOM` demands; None for modes of which it demands nothing.
    """
    progress, made = progress or Silent(), World(world)
    rehearsal = Rehearsal(made, config.sessions, seed)
    static = best_static(rehearsal, config.search, progress)
    box = Box(static.weights - config.half, static.weights + config.half)
    near_sighted = Rehearsal(World(_one_request(world)), 4 * config.sessions, seed)
    rivals: dict[str, Policy] = {
        "oracle": oracle(rehearsal, static, config.search, None, progress),
        "myopic": best_static(near_sighted, config.search, progress),
    }
    if made.population.sensitivity_spread:
        rivals["bounded"] = oracle(rehearsal, static, config.search, box, progress)
    judged = _Judged(made, config.judged, seed + 1)
    own = judged(static)
    found: dict[str, Any] = {"mode": world.mode, "seed": world.seed, "half": config.half}
    found["static"] = _said(static) | {"value": float(own.mean())}
    for name, policy in rivals.items():
        found[name] = _said(policy) | _gain(judged(policy), own)
    found["stale"] = _stale(made, config, seed, progress) if made.population.drift else None
    low, high = HEADROOM.get(world.mode, (None, None))
    found["accepted"] = None if low is None or high is None else bool(low <= found["oracle"]["gain"] <= high)
    return found


def _one_request(world: WorldConfig) -> WorldConfig:
    """The same world for who thinks no further than this request."""
    return replace(world, longest=1, worth={name: worth for name, worth in world.worth.items() if name != "return"})


def _stale(world: World, config: CertificateConfig, seed: int, progress: Progress) -> dict[str, Any]:
    early, late = (0.0, 0.5), (0.5, 1.0)
    old, new = (
        best_static(Rehearsal(world, config.sessions, seed, when), config.search, progress) for when in (early, late)
    )
    judged = _Judged(world, config.judged, seed + 1, late)
    return _said(old) | _gain(judged(old), judged(new))


@dataclass(frozen=True)
class _Judged:
    world: World
    sessions: int
    seed: int
    when: tuple[float, float] = (0.0, 1.0)

    def __call__(self, policy: Policy) -> Floats:
        return value(self.world, policy, self.sessions, self.seed, when=self.when)


def _gain(own: Floats, others: Floats) -> dict[str, float]:
    difference, unit = own - others, float(others.mean())
    error = float(difference.std(ddof=1)) / np.sqrt(len(own))
    return {"value": float(own.mean()), "gain": float(difference.mean()) / unit, "error": float(error / unit)}


def _said(policy: Policy) -> dict[str, Any]:
    if isinstance(policy, StaticPolicy):
        return {"weights": [round(float(weight), 3) for weight in policy.weights]}
    return {}
