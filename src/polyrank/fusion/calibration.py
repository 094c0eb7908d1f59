"""Calibration: predictions that mean what they say, so that heads can be multiplied, added and counted.

Every method is a strictly increasing function of the prediction, fitted on validation rows of the task's own sample
space: no pair of candidates changes its order, so no AUC moves. (In float32 two predictions may round to one.)

| method | `q(p)` | source |
|---|---|---|
| `isotonic` | isotonic regression, centred | Zadrozny & Elkan, KDD 2002; Oron & Flournoy 2017 |
| `platt` | `σ(a · logit p + c)` | Platt 1999 |
| `temperature` | `σ(logit(p) / T)` | Guo et al., ICML 2017 |
| `beta` | `σ(a · ln p − b · ln(1 − p) + c)` | Kull et al., AISTATS 2017 |

Plain isotonic regression is flat on its steps, where it ties what it cannot tell apart and moves AUC by up to half of
the pairs it ties. Drawn through the middle of each step (and to 0 and 1 at the ends) it is strictly increasing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from polyrank.errors import DataError
from polyrank.evaluation.predict import ScoreTable
from polyrank.metrics.checks import Floats, Rows

Method: TypeAlias = Literal["isotonic", "platt", "temperature", "beta", "none"]
EDGE: Final = 1e-12  # logarithms see predictions within [EDGE, 1 − EDGE]
# A slope is bounded below, so that what does not rise with the label is flattened and not turned round; and above, so
# that few rows which the predictions happen to separate do not saturate every probability.
_SLOPES: Final = (1e-3, 5.0)
_INTERCEPTS: Final = (-10.0, 10.0)


@dataclass(frozen=True)
class LogOdds:
    """`σ(a · ln p − b · ln(1 − p) + c)`: temperature and Platt have a = b, temperature c = 0."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, p: Floats) -> Floats:
        """The calibrated probabilities `[N]`."""
        result: Floats = expit(_features(p) @ (self.a, self.b, self.c))
        return result


@dataclass(frozen=True)
class Knots:
    """Linear between the points `(x, y)`, both strictly ascending from 0 to 1."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, p: Floats) -> Floats:
        """The calibrated probabilities `[N]`."""
        result: Floats = np.interp(p, self.x, self.y)
        return result


@dataclass(frozen=True)
class Calibrator:
    """One task's: first the correction for down-sampled negatives, then the fitted curve.

    Attributes:
        method: how the curve was fitted.
        curve: the fitted function; None where only the sampling is corrected.
        negative_rate: r, the share of the negatives that training kept.
    """

    method: Method
    curve: LogOdds | Knots | None = None
    negative_rate: float = 1.0

    def __call__(self, p: Rows) -> Floats:
        """Calibrated probabilities `[N]` float64 of predictions `[N]` in [0, 1]."""
        corrected = undo_sampling(p, self.negative_rate)
        return corrected if self.curve is None else self.curve(corrected)


@dataclass(frozen=True)
class Calibration:
    """The calibrators of a run, by task; tasks without one keep their predictions."""

    tasks: Mapping[str, Calibrator] = field(default_factory=dict)

    def apply(self, names: tuple[str, ...], predictions: Rows) -> Rows:
        """Predictions `[N, T]` float32 of these tasks, calibrated."""
        if not self.tasks:
            return predictions
        result = predictions.copy()
        for index, name in enumerate(names):
            if name in self.tasks:
                result[:, index] = self.tasks[name](predictions[:, index])
        return result

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: {
                "method": entry.method,
                "negative_rate": entry.negative_rate,
                "curve": None if entry.curve is None else vars(entry.curve),
            }
            for name, entry in self.tasks.items()
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Self:
        """What `document` describes.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        tasks = {}
        for name, entry in document.items():
            curve = entry["curve"]
            if curve is not None:
                curve = Knots(tuple(curve["x"]), tuple(curve["y"])) if "x" in curve else LogOdds(**curve)
            tasks[name] = Calibrator(entry["method"], curve, float(entry["negative_rate"]))
        return cls(tasks)


def undo_sampling(p: Rows, negative_rate: float) -> Floats:
    """Probabilities among all rows, from a model that saw the share r of the negatives: `p / (p + (1 − p) / r)`.

    Raises:
        ValueError: r is not within (0, 1].

    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014, section 6.3.
    """
    if not 0 < negative_rate <= 1:
        raise ValueError(f"the share of negatives that was kept must be within (0, 1], got {negative_rate}")
    p = np.asarray(p, np.float64)
    return p if negative_rate == 1 else p / (p + (1 - p) / negative_rate)


def fit(table: ScoreTable, method: Method, negative_rates: Mapping[str, float] | None = None) -> Calibration:
    """Fit a calibrator for every binary task, on the task's own rows.

    Args:
        table: validation rows, with raw predictions.
        method: a key of `METHODS`, or `none` for the sampling correction alone.
        negative_rates: r of the tasks whose negatives were down-sampled in training (not in `table`).

    Raises:
        DataError: a task has no positive or no negative row.
        ValueError: a rate is not within (0, 1].
    """
    rates, tasks = negative_rates or {}, {}
    for index, task in enumerate(table.tasks):
        if task.kind != "binary":
            continue
        p, y, _ = table.rows(index)
        rate = rates.get(task.name, 1.0)
        corrected = undo_sampling(p, rate)
        if method == "none":
            if rate < 1:
                tasks[task.name] = Calibrator("none", None, rate)
            continue
        if not 0 < y.sum() < len(y):
            raise DataError(
                f"task {task.name!r} cannot be calibrated without positive and negative rows",
                received=f"{len(y):,} rows, {int(y.sum()):,} positive",
                mend="give more validation data",
            )
        tasks[task.name] = Calibrator(method, METHODS[method](corrected, y.astype(np.float64)), rate)
    return Calibration(tasks)


def _isotonic(p: Floats, y: Floats) -> Knots:
    fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(p, y)
    order = np.argsort(p, kind="stable")
    p, fitted = p[order], fitted[order]
    starts = np.flatnonzero(np.concatenate(([True], fitted[1:] != fitted[:-1])))
    counts = np.diff(starts, append=len(p))
    x, rate = np.add.reduceat(p, starts) / counts, fitted[starts]
    # A step of n rows without a positive is no evidence of 0, nor one of positives alone of 1: half a row is added.
    rate = np.clip(rate, 0.5 / (counts[0] + 1), 1 - 0.5 / (counts[-1] + 1))
    rises = np.concatenate(([True], rate[1:] > rate[:-1]))
    x, rate = x[rises], rate[rises]
    if x[0] > 0:
        x, rate = np.append(0.0, x), np.append(0.0, rate)
    if x[-1] < 1:
        x, rate = np.append(x, 1.0), np.append(rate, 1.0)
    return Knots(tuple(x.tolist()), tuple(rate.tolist()))


def _log_odds(columns: tuple[int, ...], *, smooth: bool = False) -> Callable[[Floats, Floats], LogOdds]:
    """A fit by maximum likelihood in which feature i (ln p, −ln(1 − p), 1) has the free coefficient `columns[i]`."""
    free = max(columns) + 1

    def fit_it(p: Floats, y: Floats) -> LogOdds:
        features = _features(p)
        target = y
        if smooth:  # Platt's targets: a rule of succession against over-confidence in few rows
            positives, negatives = y.sum(), len(y) - y.sum()
            target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

        def loss(theta: Floats) -> tuple[float, Floats]:
            full = np.array([theta[c] if c >= 0 else 0.0 for c in columns])
            z = features @ full
            gradient = features.T @ (expit(z) - target) / len(z)
            folded = np.zeros(free)
            for index, column in enumerate(columns):
                if column >= 0:
                    folded[column] += gradient[index]
            return float(np.mean(np.logaddexp(0, z) - target * z)), folded

        slopes = set(columns[:2])
        bounds = [_SLOPES if column in slopes else _INTERCEPTS for column in range(free)]
        start = np.array([1.0 if column in slopes else 0.0 for column in range(free)])
        theta = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-12}).x
        a, b, c = (float(theta[column]) if column >= 0 else 0.0 for column in columns)
        return LogOdds(a, b, c)

    return fit_it


def _features(p: Floats) -> Floats:
    p = np.clip(np.asarray(p, np.float64), EDGE, 1 - EDGE)
    return np.stack((np.log(p), -np.log1p(-p), np.ones(len(p))), axis=1)


METHODS: Final[Mapping[str, Callable[[Floats, Floats], LogOdds | Knots]]] = MappingProxyType(
    {
        "isotonic": _isotonic,
        "platt": _log_odds((0, 0, 1), smooth=True),
        "temperature": _log_odds((0, 0, -1)),
        "beta": _log_odds((0, 1, 2)),
    }
)
