"""Sessions whose best policy is known in closed form: linear dynamics, quadratic costs, users who leave at any step.

S state numbers, K weights.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov

from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Floats, Rows

# A user drifts away from contentment (the state 0) by herself; weights steer, and cost: at once nothing pays.
_DRIFT = np.array([[0.9, 0.25, 0.0], [-0.25, 0.9, 0.1], [0.0, 0.0, 0.85]])
_STEERING = np.array([[0.5, 0.0], [0.0, 0.5], [0.25, 0.25]])


class Acts(Protocol):
    """A policy, or what acts like one."""

    def act(self, states: Rows) -> Rows:
        """`[N, S]` → `[N, K]`."""


@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """r = −sᵀ M s − aᵀ R a, s' = A s + B a + σ ε; s₀ and ε are N(0, I), and each step is the last with probability h.

    With δ = γ (1 − h) the best policy is a = −L s, L = (R + δ BᵀPB)⁻¹ δ BᵀPA, P = M + δ Aᵀ P A − δ AᵀPB L (Riccati),
    and V*(s) = −sᵀ P s − δ/(1 − δ) σ² tr P. For one step alone nothing is better than a = 0, which is also the best of
    all weights that do not follow the state: what a policy gains over it, it gains by planning for this user.

    Attributes:
        drift: A `[S, S]`.
        steering: B `[S, K]`.
        state_cost: M's diagonal, one number.
        action_cost: R's, likewise.
        noise: σ.
        leave: h.
        gamma: γ.
    """

    drift: Floats = field(default_factory=_DRIFT.copy)
    steering: Floats = field(default_factory=_STEERING.copy)
    state_cost: float = 1.0
    action_cost: float = 1.0
    noise: float = 0.3
    leave: float = 0.1
    gamma: float = 0.95

    @property
    def delta(self) -> float:
        """δ."""
        return self.gamma * (1 - self.leave)

    def best(self) -> Floats:
        """L `[K, S]`."""
        root, costs = np.sqrt(self.delta), self._costs()
        found = solve_discrete_are(root * self.drift, root * self.steering, *costs)
        carried = self.delta * self.steering.T @ found
        gain: Floats = np.linalg.solve(costs[1] + carried @ self.steering, carried @ self.drift)
        return gain

    def value(self, gain: Floats) -> float:
        """E V(s₀) of a = −L s, exactly: P = M + LᵀRL + δ (A − BL)ᵀ P (A − BL) (Lyapunov).

        Raises:
            ValueError: its costs have no end.
        """
        state_costs, action_costs = self._costs()
        closed = np.sqrt(self.delta) * (self.drift - self.steering @ gain)
        if np.abs(np.linalg.eigvals(closed)).max() >= 1:
            raise ValueError("the costs of these weights have no end")
        costs = solve_discrete_lyapunov(closed.T, state_costs + gain.T @ action_costs @ gain)
        return float(-np.trace(costs) * (1 + self.delta / (1 - self.delta) * self.noise**2))

    def _costs(self) -> tuple[Floats, Floats]:
        states, weights = self.steering.shape
        return self.state_cost * np.eye(states), self.action_cost * np.eye(weights)

    def log(self, sessions: int, *, width: float, longest: int = 40, seed: int = 0) -> SessionLog:
        """Sessions under a ~ U(−width, width), with its exact density; those of `longest` steps are cut off there."""
        rng = np.random.default_rng(seed)
        states_of, weights_of = self.steering.shape
        lengths = rng.geometric(self.leave, sessions)
        state = rng.standard_normal((sessions, states_of))
        steps = []
        for step in range(longest):
            going = np.flatnonzero(lengths > step)
            action = rng.uniform(-width, width, (len(going), weights_of)).astype(np.float32)
            now = state[going].astype(np.float32)
            reward = -self.state_cost * (now**2).sum(axis=1) - self.action_cost * (action**2).sum(axis=1)
            steps.append((going, np.full(len(going), step), now, action, reward, lengths[going] == step + 1))
            state[going] = now @ self.drift.T + action @ self.steering.T
            state[going] += self.noise * rng.standard_normal((len(going), states_of))
        who, when, states, actions, rewards, done = (np.concatenate(parts) for parts in zip(*steps, strict=True))
        order = np.lexsort((when, who))
        starts = np.append(0, np.cumsum(np.minimum(lengths, longest)))
        density = np.full(len(order), -weights_of * np.log(2 * width))
        ordered = (states[order], actions[order], density, rewards[order].astype(np.float64), done[order])
        return SessionLog(np.arange(sessions), starts, *ordered)

    def simulate(self, policy: Acts, sessions: int = 2_000, seed: int = 0) -> float:
        """Mean Σ_t δ^t r_t of a policy, until δ^t is a thousandth: the expectation over when users leave is exact.

        The same seed gives every policy the same users and the same noise.
        """
        rng = np.random.default_rng(seed)
        state, total, states_of = rng.standard_normal((sessions, len(self.drift))), 0.0, len(self.drift)
        for step in range(int(np.ceil(np.log(1e-3) / np.log(self.delta)))):
            action = policy.act(state.astype(np.float32)).astype(np.float64)
            cost = self.state_cost * (state**2).sum(axis=1) + self.action_cost * (action**2).sum(axis=1)
            total -= self.delta**step * float(cost.mean())
            state = state @ self.drift.T + action @ self.steering.T
            state += self.noise * rng.standard_normal((sessions, states_of))
        return total

    def share(self, policy: Acts, sessions: int = 2_000, seed: int = 0) -> float:
        """(V − V₀) / (V* − V₀), V₀ of a = 0, all three simulated alike: 1 is the optimum, 0 the best fixed weights."""
        values = [self.simulate(p, sessions, seed) for p in (policy, Linear(0 * self.best()), Linear(self.best()))]
        return (values[0] - values[1]) / (values[2] - values[1])

    def reached(self, policy: Acts, sessions: int = 2_000, seed: int = 0) -> float:
        """V* / V, both simulated alike: 1 is the optimum; at 0.95 the costs are those of the optimum over 0.95."""
        return self.simulate(Linear(self.best()), sessions, seed) / self.simulate(policy, sessions, seed)


class Linear:
    """a = −L s: what acts as a policy in this problem, and is never saved."""

    def __init__(self, gain: Floats) -> None:
        self.gain = gain

    def act(self, states: Rows) -> Rows:
        """`[N, S]` → `[N, K]`."""
        return np.asarray(-states @ self.gain.T)
