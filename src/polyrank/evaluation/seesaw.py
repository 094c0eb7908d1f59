"""Who paid for whose gain: multi-task models against references, task by task, with intervals.

All models are judged on the same test rows, which selected nothing. A multi-task model and the single-task model of
the same seed form a pair; d_s is the difference of their metric on all rows, Δ = mean over seeds of d_s. Two things
make Δ uncertain: which users (groups) are in the test data, and the randomness of training. The first is measured by a
bootstrap over groups in which every model sees the same resample (σ_b, the standard deviation of Δ over the
replicates), the second by the spread over seeds (σ_s, the standard deviation of d_s). The interval is

    Δ ± t · √(σ_b² + σ_s² / S),  t the quantile of Student's distribution with Welch–Satterthwaite degrees of freedom.

With one seed the second part is not known, and the interval is too narrow: the report says so. The verdict is *gain*
where the whole interval lies above 0, *loss* where it lies below, else *tie*: no difference could be shown.

A verdict needs evidence. There is no interval, and the verdict is *tie*, where a class is held by fewer than 10 groups
(rows, where there are no groups), where the metric is undefined on more than 10 % of the replicates, or where nothing
varies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.special import stdtrit

from polyrank.data.groups import NO_GROUP
from polyrank.metrics.bootstrap import bootstrap_values
from polyrank.metrics.ranking import AucSweep, xauc
from polyrank.progress import Bar

Verdict = Literal["gain", "loss", "tie"]
PAIRS = 1_000_000
GROUPS = 10  # that must hold a class; on fewer a bootstrap knows little of how groups differ
FINITE = 0.9  # the share of replicates on which the metric must be defined
ROUNDING = 1e-12  # a standard error below is none: replicates that are equal but for rounding


@dataclass(frozen=True)
class Difference:
    """Δ of a metric with its interval (None where there is too little evidence for one), and the verdict."""

    mean: float
    low: float | None
    high: float | None
    verdict: Verdict


class Sweep(Protocol):
    """A metric of fixed predictions under changing row weights."""

    def value(self, weights: np.ndarray | None = None) -> float:
        """The metric; None weighs every row 1."""


class XaucSweep:
    """XAUC under row weights: exact without weights, over a million random pairs of rows with them.

    The pairs are the same for all models of a task (they depend on `labels` alone), so that differences are paired.

    Args:
        predictions: `[N]`.
        labels: `[N]`.
    """

    def __init__(self, predictions: np.ndarray, labels: np.ndarray) -> None:
        self.predictions, self.labels = predictions, labels
        draws = np.random.default_rng(0).integers(0, max(1, len(labels)), (2, PAIRS if len(labels) else 0))
        first, second = draws[:, labels[draws[0]] > labels[draws[1]]]
        self.first, self.second = first, second
        self.right = np.where(
            predictions[first] == predictions[second],
            0.5,
            (predictions[first] > predictions[second]).astype(np.float64),
        )

    def value(self, weights: np.ndarray | None = None) -> float:
        """See `Sweep`."""
        if weights is None:
            return float(xauc(self.predictions, self.labels))
        pairs = weights[self.first] * weights[self.second]
        total = pairs.sum()
        return float((pairs * self.right).sum() / total) if total > 0 else float("nan")


def sweep(kind: str, predictions: np.ndarray, labels: np.ndarray) -> Sweep:
    """The ranking metric of a task of this kind: AUC for binary, XAUC for regression."""
    return AucSweep(predictions, labels) if kind == "binary" else XaucSweep(predictions, labels)


def lack(kind: str, labels: np.ndarray, groups: np.ndarray | None) -> str:
    """What a task's rows `[N]` lack to be judged on, in words; empty where there is enough.

    A binary task needs 10 groups that hold positives and 10 that hold negatives, any other task 10 groups. A row
    without a group is one by itself, as it is in the bootstrap; so is every row where `groups` is None.
    """
    classes = {"positives": labels == 1, "negatives": labels == 0}
    if kind != "binary":
        classes = {"its rows": np.ones(len(labels), bool)}
    unit = "rows" if groups is None else "groups"
    for name, where in classes.items():
        alone = where if groups is None else where & (groups == NO_GROUP)
        found = int(alone.sum()) + (0 if groups is None else len(np.unique(groups[where & ~alone])))
        if found < GROUPS:
            return f"{found} test {unit} hold {name}, {GROUPS} are needed"
    return ""


def differences(
    models: Mapping[str, Sequence[Sweep]],
    references: Mapping[str, Sequence[Sweep]],
    groups: np.ndarray | None,
    rows: int,
    *,
    replicates: int,
    level: float,
    seed: int = 0,
    bar: Bar | None = None,
) -> dict[str, dict[str, Difference]]:
    """Every model against every reference on one task.

    Args:
        models: each model's sweeps, one a seed.
        references: each reference's sweeps: one a seed, in the models' order, or a single one for all seeds.
        groups: `[N]` group of each row; None resamples rows.
        rows: N.
        replicates: bootstrap replicates; 0 where the rows cannot bear a verdict (see `lack`).
        level: coverage.
        seed: of the bootstrap.
        bar: is advanced by 1 a replicate.

    Returns:
        model → reference → difference.
    """
    names = [*models, *references]
    sweeps = [*models.values(), *references.values()]
    points = {name: np.array([s.value() for s in group]) for name, group in zip(names, sweeps, strict=True)}

    def means(weights: np.ndarray) -> np.ndarray:
        if bar is not None:
            bar.advance(1)
        return np.array([np.mean([s.value(weights) for s in group]) for group in sweeps])

    values = np.zeros((0, len(names)))  # [R, models + references]
    if replicates:
        values = bootstrap_values(means, groups, rows, replicates=replicates, seed=seed)
    drawn = dict(zip(names, values.T, strict=True))
    return {
        model: {
            reference: difference(points[model] - points[reference], drawn[model] - drawn[reference], level)
            for reference in references
        }
        for model in models
    }


def difference(by_seed: np.ndarray, by_replicate: np.ndarray, level: float) -> Difference:
    """Δ, its interval and the verdict from d_s `[S]` and the bootstrap's Δ `[R]` (see the head of this file)."""
    mean = float(np.mean(by_seed))
    replicates = by_replicate[np.isfinite(by_replicate)]
    if not np.isfinite(mean) or len(replicates) < max(2.0, FINITE * len(by_replicate)):
        return Difference(mean, None, None, "tie")
    seeds = len(by_seed)
    from_rows = float(np.var(replicates, ddof=1))
    from_seeds = float(np.var(by_seed, ddof=1)) / seeds if seeds > 1 else 0.0
    total = from_rows + from_seeds
    if total < ROUNDING**2:
        return Difference(mean, None, None, "tie")
    freedom = total**2 / (from_rows**2 / (len(replicates) - 1) + (from_seeds**2 / (seeds - 1) if from_seeds else 0.0))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * total**0.5
    return Difference(mean, mean - half, mean + half, verdict(mean - half, mean + half))


def verdict(low: float, high: float) -> Verdict:
    """`gain` above 0, `loss` below, `tie` where the interval holds 0."""
    if low > 0:
        return "gain"
    return "loss" if high < 0 else "tie"
