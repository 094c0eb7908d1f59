"""Who comes: the hidden traits of users, by mode of the world, and what their histories tell of them."""

from dataclasses import dataclass, fields

import numpy as np

from polyrank.metrics.checks import Rows
from polyrank.simulator.draws import keys, normals

TOPICS = 4
HISTORY = ("sensitivity", "activity", "satisfaction", "fatigue")


@dataclass(frozen=True)
class Population:
    """A mode of the world.

    Attributes:
        sensitivity: mean over users of how much bait disappoints them; where it is below 0, bait pleases.
        sensitivity_spread: its standard deviation.
        activity_spread: standard deviation of how readily users like, share and comment, in log-odds.
        lasting: whether leaving and returning follow satisfaction; otherwise they are blind to what is shown.
        drift: how far the mean sensitivity rises over the days, from half of it below the mean to half above;
            histories do not follow it: they tell of a time before.
    """

    sensitivity: float
    sensitivity_spread: float = 0.0
    activity_spread: float = 0.0
    lasting: bool = True
    drift: float = 0.0


MODES = {
    "a": Population(0.4, lasting=False),
    "b": Population(0.4),
    "c": Population(0.2, sensitivity_spread=1.0, activity_spread=0.8),
    "d": Population(0.2, sensitivity_spread=1.0, activity_spread=0.8, drift=2.0),
}


@dataclass(frozen=True, eq=False)
class Users:
    """n users at the beginning of a session; all float32.

    Attributes:
        taste: `[n, TOPICS]`: the relevance of a video is taste · topic.
        sensitivity: `[n]`.
        activity: `[n]`.
        satisfaction: `[n]`: what earlier sessions left; 0 on average.
        fatigue: `[n]`: how tired of watching they come; from 0.
        history: `[n, 4]`: what is known of the `HISTORY`, each with an error.
    """

    taste: Rows
    sensitivity: Rows
    activity: Rows
    satisfaction: Rows
    fatigue: Rows
    history: Rows

    def __getitem__(self, rows: Rows) -> "Users":
        return Users(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __setitem__(self, rows: Rows, others: "Users") -> None:
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(others, field.name)


def draw_users(population: Population, key: Rows, when: Rows, blur: float) -> Users:
    """The users of n sessions.

    Args:
        population: whom to draw from.
        key: `[n]` of the draws.
        when: `[n]` in [0, 1]: where in the days of the drift a session lies.
        blur: standard deviation of what histories get wrong.
    """
    luck = normals(keys(key, 0), len(HISTORY) + TOPICS)
    sensitivity = population.sensitivity + population.sensitivity_spread * luck[:, 0]
    activity = population.activity_spread * luck[:, 1]
    satisfaction, fatigue = 0.5 * luck[:, 2], 0.5 * np.abs(luck[:, 3])
    told = np.stack([sensitivity, activity, satisfaction, fatigue], axis=1)
    return Users(
        taste=luck[:, len(HISTORY) :],
        sensitivity=np.asarray(sensitivity + population.drift * (when - 0.5), np.float32),
        activity=np.asarray(activity, np.float32),
        satisfaction=np.asarray(satisfaction, np.float32),
        fatigue=np.asarray(fatigue, np.float32),
        history=np.asarray(told + blur * normals(keys(key, 1), len(HISTORY)), np.float32),
    )
