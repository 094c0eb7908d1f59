"""The sessions as a Gymnasium environment, for learners that act and see what comes of it (extra `rl`).

E sessions side by side, S state numbers, K fusion weights.
"""

from typing import Any

import numpy as np

from polyrank.errors import RunFailed
from polyrank.metrics.checks import Rows
from polyrank.simulator.behaviours import BEHAVIOURS
from polyrank.simulator.sessions import STATE, Crowd, Outcome
from polyrank.simulator.world import MOST, World

try:
    from gymnasium import spaces
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise RunFailed(
        "the environment needs the package gymnasium", received=str(error), mend="pip install 'polyrank[rl]'"
    ) from error


class SessionsEnv(VectorEnv):
    """Requests of E sessions at a time: observations are states `[E, S]`, actions fusion weights `[E, K]`.

    A session that has ended (terminated; none is cut off) is replaced by the next one in the following step, which
    ignores that session's action and rewards it with 0: Gymnasium's `NEXT_STEP`. `infos` holds the signals of a log,
    `[E]` each: what was watched, liked …, and of a last request `return` and `next_dwell`.

    Sessions are those of `simulate` under the same seed: the session of id i is the same one here and there, whatever
    is done to it.

    Args:
        world: where.
        num_envs: E.
        span: how many sessions the days of a drift hold; what comes after them comes on the last day.

    Raises:
        RunFailed: at import, where the package gymnasium is missing.
    """

    def __init__(self, world: World, num_envs: int = 1_024, span: int = 200_000) -> None:
        self.world, self.num_envs, self.span = world, num_envs, span
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (len(STATE),), np.float32)
        self.single_action_space = spaces.Box(-MOST, MOST, (len(world.heads),), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all, self._next, self._seed = np.arange(num_envs), 0, -1
        self._crowd: Crowd | None = None
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Rows, dict[str, Any]]:
        """Begin E sessions: those of the ids from 0 under a seed, or without one the next under the last seed."""
        super().reset(seed=seed)
        if seed is not None or self._crowd is None:
            self._seed, self._next = int(self.np_random.integers(2**31)) if seed is None else seed, 0
        ids, when = self._called(self.num_envs)
        self._crowd = Crowd(self.world, self._seed, ids, when)
        self._ended[:] = False
        return self._crowd.states(self._all), {}

    def step(self, actions: Rows) -> tuple[Rows, Rows, Rows, Rows, dict[str, Any]]:
        """One request of every session that goes on, a new session for every one that has ended.

        Returns:
            States, rewards (float64), which sessions terminated, which were cut off (none), signals.

        Raises:
            ValueError: the weights are not `[E, K]` and finite, or there was no reset.
        """
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape or not np.isfinite(actions).all():
            raise ValueError(f"actions must be finite, of the shape {self.action_space.shape}, got {actions.shape}")
        if self._crowd is None:
            raise ValueError("an environment must be reset before its first step")
        rows = np.flatnonzero(~self._ended)
        outcome = self._crowd.act(rows, actions[rows])
        begun = np.flatnonzero(self._ended)
        self._crowd.begin(begun, *self._called(len(begun)))
        self._ended[:] = False
        self._ended[rows] = outcome.left
        rewards = np.zeros(self.num_envs)
        rewards[rows] = outcome.rewards
        states = self._crowd.states(self._all)
        return states, rewards, self._ended.copy(), np.zeros(self.num_envs, np.bool_), self._told(rows, outcome)

    def _called(self, sessions: int) -> tuple[Rows, Rows]:
        ids = self._next + np.arange(sessions)
        self._next += sessions
        return ids, np.minimum(ids / max(self.span - 1, 1), 1)

    def _told(self, rows: Rows, outcome: Outcome) -> dict[str, Any]:
        told = dict(zip(BEHAVIOURS, outcome.happened, strict=True))
        told |= {"return": outcome.returned, "next_dwell": outcome.dwell}
        infos = {name: np.zeros(self.num_envs, np.float32) for name in told}
        for name, values in told.items():
            infos[name][rows] = values
        return infos
