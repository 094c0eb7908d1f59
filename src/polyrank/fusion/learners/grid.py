"""A policy that takes the cell of a grid of weights with the best scalarised Q.

N states, G cells, K weights, C components of Q.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from polyrank.evaluation.pareto import non_dominated
from polyrank.fusion.learners.linear import scale_arrays, scales
from polyrank.fusion.policy import Box, Policy, Standard, frozen
from polyrank.metrics.checks import Floats, Rows

_BLOCK = 1 << 16  # rows of the network at a time


@dataclass(frozen=True, eq=False)
class GridPolicy(Policy):
    """`w(s) = argmax_{w ∈ grid} Σ_c α_c Q_c(s, w)`; α may be changed after learning, without learning anew.

    Attributes:
        standard: of the log.
        box: of the log.
        grid: `[G, K]` the weights to choose from, normalised to the box.
        layers: (matrix `[in, out]`, bias `[out]`) of the network `[s̃, w] → Q`, ReLU between them.
        components: names of what Q predicts.
        alpha: `[C]`.
    """

    kind = "grid"
    standard: Standard
    box: Box
    grid: Rows
    layers: tuple[tuple[Rows, Rows], ...]
    components: tuple[str, ...]
    alpha: Rows

    def __post_init__(self) -> None:
        alpha = np.array(self.alpha, np.float32)
        if alpha.shape != (len(self.components),) or not np.isfinite(alpha).all() or not alpha.any():
            raise ValueError(f"alpha must be a number for each of {list(self.components)}, not all 0, got {self.alpha}")
        object.__setattr__(self, "alpha", alpha)

    def scalarised(self, alpha: Rows) -> "GridPolicy":
        """Another operating point of the same Q."""
        return replace(self, alpha=alpha)

    def q(self, states: Rows, actions: Rows) -> Rows:
        """Q of every state with every action: `[N, S]` and normalised `[A, K]` → `[N, A, C]`."""
        scaled = self.standard(states)
        (first, bias), *others = self.layers
        of_state, of_action = scaled @ first[: scaled.shape[1]], actions @ first[scaled.shape[1] :] + bias
        out = np.empty((len(states), len(actions), len(self.components)), np.float32)
        rows = max(1, _BLOCK // len(actions))
        for begin in range(0, len(states), rows):
            x = of_state[begin : begin + rows, None] + of_action
            for matrix, shift in others:
                x = np.maximum(x, 0) @ matrix + shift
            out[begin : begin + rows] = x
        return out

    def chosen(self, states: Rows) -> Rows:
        """`[N]` the cell of each state."""
        found: Rows = (self.q(states, self.grid) @ self.alpha).argmax(axis=1)
        return found

    def act(self, states: Rows) -> Rows:
        """See `Policy`."""
        return self.box.weights(self.grid[self.chosen(states)])

    def arrays(self) -> Mapping[str, Rows]:
        """See `Policy`."""
        parts = {
            f"{name}.{k}": part for k, layer in enumerate(self.layers) for name, part in zip("wb", layer, strict=True)
        }
        return {"grid": self.grid, "alpha": self.alpha, **parts, **scale_arrays(self.standard, self.box)}

    def document(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"components": list(self.components), "layers": len(self.layers)}

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, Rows]) -> Self:
        """See `Policy`."""
        layers = tuple((arrays[f"w.{k}"], arrays[f"b.{k}"]) for k in range(document["layers"]))
        return cls(*scales(arrays), arrays["grid"], layers, tuple(document["components"]), arrays["alpha"])


def operating_points(policy: GridPolicy, states: Rows, alphas: Rows) -> list[dict[str, Any]]:
    """What each scalarisation would bring by the policy's own Q, beside its matched static formula.

    PRL-PUTS sweeps 25 values of a share α between two components, keeps the points that no other dominates, and takes
    to an online test only those that harm no component. The predictions are of the Q that also chose: they flatter; the
    off-policy estimators judge the points that are kept.

    Args:
        policy: any operating point of it.
        states: `[N, S]` of a log.
        alphas: `[P, C]`, `shares` for instance.

    Returns:
        JSON-ready, a row for each point: `alpha`; `predicted` → component → mean Q_c of the policy, and `static` the
        same of its mean weights; `front`: whether no other point is as good in all components and better in one.
    """
    names, rows = policy.components, []
    for alpha in alphas:
        point = policy.scalarised(alpha)
        q = point.q(states, point.grid)
        own = q[np.arange(len(q)), (q @ point.alpha).argmax(axis=1)].mean(axis=0, dtype=np.float64)
        fixed = point.box.normalised(frozen(point, states).weights[None])
        static = point.q(states, fixed)[:, 0].mean(axis=0, dtype=np.float64)
        predicted, matched = (dict(zip(names, value.tolist(), strict=True)) for value in (own, static))
        rows.append({"alpha": np.asarray(alpha, float).tolist(), "predicted": predicted, "static": matched})
    best = non_dominated([list(row["predicted"].values()) for row in rows])
    return [row | {"front": bool(kept)} for row, kept in zip(rows, best, strict=True)]


def shares(components: int, one: int, other: int, points: int = 25) -> Floats:
    """`[points, components]`: α from all weight on one component to all on the other, in even steps."""
    found = np.zeros((points, components))
    found[:, other] = np.linspace(0, 1, points)
    found[:, one] = 1 - found[:, other]
    return found
