"""Several objectives at once: which points nothing dominates, and how much a set of points dominates together.

All objectives are maximised. A point dominates another where it is at least as good in every objective and better in
one. The hypervolume of points P against a reference point r is the volume of all that they dominate down to r,

    HV(P, r) = λ( ∪_{p ∈ P} [r_1, p_1] × … × [r_M, p_M] ):

it grows with every point that nothing dominates, whatever the shape of the front (Zitzler & Thiele 1999).

It is exact in any number of dimensions, by the recursion of WFG (While, Bradstreet & Barone 2012, "A Fast Way of
Calculating Exact Hypervolumes"): with points in ascending order of the last objective, a point adds its own box less
what later points cover of it; as each of these reaches further in the last objective, what they cover is a volume of
M − 1 dimensions times the point's extent in the last. The recursion ends in a sweep of two dimensions. The cost is
O(N log N) for M = 2, O(N² log N) for M = 3, and grows by a factor of up to N with each dimension more. (Optuna has an
equal under private names only.)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Front:
    """Points `[N, M]` judged together.

    Attributes:
        members: `[N]` nothing dominates the point.
        reference: `[M]` what the volume is measured from.
        volume: the hypervolume of all points.
        shares: `[N]` the share of the volume that would be lost without the point; of equal points neither is missed.
    """

    members: Mask
    reference: Values
    volume: float
    shares: Values


def non_dominated(values: npt.ArrayLike) -> Mask:
    """`[N]`, true where no other point dominates it; equal points do not dominate each other.

    Args:
        values: `[N, M]`, larger is better. A point with a value that is not finite (NaN: it could not be measured)
            takes no part: it is not on the front and dominates nothing.

    Raises:
        ValueError: `values` is not 2-d.
    """
    points = _points(values)
    alive = np.flatnonzero(np.isfinite(points).all(axis=1))
    # From the largest sum on: a point that is reached was dominated by nobody before it, nor can be by who comes after.
    alive = alive[np.argsort(-points[alive].sum(axis=1), kind="stable")]
    place = 0
    while place < len(alive):
        rest, here = points[alive], points[alive[place]]
        kept = (rest > here).any(axis=1) | (rest == here).all(axis=1)
        place = int(kept[:place].sum()) + 1
        alive = alive[kept]
    members = np.zeros(len(points), np.bool_)
    members[alive] = True
    return members


def hypervolume(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """The volume of what points `[N, M]` dominate down to `reference` `[M]`, in the product of the objectives' units.

    A point that is not better than the reference in every objective adds nothing, nor does one that is not finite.

    Raises:
        ValueError: the shapes do not fit, or the reference is not finite.
    """
    points, corner = _points(values), np.asarray(reference, np.float64)
    if corner.shape != points.shape[1:] or not np.isfinite(corner).all():
        raise ValueError(f"reference must be {points.shape[1]} finite numbers, got {corner.tolist()}")
    extents = points - corner
    return _volume(extents[np.isfinite(extents).all(axis=1) & (extents > 0).all(axis=1)])


def front(values: npt.ArrayLike, reference: npt.ArrayLike | None = None) -> Front:
    """Judge points `[N, M]` together.

    Args:
        values: larger is better.
        reference: `[M]`; where not given, the worst finite value of each objective less a tenth of its range, so that
            the extreme points of the front count too (volumes then compare within this set of points only).

    Raises:
        ValueError: as in `hypervolume`; no point is finite and there is no reference.
    """
    points = _points(values)
    if reference is None:
        finite = points[np.isfinite(points).all(axis=1)]
        if not len(finite):
            raise ValueError("a reference is needed where no point is finite")
        low, high = finite.min(axis=0), finite.max(axis=0)
        reference = low - 0.1 * np.where(high > low, high - low, 1.0)
    corner = np.asarray(reference, np.float64)
    members = non_dominated(points)
    volume = hypervolume(points, corner)
    shares = np.zeros(len(points))
    for index in np.flatnonzero(members) if volume > 0 else ():
        others = members.copy()
        others[index] = False
        shares[index] = 1.0 - hypervolume(points[others], corner) / volume
    return Front(members, corner, volume, np.clip(shares, 0.0, 1.0))


def _points(values: npt.ArrayLike) -> Values:
    points = np.asarray(values, np.float64)
    if points.ndim != 2 or not points.shape[1]:
        raise ValueError(f"values must be [points, objectives], got the shape {points.shape}")
    return points


def _volume(extents: Values) -> float:
    """The hypervolume of extents `[N, M]` > 0 from the reference."""
    if extents.shape[1] == 1:
        return float(extents.max(initial=0.0))
    if extents.shape[1] == 2:
        order = np.argsort(-extents[:, 0])
        wide, tall = extents[order].T
        below = np.maximum.accumulate(np.concatenate([[0.0], tall]))
        return float(wide @ np.diff(below))
    extents = extents[np.argsort(extents[:, -1])]
    flat, deep = extents[:, :-1], extents[:, -1]
    total = 0.0
    for index, (own, depth) in enumerate(zip(flat, deep, strict=True)):
        covered = np.unique(np.minimum(flat[index + 1 :], own), axis=0)
        total += float(depth) * (float(own.prod()) - _volume(covered[non_dominated(covered)]))
    return total
