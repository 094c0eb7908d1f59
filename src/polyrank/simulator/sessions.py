"""Sessions in a world: they go on, are logged, and have a value that is known because it can be simulated.

n sessions, S state numbers, K fusion weights. Every draw of a session is a function of the seed, its id, and the number
of the request (`draws`): under one seed all policies meet the same users, the same candidates and the same luck.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from polyrank.fusion.explore import Explorer
from polyrank.fusion.policy import Policy
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress, Silent
from polyrank.simulator.behaviours import BEHAVIOURS, behave, enjoyment
from polyrank.simulator.draws import keys, uniforms
from polyrank.simulator.users import HISTORY, draw_users
from polyrank.simulator.world import Videos, World

SEEN = ("minutes", "completes", "interactions", "hates")  # of a video of this session, lately
STATE = (*(f"history_{name}" for name in HISTORY), "requests", *SEEN)
_RECENT = 0.4  # of what is told of the session the share that its last request has
_COHORT = 4_096  # sessions at a time: enough to make calls cheap, few enough for the cache


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a request each for m sessions.

    Attributes:
        happened: `[B, m]` sums over the list: seconds watched, and how many completed, liked, shared …
        left: `[m]` bool: the session ended with it.
        returned: `[m]` bool: it ended, and the user will return the next day.
        dwell: `[m]` minutes of the next day; 0 for who has not left or will not return.
        rewards: `[m]` float64.
    """

    happened: Rows
    left: Rows
    returned: Rows
    dwell: Rows
    rewards: Floats


class Crowd:
    """n sessions under way, each at its own request.

    Args:
        world: where.
        seed: of all draws.
        ids: `[n]` of the sessions: one id under one seed is one session.
        when: `[n]` in [0, 1]: where in the days of a drift they lie.

    Attributes:
        users: who they are; their satisfaction and fatigue are those of now.
    """

    def __init__(self, world: World, seed: int, ids: Rows, when: Rows) -> None:
        self.world, self._seed = world, keys(seed, 0)
        self.keys = keys(self._seed, ids)
        self.users = draw_users(world.population, self.keys, when, world.config.blur)
        self._requests = np.zeros(len(ids), np.int64)
        self._seen = np.zeros((len(ids), len(SEEN)), np.float32)
        worth = world.config.worth
        self._worth = np.array([worth.get(name, 0) for name in BEHAVIOURS])

    def begin(self, rows: Rows, ids: Rows, when: Rows) -> None:
        """Put new sessions in the places of others."""
        self.keys[rows] = keys(self._seed, ids)
        self.users[rows] = draw_users(self.world.population, self.keys[rows], when, self.world.config.blur)
        self._requests[rows], self._seen[rows] = 0, 0

    def states(self, rows: Rows) -> Rows:
        """`[m]` sessions → `[m, S]` float32: what a policy may know, by the names of `STATE`.

        Of the user's history, with errors; how many requests there were, as ln(1 + t); what was watched and done in
        this session, per video, the last request with a share of 40 %.
        """
        count = np.log1p(self._requests[rows, None]).astype(np.float32)
        return np.concatenate([self.users.history[rows], count, self._seen[rows]], axis=1)

    def shown(self, rows: Rows, weights: Rows) -> Videos:
        """What is shown to the sessions `[m]` under the weights `[m, K]`."""
        key = keys(self.keys[rows], 1 + 2 * self._requests[rows])
        return self.world.requests(self.users[rows], key).show(weights, self.world.config.shown)

    def act(self, rows: Rows, weights: Rows) -> Outcome:
        """One request for each of the sessions `[m]`, ranked by the weights `[m, K]`."""
        config, users = self.world.config, self.users
        videos = self.shown(rows, weights)
        each = behave(videos.keys, videos.odds, videos.seconds)
        happened = each.sum(axis=2)
        joy = enjoyment(videos.causes).mean(axis=1)
        satisfaction = config.memory * users.satisfaction[rows] + (1 - config.memory) * joy
        users.satisfaction[rows] = satisfaction
        users.fatigue[rows] += config.tiring
        luck = uniforms(keys(self.keys[rows], 2 + 2 * self._requests[rows]), 3)
        felt = satisfaction * self.world.population.lasting
        tired = users.fatigue[rows] * self.world.population.lasting
        staying = config.leave - config.leave_satisfaction * felt + config.leave_fatigue * tired
        left = (luck[:, 0] < _chance(staying)) | (self._requests[rows] + 1 >= config.longest)
        returned = left & (luck[:, 1] < _chance(config.back + config.back_satisfaction * felt))
        dwell = np.where(returned, -np.log(luck[:, 2]) * config.dwell * np.exp(felt), 0)
        self._note(rows, happened / config.shown)
        rewards = self._worth @ happened + config.worth.get("return", 0) * returned
        return Outcome(happened, left, returned, dwell.astype(np.float32), np.asarray(rewards, np.float64))

    def _note(self, rows: Rows, happened: Rows) -> None:
        """Remember what a state tells of the session."""
        watch, complete, like, share, comment, hate = happened
        now = np.stack([watch / 60, complete, like + share + comment, hate], axis=1)
        first = (self._requests[rows] == 0)[:, None]
        self._seen[rows] = np.where(first, now, (1 - _RECENT) * self._seen[rows] + _RECENT * now)
        self._requests[rows] += 1


def simulate(
    world: World,
    explorer: Explorer,
    sessions: int,
    seed: int,
    progress: Progress | None = None,
    *,
    when: tuple[float, float] = (0.0, 1.0),
) -> SessionLog:
    """A log of sessions in which the explorer chose the weights.

    Its signals, sums over the list of a request: `watch` (seconds), `complete`, `like`, `share`, `comment`, `hate`; and
    of the last request of a session `return` (0 or 1: the user came back the next day) and `next_dwell` (minutes of the
    next day, 0 for who did not come), 0 before it.

    Args:
        world: where.
        explorer: chooses, and knows the density of what it chose.
        sessions: how many; their ids count from 0, in the order of time.
        seed: of users, candidates, luck and exploration. Judge what was learned from the log under another seed.
        progress: where to report.
        when: the part of the days of a drift that the log covers.
    """
    parts: list[dict[str, Rows]] = []

    def note(ids: Rows, states: Rows, weights: Rows, densities: Floats, outcome: Outcome) -> None:
        signals = {name: outcome.happened[at] for at, name in enumerate(BEHAVIOURS)}
        signals |= {"return": outcome.returned.astype(np.float32), "next_dwell": outcome.dwell}
        known = {"ids": ids, "states": states, "actions": weights, "densities": densities}
        parts.append({**known, "rewards": outcome.rewards, "done": outcome.left, **signals})

    with (progress or Silent()).bar("simulating", sessions, "sessions") as bar:
        for ids in _cohorts(sessions):
            crowd = Crowd(world, seed, ids, times(ids, sessions, when))
            rng = np.random.default_rng([seed, ids[0]])
            rows = np.arange(len(ids))
            while len(rows):
                states = crowd.states(rows)
                drawn = explorer.draw(states, rng)
                outcome = crowd.act(rows, drawn.weights)
                note(ids[rows], states, drawn.weights, drawn.log_densities, outcome)
                rows = rows[~outcome.left]
            bar.advance(len(ids))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["ids"], kind="stable")  # steps of a session were noted one after the other
    of, states, actions, densities, rewards, done, *signals = (column[order] for column in columns.values())
    found, starts = np.unique(of, return_index=True)
    starts = np.append(starts, len(of))
    named = dict(zip(list(columns)[6:], signals, strict=True))
    return SessionLog(found, starts, states, actions, densities, rewards, done, named)


def value(world: World, policy: Policy, sessions: int, seed: int, *, when: tuple[float, float] = (0.0, 1.0)) -> Floats:
    """`[sessions]` the return of each under a policy: the sum of its rewards, undiscounted.

    Two policies under one seed meet the same users, candidates and luck: differences of their values are paired.

    Args:
        world: where.
        policy: chooses the weights.
        sessions: how many.
        seed: of users, candidates and luck.
        when: the part of the days of a drift that they cover.
    """
    return np.concatenate(
        [returns(Crowd(world, seed, ids, times(ids, sessions, when)), policy.act) for ids in _cohorts(sessions)]
    )


def returns(crowd: Crowd, act: Callable[[Rows], Rows]) -> Floats:
    """Play all sessions of a crowd to their end: `[n]` their returns."""
    total, rows = np.zeros(len(crowd.keys)), np.arange(len(crowd.keys))
    while len(rows):
        outcome = crowd.act(rows, act(crowd.states(rows)))
        total[rows] += outcome.rewards
        rows = rows[~outcome.left]
    return total


def _cohorts(sessions: int) -> list[Rows]:
    return [np.arange(at, min(at + _COHORT, sessions)) for at in range(0, sessions, _COHORT)]


def times(ids: Rows, sessions: int, when: tuple[float, float]) -> Rows:
    """`[m]` ids → when they happen, of `sessions` that are spread over the days from one time to another."""
    return when[0] + (when[1] - when[0]) * ids / max(sessions - 1, 1)


def _chance(log_odds: Rows) -> Rows:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
