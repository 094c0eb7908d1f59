"""What every metric asks of its arrays, and the names of their types.

Every metric takes 1-d arrays with one entry per row and computes in float64, or in integers where the answer is a count
of pairs. A metric that its rows leave undefined (no row, one class) is ``nan``. Arrays that break a rule (another
length, a score that is not finite, a binary label other than 0 or 1) raise ``ValueError``. A row whose label is missing
is not a row of this task: leave it out first.
"""

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[Any]  # [N], of any real type
Floats: TypeAlias = npt.NDArray[np.float64]


def common_length(*columns: Rows) -> int:
    """N, of columns ``[N]``; ``ValueError`` unless every column is 1-d and as long as the others."""
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 1:
        raise ValueError(f"every array must be 1-d and of one length, got {[column.shape for column in columns]}")
    return len(columns[0])


def as_finite(values: Rows, name: str) -> Rows:
    """``values`` as an array of floats; ``ValueError`` if one is not finite."""
    # A float type is kept: widening changes no order, and float32 sorts faster.
    values = np.asarray(values)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def is_positive(labels: Rows) -> npt.NDArray[np.bool_]:
    """Which labels are 1; ``ValueError`` if one is neither 0 nor 1."""
    labels = np.asarray(labels)
    positive: npt.NDArray[np.bool_] = labels == 1
    if not (positive | (labels == 0)).all():
        raise ValueError(f"labels must be 0 or 1, got {labels[~positive & (labels != 0)][0]}; leave missing labels out")
    return positive


def as_probabilities(probabilities: Rows) -> Floats:
    """``probabilities`` in float64; ``ValueError`` if one is outside [0, 1]."""
    probabilities = as_finite(probabilities, "probabilities").astype(np.float64)
    if len(probabilities) and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError(f"probabilities must lie in [0, 1], got {probabilities.min()} to {probabilities.max()}")
    return probabilities


def as_weights(weights: Rows, rows: int) -> Rows:
    """``weights`` ``[rows]`` in int64 or float64; ``ValueError`` if one is not finite, negative or missing."""
    weights = np.asarray(weights)
    weights = weights.astype(np.float64 if weights.dtype.kind == "f" else np.int64, copy=False)
    if weights.shape != (rows,):
        raise ValueError(f"weights must have the shape ({rows},), got {weights.shape}")
    # A nan fails the comparison, too.
    if rows and not (weights.min() >= 0 and weights.max() < math.inf):
        raise ValueError(f"weights must be finite and not negative, got {weights.min()} to {weights.max()}")
    return weights


def run_starts(*columns: Rows) -> npt.NDArray[np.intp]:
    """Where a run of equal rows begins, in columns sorted together."""
    changed = np.ones(len(columns[0]), dtype=np.bool_)
    if len(changed):
        changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(changed)


def run_sums(values: Rows, starts: npt.NDArray[np.intp]) -> Rows:
    """The sum of each run; numpy's ``reduceat`` alone fails where there is none."""
    return np.add.reduceat(values, starts) if len(starts) else values[:0]
