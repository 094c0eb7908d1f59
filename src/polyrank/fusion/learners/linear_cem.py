"""An evolved linear policy: CMA-ES over its coefficients, judged by a model of returns that the log alone taught."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Interval
from cmaes import CMA

from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.learners.response import Response, features, response
from polyrank.fusion.policy import Box, Fitted, Standard
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress


@dataclass(frozen=True)
class LinearCEMConfig:
    """How it is learned.

    Attributes:
        gamma: γ.
        pessimism: what a policy gains counts less λ standard errors of that gain, and this is λ / √(its coefficients).
        ridge: of the least squares, in shares of the features' mean square.
        states: states of the log that candidates are judged on, the same ones for all.
        steps: generations of CMA-ES.
        sigma: its first step size, in half-widths of the box.
        seed: of the states and of CMA-ES.
    """

    gamma: Annotated[float, Interval(ge=0, le=1)] = 0.95
    pessimism: Annotated[float, Ge(0)] = 1.0
    ridge: Annotated[float, Gt(0)] = 1e-4
    states: Annotated[int, Gt(0)] = 4_096
    steps: Annotated[int, Gt(0)] = 300
    sigma: Annotated[float, Gt(0)] = 0.3
    seed: Annotated[int, Ge(0)] = 0


def fit(log: SessionLog, box: Box, config: LinearCEMConfig, progress: Progress) -> Fitted:
    """One step of policy improvement in the class of linear policies, from the log's mean weights π₀.

    Q̂(s, a) = f(s, a) · w, what is earned from a step on when the log's policy goes on (`response`). By CMA-ES, over
    states s of the log,

        max_θ d(θ) · w − λ √(d(θ)' Cov(w) d(θ)),  d(θ) = mean_s [f(s, π_θ(s)) − f(s, π₀(s))]:

    the gain over π₀ is linear in w, so that its standard error is known. The search takes the best of all θ, K (S + 1)
    numbers, and noise alone makes the best of so many directions √(K (S + 1)) standard errors large (Scheffé 1953): λ
    is that, times `pessimism`. With less, a policy is found better where none is. The policy cannot leave the box.

    CEM and evolution strategies over fusion weights are what RL-MTF papers compare with; there they evolve online or in
    a simulator (Pei et al. 2019; UNEX-RL and RLUR name CEM as their baseline). A log allows no rollout, so a candidate
    needs an off-policy value. Importance weighting has none to give for a deterministic policy of six or more weights,
    and fitted Q evaluation of each of thousands of candidates is out of reach. A quadratic of the weights is not: what
    they do within a box of bounded exploration is smooth, and small beside the noise of returns, so that every step of
    the log is needed to see it.

    Curve "q": (generation, Q̂ of the best policy so far over states of the log), in units of the reward.

    Source: Hansen 2016 (CMA-ES, the package `cmaes`); Brandfonbrener et al. 2021 (one step of improvement is as good as
    several, offline). The model of returns, the pessimism, and the choice of both, are ours.

    Raises:
        DataError: γ > 0, and every session was cut off.
    """
    rng = np.random.default_rng(config.seed)
    standard = Standard.of(log)
    scaled = replace(log, states=standard(log.states), actions=box.normalised(log.actions))
    judged = scaled.states[rng.choice(len(log.rewards), min(config.states, len(log.rewards)), replace=False)]
    theta = np.zeros((log.actions.shape[1], log.states.shape[1] + 1))
    theta[:, -1] = scaled.actions.mean(axis=0)
    q = response(scaled, config.gamma, config.ridge)
    origin = _mean_features(judged, theta)
    worth = _worth(q, judged, origin, config.pessimism * math.sqrt(theta.size))
    search = CMA(mean=theta.ravel(), sigma=config.sigma, seed=config.seed)
    best, best_worth = theta, 0.0
    curve: list[tuple[int, float]] = []
    with progress.bar("evolving the policy", config.steps, unit="generations") as bar:
        for generation in range(1, config.steps + 1):
            asked = [search.ask() for _ in range(search.population_size)]
            found = [worth(candidate.reshape(theta.shape)) for candidate in asked]
            search.tell([(candidate, -value) for candidate, value in zip(asked, found, strict=True)])
            if max(found) > best_worth:
                best, best_worth = asked[int(np.argmax(found))].reshape(theta.shape), max(found)
            curve.append((generation, float(_mean_features(judged, best) @ q.weights)))
            bar.advance(1)
            if search.should_stop():
                break
    coefficients = best.astype(np.float32)
    policy = LinearPolicy(standard, box, coefficients[:, -1].copy(), coefficients[:, :-1].copy())
    return Fitted(policy, {"q": curve})


def _mean_features(states: Rows, theta: Rows) -> Floats:
    coefficients = theta.astype(np.float32)
    actions = np.clip(states @ coefficients[:, :-1].T + coefficients[:, -1], -1.0, 1.0)
    found: Floats = features(states, actions).mean(axis=0, dtype=np.float64)
    return found


def _worth(q: Response, states: Rows, origin: Floats, errors: float) -> Callable[[Rows], float]:
    """θ → what it gains over the origin, less so many standard errors."""

    def worth(theta: Rows) -> float:
        gained = _mean_features(states, theta) - origin
        return float(gained @ q.weights - errors * math.sqrt(max(float(gained @ q.covariance @ gained), 0.0)))

    return worth
