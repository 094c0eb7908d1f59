"""Rows that compete for places in lists: what is predicted of each, what is known of it, and what happened."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True, eq=False)
class Requests:
    """N rows of G requests of U users.

    Attributes:
        columns: ``[N]`` by name, finite: each head's (calibrated) prediction under its task's name, and the context.
        heads: the tasks whose predictions are among the columns.
        labels: ``[N]`` by behaviour, float; NaN where the row is not of the task's sample space.
        numeric: the behaviours whose labels are numbers (watch time), not 0 and 1.
        requests: ``[N]`` int64: rows of one request are ranked against each other. No row is without one.
        users: ``[N]`` int64: a request is of one user.
        reward: ``[N]`` finite, not negative: what a row was worth; see `fusion.reward`.
        joint: ``[N]`` by head, of heads that are predicted given that others happen: the prediction times the chance
            that they do, which is what can be counted.

    Raises:
        ValueError: an array has another length, a head has no column, a row has no request, a request has two users,
            or a reward is negative or not finite.
    """

    columns: Mapping[str, Rows]
    heads: tuple[str, ...]
    labels: Mapping[str, Rows]
    numeric: frozenset[str]
    requests: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    reward: Floats
    joint: Mapping[str, Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what the type cannot say."""
        aligned = {**self.columns, **self.labels, **self.joint, "users": self.users, "reward": self.reward}
        for name, values in aligned.items():
            if np.shape(values) != (len(self.requests),):
                raise ValueError(f"{name} must have the shape ({len(self.requests)},), got {np.shape(values)}")
        for head in self.heads:
            if head not in self.columns:
                raise ValueError(f"head {head!r} must be among the columns {sorted(self.columns)}")
        if (self.requests == NO_GROUP).any():
            raise ValueError("every row must be of a request; leave the others out")
        if not np.isfinite(self.reward).all() or (self.reward < 0).any():
            raise ValueError("rewards must be finite and not negative")
        self.request_users()

    @property
    def rows(self) -> int:
        """N."""
        return len(self.requests)

    def request_users(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The distinct requests ``[G]``, ascending, and the user of each ``[G]``.

        Raises:
            ValueError: a request has two users.
        """
        distinct, first, member = np.unique(self.requests, return_index=True, return_inverse=True)
        users = np.asarray(self.users)[first]
        if (users[member] != self.users).any():
            raise ValueError("a request must be of one user: make its id of the user, the day and the page")
        return distinct, users

    def select(self, rows: Rows) -> "Requests":
        """Those rows alone: a mask ``[N]`` or positions."""
        return replace(
            self,
            columns={name: np.asarray(values)[rows] for name, values in self.columns.items()},
            labels={name: np.asarray(values)[rows] for name, values in self.labels.items()},
            requests=self.requests[rows],
            users=self.users[rows],
            reward=self.reward[rows],
            joint={name: np.asarray(values)[rows] for name, values in self.joint.items()},
        )

    def ranks_something(self) -> bool:
        """Whether a request has rows of different reward."""
        order = np.lexsort((self.reward, self.requests))
        within = self.requests[order][1:] == self.requests[order][:-1]
        return bool((within & (np.diff(self.reward[order]) > 0)).any())

    def of_size(self, least: int) -> "Requests":
        """Only requests of at least so many rows: shorter ones hardly tell two rankings apart."""
        _, member, counts = np.unique(self.requests, return_inverse=True, return_counts=True)
        return self.select(counts[member] >= least)

    def split(self, share: float, seed: int = 0) -> tuple["Requests", "Requests"]:
        """Two parts without a common user: at random, about `share` of the users in the first."""
        distinct = np.unique(self.users)
        first = np.random.default_rng(seed).permutation(len(distinct)) < round(share * len(distinct))
        mine = first[np.searchsorted(distinct, self.users)]
        return self.select(mine), self.select(~mine)


def request_ids(*columns: Rows) -> npt.NDArray[np.int64]:
    """An id ``[N]`` for each distinct combination of the columns ``[N]`` (user, day, page), of any types."""
    ids = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, codes = np.unique(np.asarray(column), return_inverse=True)
        _, ids = np.unique(ids * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    return ids.astype(np.int64)
