"""What a search maximises: a number, or one per behaviour, of an order within requests; fast, for thousands of orders.

The same metrics as `evaluation.fused.judge` gives, on rows that are sorted by request once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from polyrank.errors import DataError
from polyrank.evaluation.fused import JudgeConfig, composite_weights, valid_view
from polyrank.evaluation.requests import Requests
from polyrank.fusion import kernels
from polyrank.metrics.checks import Floats, Rows, run_starts
from polyrank.metrics.concordance import group_xauc

Goal: TypeAlias = Literal["composite", "ndcg", "mtf_gauc"]
_MANY_PAIRS = 200_000_000  # more than so many pairs of rows are not compared one by one


@dataclass(frozen=True)
class Measured:
    """One order, measured.

    Attributes:
        value: the goal.
        behaviours: GAUC (XAUC of a numeric one) of every behaviour.
    """

    value: float
    behaviours: Mapping[str, float]


class Objective:
    """The goal on some rows.

    Args:
        data: the rows.
        goal: `composite` (Σ_b v_b GAUC_b / Σ_b v_b with the judge's declared v), `ndcg` (NDCG@k of the reward), or
            `mtf_gauc` (AUC of a valid view, a row weighing its reward + 1).
        config: k, v and the valid view.

    Attributes:
        order: `[N]` the rows' permutation that puts requests together; what is measured is in this order.
        behaviours: those that count in the composite: the goals of a search for several at once.

    Raises:
        DataError: the goal is undefined: no request has rows that differ.
        ValueError: the config names what the data does not have.
    """

    def __init__(self, data: Requests, goal: Goal, config: JudgeConfig) -> None:
        self.goal: Goal = goal
        self.order = np.argsort(data.requests, kind="stable")
        requests = data.requests[self.order]
        self._starts = np.append(run_starts(requests), len(requests)).astype(np.int64)
        self._requests = requests
        self._labels = {
            name: np.ascontiguousarray(labels[self.order], np.float64) for name, labels in data.labels.items()
        }
        self._numeric = data.numeric
        self._weights = {name: weight for name, weight in composite_weights(data, config).items() if weight > 0}
        self.behaviours = list(self._weights)
        self._ones, reward = np.ones(len(requests)), data.reward[self.order]
        self._pairs = float((np.diff(self._starts).astype(np.float64) ** 2).sum())
        if goal == "ndcg":
            self._gains, self._discounts = reward.astype(np.float64), 1 / np.log2(np.arange(config.k) + 2)
            self._ideal = np.array([
                np.sort(self._gains[a:b])[::-1][: config.k] @ self._discounts[: b - a]
                for a, b in zip(self._starts[:-1], self._starts[1:], strict=True)
            ])  # fmt: skip
        elif goal == "mtf_gauc":
            self._valid, self._mass = self._labels[valid_view(data, config)], reward + 1.0
        start = self.measure(np.zeros(len(requests)))
        if not np.isfinite(start.value):
            undefined = [name for name, value in start.behaviours.items() if not np.isfinite(value)]
            raise DataError(
                f"the goal {goal} needs a request whose rows differ in it",
                received=f"{data.rows:,} rows; without such a request: {', '.join(undefined) or 'the reward'}",
                mend="give more rows or coarser requests, or leave that behaviour out of [fusion.judge] weights",
            )

    def measure(self, scores: Rows) -> Measured:
        """Measure scores `[N]`, finite, in the order of `order`."""
        scores = np.ascontiguousarray(scores, np.float64)
        order: npt.NDArray[np.int64] = np.empty(len(scores), np.int64)
        kernels.sort_requests(scores, self._starts, order)
        behaviours = {
            name: self._xauc(scores, labels)
            if name in self._numeric
            else float(kernels.mean_auc(scores, order, self._starts, labels, self._ones))
            for name, labels in self._labels.items()
        }
        if self.goal == "ndcg":
            value = kernels.mean_ndcg(scores, order, self._starts, self._gains, self._discounts, self._ideal)
        elif self.goal == "mtf_gauc":
            value = kernels.mean_auc(scores, order, self._starts, self._valid, self._mass)
        else:
            total = sum(self._weights.values())
            value = sum(weight * behaviours[name] for name, weight in self._weights.items()) / total
        return Measured(float(value), behaviours)

    def _xauc(self, scores: Floats, labels: Floats) -> float:
        if self._pairs <= _MANY_PAIRS:
            return float(kernels.mean_xauc(scores, self._starts, labels))
        mine = ~np.isnan(labels)
        return group_xauc(scores[mine], labels[mine], self._requests[mine]).mean()
