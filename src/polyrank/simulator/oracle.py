"""What can be gained in a world: the best static weights, and the best policy of few numbers that follows the state.

n sessions, P policies, S state numbers, K fusion weights. Both are found by CMA-ES (Hansen & Ostermeier 2001) on the
simulator itself: all policies of a search meet the same sessions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt
from cmaes import CMA

from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.policy import Box, Policy, Standard, StaticPolicy
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress, Silent
from polyrank.simulator.draws import keys
from polyrank.simulator.sessions import STATE, Crowd, returns, times
from polyrank.simulator.world import Requests, Videos, World

_FRESH = 8  # times as many sessions for the last choice of a search as for the search
FOLLOWED = ("history_sensitivity", "history_activity", "history_satisfaction")


@dataclass(frozen=True)
class OracleConfig:
    """How long is searched.

    Attributes:
        static_generations: of the search for static weights.
        generations: of the search for the oracle, which begins at the best static weights.
        sigma: CMA-ES's first standard deviation, in half-widths of the box.
    """

    static_generations: Annotated[int, Gt(0)] = 25
    generations: Annotated[int, Gt(0)] = 40
    sigma: Annotated[float, Gt(0)] = 0.3


class Rehearsal:
    """The same n sessions again and again under many policies; what does not depend on them is made once.

    Args:
        world: where.
        sessions: n.
        seed: of users, candidates and luck.
        when: the part of the days of a drift that they cover.
    """

    def __init__(self, world: World, sessions: int, seed: int, when: tuple[float, float] = (0.0, 1.0)) -> None:
        self.world, self.seed = world, seed
        self.ids = np.arange(sessions)
        self.when = times(self.ids, sessions, when)
        self._requests: list[Requests] = []
        self._first = Crowd(world, seed, self.ids, self.when)

    def requests(self, number: int) -> Requests:
        """Each session's request of this number."""
        while len(self._requests) <= number:
            key = keys(self._first.keys, 1 + 2 * len(self._requests))
            self._requests.append(self.world.requests(self._first.users, key))
        return self._requests[number]

    def returns(self, acts: Sequence[Callable[[Rows], Rows]]) -> Floats:
        """`[P, n]` what each session brings under each policy, states `[N, S]` → weights `[N, K]`."""
        n = len(self.ids)
        crowd = _Rehearsed(self, len(acts))
        total, rows = np.zeros(len(acts) * n), np.arange(len(acts) * n)
        while len(rows):
            states = crowd.states(rows)
            ends = np.searchsorted(rows, n * np.arange(len(acts) + 1))
            weights = [act(states[a:b]) for act, a, b in zip(acts, ends, ends[1:], strict=False)]
            outcome = crowd.act(rows, np.concatenate(weights))
            total[rows] += outcome.rewards
            rows = rows[~outcome.left]
        return total.reshape(len(acts), n)

    def fresh(self, act: Callable[[Rows], Rows]) -> Floats:
        """`[8 n]` what a policy brings in as many sessions after these."""
        ids = len(self.ids) + np.arange(_FRESH * len(self.ids))
        return returns(Crowd(self.world, self.seed, ids, np.tile(self.when, _FRESH)), act)


class _Rehearsed(Crowd):
    """P copies of the sessions of a rehearsal, one for each policy, all at the same request."""

    def __init__(self, rehearsal: Rehearsal, copies: int) -> None:
        ids, when = (np.tile(values, copies) for values in (rehearsal.ids, rehearsal.when))
        super().__init__(rehearsal.world, rehearsal.seed, ids, when)
        self._rehearsal = rehearsal

    def shown(self, rows: Rows, weights: Rows) -> Videos:
        """See `Crowd`."""
        requests = self._rehearsal.requests(int(self._requests[rows[0]]))
        return requests.show(weights, self.world.config.shown, rows % len(self._rehearsal.ids))


def best_static(rehearsal: Rehearsal, config: OracleConfig, progress: Progress | None = None) -> StaticPolicy:
    """The static weights of the highest mean return, scaled to a mean |w_k| of 1: only their direction counts."""
    box = rehearsal.world.bounds

    def made(x: Floats) -> Policy:
        return StaticPolicy(box.weights(np.clip(x, -1, 1)))

    start = box.normalised(rehearsal.world.static_start()[None])[0]
    found = _searched(rehearsal, made, start, config.sigma, config.static_generations, "static weights", progress)
    weights = box.weights(np.clip(found, -1, 1))
    return StaticPolicy(weights / np.abs(weights).mean())


def oracle(
    rehearsal: Rehearsal,
    static: StaticPolicy,
    config: OracleConfig,
    box: Box | None = None,
    progress: Progress | None = None,
) -> LinearPolicy:
    """The policy of the highest mean return among those that follow `FOLLOWED`, linearly and cut off at the box.

    It knows what every policy may know, the state, and begins at the best static weights. A policy that follows more of
    the state, or not in a line, may be better still.
    """
    box = box or rehearsal.world.bounds
    followed = [STATE.index(name) for name in FOLLOWED]
    heads, width = len(static.weights), len(followed)
    told = _Rehearsed(rehearsal, 1).states(rehearsal.ids)
    standard = Standard(told.mean(axis=0), np.where(told.std(axis=0) > 0, told.std(axis=0), 0))

    def made(x: Floats) -> LinearPolicy:
        numbers = np.asarray(x, np.float32).reshape(heads, 1 + width)
        slopes = np.zeros((heads, len(STATE)), np.float32)
        slopes[:, followed] = numbers[:, 1:]
        return LinearPolicy(standard, box, numbers[:, 0], slopes)

    start = np.zeros((heads, 1 + width))
    start[:, 0] = box.normalised(box.clip(static.weights[None]))[0]
    return made(_searched(rehearsal, made, start.ravel(), config.sigma, config.generations, "oracle", progress))


def _searched(
    rehearsal: Rehearsal,
    made: Callable[[Floats], Policy],
    start: Rows,
    sigma: float,
    generations: int,
    label: str,
    progress: Progress | None,
) -> Floats:
    """CMA-ES's mean after the last generation, or the start where that brings more in fresh sessions."""
    search = CMA(mean=np.asarray(start, np.float64), sigma=sigma, seed=rehearsal.seed)
    with (progress or Silent()).bar(label, generations, "generations") as bar:
        for _ in range(generations):
            asked = [search.ask() for _ in range(search.population_size)]
            found = rehearsal.returns([made(x).act for x in asked]).mean(axis=1)
            search.tell([(x, -mean) for x, mean in zip(asked, found, strict=True)])
            bar.advance(1)
    mean: Floats = search.mean
    return max((start, mean), key=lambda x: rehearsal.fresh(made(x).act).mean())
