"""An evolved linear policy: CMA-ES over its coefficients, judged by a Q that the log alone taught."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from cmaes import CMA
from torch import Tensor

from polyrank.fusion.fqe import FQE, FQEConfig, fitted_q
from polyrank.fusion.learners.linear import LinearPolicy
from polyrank.fusion.policy import Box, Fitted, Standard
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows
from polyrank.progress import Progress


@dataclass(frozen=True)
class LinearCEMConfig:
    """How it is learned.

    Attributes:
        gamma: γ.
        rounds: of evaluating the policy and improving on it. 1: a single improvement on the log's mean weights.
        critics: Q functions a round; they differ in seed.
        pessimism: λ: a candidate is worth the mean of the critics less λ times their standard deviation.
        hidden: the layers of a critic.
        steps: training steps of a critic.
        learning_rate: of a critic, Adam's.
        batch_size: steps of the log a training step.
        averaging: τ: a critic's target network moves by this share of the difference after each step.
        states: states of the log that candidates are judged on, the same ones for all.
        generations: of CMA-ES a round.
        sigma: its first step size, in half-widths of the box.
        seed: of everything.
    """

    gamma: Annotated[float, Interval(ge=0, lt=1)] = 0.95
    rounds: Annotated[int, Gt(0)] = 2
    critics: Annotated[int, Gt(0)] = 2
    pessimism: Annotated[float, Ge(0)] = 1.0
    hidden: tuple[Annotated[int, Gt(0)], ...] = (64, 64)
    steps: Annotated[int, Gt(0)] = 3_000
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    batch_size: Annotated[int, Gt(0)] = 512
    averaging: Annotated[float, Interval(gt=0, le=1)] = 0.01
    states: Annotated[int, Gt(0)] = 1_024
    generations: Annotated[int, Gt(0)] = 150
    sigma: Annotated[float, Gt(0)] = 0.3
    seed: Annotated[int, Ge(0)] = 0


def fit(log: SessionLog, box: Box, config: LinearCEMConfig, progress: Progress) -> Fitted:
    """Approximate policy iteration in the class of linear policies.

    From π₀ = the log's mean weights: Q_i = fitted Q evaluation of π_i; then by CMA-ES, with s drawn from the log,
    π_{i+1} = argmax_θ mean_s [mean_m Q_i^m(s, π_θ(s)) − λ std_m Q_i^m(s, π_θ(s))].

    CEM and evolution strategies over fusion weights are what RL-MTF papers compare with; there they evolve online or in
    a simulator (Pei et al. 2019; UNEX-RL and RLUR name CEM as their baseline). A log allows no rollout, so a candidate
    needs an off-policy value. Importance weighting has none to give for a deterministic policy in 6 or more dimensions;
    FQE for each of thousands of candidates is out of reach. Hence Q of the current policy, evaluated once a round and
    improved upon greedily: it is right for small moves, and `rounds` makes several. The policy cannot leave the box,
    within which Q interpolates what the log shows.

    Source: Hansen 2016 (CMA-ES, the package `cmaes`); Le, Voloshin, Yue 2019 (FQE).

    Raises:
        TrainingDiverged: a critic's Q runs away.
    """
    rng = np.random.default_rng(config.seed)
    standard = Standard.of(log)
    scaled = replace(log, states=standard(log.states), actions=box.normalised(log.actions))
    weights, numbers = log.actions.shape[1], log.states.shape[1]
    chosen = rng.choice(len(log.rewards), min(config.states, len(log.rewards)), replace=False)
    judged = torch.from_numpy(scaled.states[chosen])
    theta = np.zeros((weights, numbers + 1))
    theta[:, -1] = scaled.actions.mean(axis=0)
    curve: list[tuple[int, float]] = []
    for turn in range(config.rounds):
        critics = []
        for critic in range(config.critics):
            seed = int(rng.integers(2**31))
            q = FQEConfig(
                config.gamma, config.hidden, config.learning_rate, config.batch_size, config.steps, config.averaging,
                seed=seed,
            )  # fmt: skip
            critics.append(fitted_q(scaled, _linear(theta), q, progress))
            if critic == 0:
                curve += [(turn * config.steps + step, value) for step, value in critics[0].curve]
        theta = _evolved(theta, _worth(critics, judged, config.pessimism), config, int(rng.integers(2**31)), progress)
    coefficients = theta.astype(np.float32)
    policy = LinearPolicy(standard, box, coefficients[:, -1].copy(), coefficients[:, :-1].copy())
    return Fitted(policy, {"q": curve})


def _linear(theta: Rows) -> Callable[[Tensor], Tensor]:
    coefficients = torch.from_numpy(theta.astype(np.float32))

    def act(states: Tensor) -> Tensor:
        return (states @ coefficients[:, :-1].T + coefficients[:, -1]).clamp(-1.0, 1.0)

    return act


def _worth(critics: list[FQE], states: Tensor, pessimism: float) -> Callable[[Rows], float]:
    """θ → mean over the states of the critics' lower bound."""

    def worth(theta: Rows) -> float:
        actions = _linear(theta)(states)
        q: Floats = np.stack([critic.q(states, actions) for critic in critics])
        return float((q.mean(axis=0) - pessimism * q.std(axis=0)).mean())

    return worth


def _evolved(
    theta: Floats, worth: Callable[[Rows], float], config: LinearCEMConfig, seed: int, progress: Progress
) -> Floats:
    """The best θ that CMA-ES meets, starting from one."""
    search = CMA(mean=theta.ravel(), sigma=config.sigma, seed=seed)
    best, best_worth = theta, worth(theta)
    with progress.bar("evolving the policy", config.generations, unit="generations") as bar:
        for _ in range(config.generations):
            told = []
            for _ in range(search.population_size):
                candidate = search.ask()
                found = worth(candidate.reshape(theta.shape))
                told.append((candidate, -found))
                if found > best_worth:
                    best, best_worth = candidate.reshape(theta.shape), found
            search.tell(told)
            bar.advance(1)
            if search.should_stop():
                break
    return best
