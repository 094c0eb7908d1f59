"""Policies: a state → the fusion weights; and their form on disk, `policy.json` and `policy.safetensors`.

N states of S numbers, K fusion weights: the score of an item is Σ_k w_k · g_k(p_k), and w is the action.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from polyrank.errors import RunError
from polyrank.files import read_json
from polyrank.fusion.saved import read_saved, write_saved
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.checks import Rows
from polyrank.progress import Progress

FILE, POLICY = "policy.json", "policy"


class Policy(ABC):
    """Chooses the fusion weights of a request by its state; immutable, and draws no random numbers.

    Attributes:
        kind: its key in `POLICIES` (`fusion/policies.py`), by which a saved one is read back.
    """

    kind: ClassVar[str]

    @abstractmethod
    def act(self, states: Rows) -> Rows:
        """`[N, S]` finite states → `[N, K]` float32 weights.

        Raises:
            ValueError: the states are not of the shape that it learned from, or not finite.
        """

    @abstractmethod
    def arrays(self) -> Mapping[str, Rows]:
        """Its arrays by name, for safetensors."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """All of it but its arrays, for JSON."""

    @classmethod
    @abstractmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """What `document` and `arrays` describe.

        Raises:
            ValueError, KeyError, TypeError: they describe none.
        """


@dataclass(frozen=True, eq=False)
class StaticPolicy(Policy):
    """The same weights `[K]` in every state: a formula."""

    kind = "static"
    weights: Rows

    def __post_init__(self) -> None:
        weights = np.array(self.weights, np.float32)
        if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all():
            raise ValueError(f"weights must be finite, of the shape [K], got {self.weights}")
        object.__setattr__(self, "weights", weights)

    def act(self, states: Rows) -> Rows:
        """`[N, S]` states, of any S → `[N, K]`."""
        return np.tile(self.weights, (len(states), 1))

    def arrays(self) -> dict[str, Rows]:
        """The weights."""
        return {"weights": self.weights}

    def document(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """See `Policy`."""
        return cls(arrays["weights"])


def frozen(policy: Policy, states: Rows) -> StaticPolicy:
    """Its matched static formula: its mean weights over the states `[N, S]` of a log.

    What a policy gains over it is gained by following the state; the rest a better formula would gain too.
    """
    return StaticPolicy(np.asarray(policy.act(states).mean(axis=0, dtype=np.float64)))


@dataclass(frozen=True, eq=False)
class Box:
    """The weights `[K]` that a log explored: from `low` to `high`. Learners know nothing of what lies outside.

    Raises:
        ValueError: they are not finite and of one shape, or a low is above its high.
    """

    low: Rows
    high: Rows

    def __post_init__(self) -> None:
        low, high = (np.array(side, np.float32) for side in (self.low, self.high))
        if low.ndim != 1 or low.shape != high.shape or not np.isfinite([low, high]).all() or (low > high).any():
            raise ValueError(f"a box must be finite, [K] low ≤ [K] high, got {self.low} and {self.high}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @classmethod
    def of(cls, log: SessionLog) -> Self:
        """The range of a log's actions."""
        return cls(log.actions.min(axis=0), log.actions.max(axis=0))

    @property
    def centre(self) -> Rows:
        """`[K]`."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> Rows:
        """`[K]` half of the width."""
        return (self.high - self.low) / 2

    def clip(self, actions: Rows) -> Rows:
        """`[N, K]` → the nearest inside."""
        return np.clip(actions, self.low, self.high)

    def outside(self, actions: Rows, tolerance: float = 1e-5) -> Rows:
        """`[N]` bool: by more than `tolerance` half-widths, which is what float32 may blur."""
        beyond = np.abs(np.asarray(actions, np.float64) - self.centre) - self.half
        slack = tolerance * np.maximum(self.half, np.abs(self.centre))
        return np.asarray((beyond > slack).any(axis=1))

    def normalised(self, actions: Rows) -> Rows:
        """`[N, K]` → [−1, 1] inside the box; 0 for a weight that never varied."""
        return np.asarray((actions - self.centre) / np.where(self.half > 0, self.half, 1), np.float32)

    def weights(self, normalised: Rows) -> Rows:
        """What `normalised` undoes."""
        return np.asarray(self.centre + normalised * self.half, np.float32)


@dataclass(frozen=True, eq=False)
class Standard:
    """Standardises states by a log's mean and standard deviation `[S]`; what never varied becomes 0."""

    mean: Rows
    deviation: Rows

    @classmethod
    def of(cls, log: SessionLog) -> Self:
        """Those of a log."""
        states = log.states.astype(np.float64)
        mean, deviation = states.mean(axis=0), states.std(axis=0)
        varied = np.where(deviation > 1e-6 * np.abs(mean), deviation, 0)
        return cls(mean.astype(np.float32), varied.astype(np.float32))

    def __call__(self, states: Rows) -> Rows:
        """`[N, S]` → `[N, S]` float32.

        Raises:
            ValueError: the states are not `[N, S]` and finite.
        """
        states = np.asarray(states, np.float32)
        if states.ndim != 2 or states.shape[1] != len(self.mean):
            raise ValueError(f"states must have the shape [N, {len(self.mean)}], got {states.shape}")
        if not np.isfinite(states).all():
            raise ValueError("states must be finite")
        divisor = np.where(self.deviation > 0, self.deviation, np.inf)
        return np.asarray((states - self.mean) / divisor, np.float32)


@dataclass(frozen=True)
class Fitted:
    """What fitting gives.

    Attributes:
        policy: the policy.
        curves: (training step, value) by name while learning; "q": mean Q(s₀, π(s₀)) in units of the reward, whose
            running away is the first sign of a policy that believes what no log shows.
    """

    policy: Policy
    curves: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A learner, as `METHODS` (`fusion/methods.py`) lists it.

    Attributes:
        config: its frozen dataclass of knobs.
        fit: (log, box, config, progress) → `Fitted`. Raises `TrainingDiverged`.
    """

    config: type
    fit: Callable[[SessionLog, Box, Any, Progress], Fitted]


def save_policy(policy: Policy, directory: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write a policy into a directory, over an earlier one, with what should be known of it (`load_facts`).

    Raises:
        StorageError: it cannot be written.
    """
    document = {"facts": dict(facts or {}), "policy": policy.document()}
    write_saved("policy", policy.kind, document, policy.arrays(), directory)


def policy_in(directory: Path) -> Path:
    """The directory of a policy, itself or `policy/` in it, where `polyrank fuse rl` puts it.

    Raises:
        RunError: neither holds one.
    """
    for place in (directory, directory / POLICY):
        if (place / FILE).exists():
            return place
    raise RunError(
        "a policy must be a directory that polyrank fuse rl or save_policy wrote",
        received=f"{directory}: " + (f"no {FILE} in it" if directory.is_dir() else "no such directory"),
        mend="check the path",
    )


def load_policy(directory: Path) -> Policy:
    """Read what `save_policy` wrote.

    Raises:
        RunError: it is missing, damaged, or of another format.
    """
    from polyrank.fusion.policies import POLICIES  # those are subclasses of what is here

    return read_saved("policy", POLICIES, lambda kind, found, arrays: kind.restore(found["policy"], arrays), directory)


def load_facts(directory: Path) -> dict[str, Any]:
    """What was saved as known of a policy: how it was fitted, the reward, the box.

    Raises:
        RunError: it is missing or damaged.
    """
    facts: dict[str, Any] = read_json(directory / FILE).get("facts", {})
    return facts
