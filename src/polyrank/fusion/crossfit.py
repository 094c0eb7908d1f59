"""A Q function of a policy for every step of a log, from networks that have not seen the step's session.

N steps, S sessions, D state numbers, K fusion weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyrank.files import writing
from polyrank.fusion.fqe import FQEConfig, fitted_q
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress

Act = Callable[[Rows], Rows]  # states `[B, D]` → the policy's actions `[B, K]`


@dataclass(frozen=True)
class Q:
    """A cross-fitted Q̂.

    Attributes:
        logged: `[N]` Q̂(s, a).
        target: `[N]` Q̂(s, π(s)).
        curve: `[P, 2]` training step and mean Q̂(s₀, π(s₀)) while learning without the first fold.
    """

    logged: Floats
    target: Floats
    curve: Floats


def cross_fitted(log: SessionLog, act: Act, config: FQEConfig, folds: int, progress: Progress) -> Q:
    """Q̂ of every step, by `folds` fitted Q evaluations, each on the sessions of the other folds.

    States, actions and rewards are brought to unit spread first; the values come back in the unit of the reward.

    Raises:
        TrainingDiverged: see `fitted_q`.
    """
    scaled, act, unit = unit_spread(log, act)

    def acts(z: Tensor) -> Tensor:
        return torch.from_numpy(act(z.numpy()))

    every, done = torch.from_numpy(scaled.states), torch.from_numpy(scaled.actions)
    chosen = acts(every)
    member = np.random.default_rng(config.seed).permutation(len(log.sessions)) % folds
    logged, target = np.zeros((2, len(log.rewards)))
    curve = np.zeros((0, 2))
    for fold in range(folds):
        found = fitted_q(scaled.select(member != fold), acts, replace(config, seed=config.seed + fold), progress)
        rows = np.flatnonzero((member == fold)[log.owners])
        logged[rows] = unit * found.q(every[rows], done[rows])
        target[rows] = unit * found.q(every[rows], chosen[rows])
        if not fold:
            curve = np.array(found.curve) * [1.0, unit]
    return Q(logged, target, curve)


def remembered(path: Path | None, make: Callable[[], Q]) -> Q:
    """What `make` gives; written to `path` the first time and read from there after, where there is a path."""
    if path is not None and path.exists():
        with np.load(path) as saved:
            return Q(*(saved[name] for name in ("logged", "target", "curve")))
    made = make()
    if path is not None:
        with writing(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, logged=made.logged, target=made.target, curve=made.curve)
    return made


def unit_spread(log: SessionLog, act: Act) -> tuple[SessionLog, Act, float]:
    """The log with states and actions of mean 0 and unit spread and rewards of unit spread; the policy on it; the unit.

    The unit is what a reward of 1 of that log stands for.
    """
    (m, s), (center, spread) = _scale(log.states), _scale(log.actions)
    unit = float(log.rewards.std()) or 1.0
    states, actions = ((log.states - m) / s).astype(np.float32), ((log.actions - center) / spread).astype(np.float32)

    def acts(z: Rows) -> Rows:
        return ((np.asarray(act((z * s + m).astype(np.float32))) - center) / spread).astype(np.float32)

    return replace(log, states=states, actions=actions, rewards=log.rewards / unit), acts, unit


def _scale(values: Rows) -> tuple[Floats, Floats]:
    """Mean and standard deviation `[D]`; 1 where a column never varies."""
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-6 * (1 + np.abs(mean)), std, 1.0)
