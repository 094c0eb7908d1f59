"""A world of short videos: what it holds, what its heads predict, and by which rules users stay and return.

n requests, C candidates of each, L of them shown, K heads, B behaviours, F causes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval

from polyrank.fusion.policy import Box
from polyrank.metrics.checks import Rows
from polyrank.simulator.behaviours import BEHAVIOURS, CAUSES, log_odds
from polyrank.simulator.draws import below, keys
from polyrank.simulator.users import MODES, TOPICS, Users

FLOOR = 1e-3  # β of g(p) = ln(p + β)
MOST = 3.0  # of a fusion weight, in a search
_ACTIVE = [BEHAVIOURS.index(name) for name in ("like", "share", "comment")]
_ERRORS = 1 << 16  # so many vectors of errors there are, of which a candidate gets one

WORTH = {"watch": 1 / 60, "like": 0.5, "share": 1.0, "comment": 0.5, "hate": -2.0, "return": 3.0}


@dataclass(frozen=True)
class WorldConfig:
    """A world and what counts in it. Who lives there is its mode's: `users.MODES`.

    Attributes:
        mode: `a`: leaving and returning are blind to what is shown, so that myopic weights are optimal. `b`: bait is
            watched and disappoints, all users alike: a trade-off with the long term. `c`: as b, but bait disappoints
            some and pleases others, and some users like and share much more: the best weights differ between users.
            `d`: as c, and over the days bait comes to disappoint more.
        heads: K. The first six predict the `BEHAVIOURS`; more are further predictions of the same, with other errors.
        noise: standard deviation of what heads get wrong of log-odds. Where a user seldom likes, shares and comments,
            these are predicted worse: times exp(−activity / 2).
        miscalibration: standard deviation of ln slope and of the offset by which a head's log-odds are off everywhere.
        blur: standard deviation of what a state gets wrong of a user's history.
        videos: how many there are.
        candidates: C.
        shown: L.
        longest: requests after which a session ends in any case.
        leave: log-odds of leaving after a request, where satisfaction and fatigue are 0.
        leave_satisfaction: what a unit of satisfaction takes from them.
        leave_fatigue: what a unit of fatigue adds to them.
        tiring: fatigue that a request adds.
        back: log-odds of returning the next day, where satisfaction is 0.
        back_satisfaction: what a unit of satisfaction adds to them.
        memory: the share of satisfaction that a request leaves as it was; the rest becomes the enjoyment of what was
            shown, its mean over the list.
        dwell: mean minutes of the next day for users who return with satisfaction 0; e times that with each unit more.
        worth: the reward, by behaviour of one video (`watch`: a second) and for `return`; what is not named counts 0.
        seed: of the videos, and of what heads get wrong.
    """

    mode: Literal["a", "b", "c", "d"] = "c"
    heads: Annotated[int, Interval(ge=6, le=12)] = 6
    noise: Annotated[float, Ge(0)] = 0.8
    miscalibration: Annotated[float, Ge(0)] = 0.2
    blur: Annotated[float, Ge(0)] = 0.4
    videos: Annotated[int, Gt(0)] = 4_000
    candidates: Annotated[int, Gt(0)] = 24
    shown: Annotated[int, Gt(0)] = 4
    longest: Annotated[int, Gt(0)] = 20
    leave: float = -1.2
    leave_satisfaction: float = 1.5
    leave_fatigue: float = 0.6
    tiring: Annotated[float, Ge(0)] = 0.1
    back: float = 0.0
    back_satisfaction: float = 1.5
    memory: Annotated[float, Interval(ge=0, lt=1)] = 0.7
    dwell: Annotated[float, Gt(0)] = 10.0
    worth: Mapping[str, float] = field(default_factory=lambda: dict(WORTH))
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.shown > self.candidates:
            raise ValueError(f"shown must not be above candidates ({self.candidates}), got {self.shown}")
        for name in self.worth:
            if name not in (*BEHAVIOURS, "return"):
                raise ValueError(f"worth is of {', '.join(BEHAVIOURS)} and return, got {name!r}")


@dataclass(frozen=True, eq=False)
class Videos:
    """Those of n requests, C candidates or L shown.

    Attributes:
        causes: `[F, n, C]`.
        seconds: `[n, C]` how long they are.
        odds: `[B, n, C]` the true log-odds.
        keys: `[n, C]` of what will happen if they are shown.
    """

    causes: Rows
    seconds: Rows
    odds: Rows
    keys: Rows


@dataclass(frozen=True, eq=False)
class Requests:
    """n requests: their candidates and what a ranker sees of them, g_k(p_k): `[K, n, C]`."""

    videos: Videos
    heads: Rows

    def show(self, weights: Rows, shown: int, rows: Rows | None = None) -> Videos:
        """The `shown` candidates of the highest Σ_k w_k g_k, `[n, L]`, in no order.

        Args:
            weights: `[n, K]`.
            shown: L.
            rows: `[n]` which requests are meant, where not all are, one after the other.
        """
        scores = np.zeros((len(weights), self.heads.shape[2]), np.float32)
        for head, weight in zip(self.heads, weights.T, strict=True):
            scores += (head if rows is None else head[rows]) * weight[:, None]
        top = np.argpartition(scores, -shown, axis=1)[:, -shown:]
        row = (np.arange(len(top)) if rows is None else rows)[:, None]
        videos = self.videos
        return Videos(
            videos.causes[:, row, top], videos.seconds[row, top], videos.odds[:, row, top], videos.keys[row, top]
        )


class World:
    """Its videos and heads, drawn by the config's seed; the same for ever.

    Attributes:
        config: the knobs.
        population: who lives there.
        heads: names of the K heads.
        bounds: the weights that make sense: [0, 3], and [−3, 0] for predictions of hate. Only their direction counts.
    """

    def __init__(self, config: WorldConfig) -> None:
        self.config, self.population = config, MODES[config.mode]
        rng = np.random.default_rng(config.seed)
        self._topics = (rng.normal(size=(config.videos, TOPICS)) / np.sqrt(TOPICS)).astype(np.float32)
        self._traits = rng.standard_normal((3, config.videos), np.float32)  # quality, bait, length
        self._seconds = np.exp(3.3 + 0.5 * self._traits[2])  # 27 s in the middle, 10 to 74 s in 19 of 20
        self._of = np.arange(config.heads) % len(BEHAVIOURS)
        self._slopes = np.exp(config.miscalibration * rng.standard_normal(config.heads, np.float32))
        self._offsets = config.miscalibration * rng.standard_normal(config.heads, np.float32)
        self._errors = config.noise * rng.standard_normal((config.heads, _ERRORS), np.float32)
        again = np.arange(config.heads) // len(BEHAVIOURS)
        self.heads = tuple(BEHAVIOURS[b] + ("" if not n else "_again") for b, n in zip(self._of, again, strict=True))
        sign = self.static_start()
        self.bounds = Box(np.minimum(MOST * sign, 0), np.maximum(MOST * sign, 0))

    def static_start(self) -> Rows:
        """`[K]` where a search may begin: 1 for every head, −1 for those of hate."""
        return np.where(self._of == BEHAVIOURS.index("hate"), -1, 1).astype(np.float32)

    def requests(self, users: Users, key: Rows) -> Requests:
        """What is there to be shown, whatever the weights: candidates drawn at random, and what heads predict of them.

        g_k = ln(p_k + 10⁻³); that of `watch` is of the expected seconds.

        Args:
            users: n.
            key: `[n]` of the requests.
        """
        of = keys(key[:, None], np.arange(self.config.candidates))
        video, error = below(of, self.config.videos), np.asarray(of & np.uint64(_ERRORS - 1), np.intp)
        causes = np.empty((len(CAUSES), *video.shape), np.float32)
        causes[0] = (self._topics[video] @ users.taste[:, :, None])[..., 0]
        np.take(self._traits, video, axis=1, out=causes[1:4], mode="clip")
        causes[4] = users.sensitivity[:, None] * causes[2]
        odds, seconds = log_odds(causes, users.activity), self._seconds[video]
        rough = np.exp(-users.activity / 2)[:, None]
        heads = np.empty((self.config.heads, *video.shape), np.float32)
        for head, of_it in enumerate(self._of):
            off = self._errors[head, error] * (rough if of_it in _ACTIVE else 1)
            predicted = (odds[of_it] + off) * self._slopes[head] + self._offsets[head]
            heads[head] = np.log(1 / (1 + np.exp(-predicted)) + np.float32(FLOOR))
            if of_it == 0:
                heads[head] += np.log(seconds)
        return Requests(Videos(causes, seconds, odds, of), heads)
