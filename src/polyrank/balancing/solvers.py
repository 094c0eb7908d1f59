"""The small problems that gradient methods solve on a Gramian G `[T, T]`: exactly, in float64, without torch.

Tasks' gradients may differ in size by many powers of ten, so everything is worked out on the matrix of their cosines
C = D⁻¹ G D⁻¹, D = diag(n), n the norms: a root B of it, BᵀB = C, stands for the unit gradients in its columns.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, nnls

Array = NDArray[np.float64]

_RIDGE = 1e-9  # on cosines: opposite gradients make the matrix singular
_NEWTON = 60


def norms(gramian: Array) -> Array:
    """‖g_t‖, `[T]`."""
    return np.sqrt(gramian.diagonal())


def length(weights: Array, gramian: Array) -> float:
    """‖Σ w_t g_t‖."""
    return float(np.sqrt((weights @ gramian @ weights).clip(min=0.0)))


def cosines(gramian: Array) -> Array:
    """C `[T, T]`: symmetric, ones on the diagonal, entries in [−1, 1]; every task must have a gradient."""
    size = norms(gramian)
    found = np.clip(gramian / size / size[:, None], -1.0, 1.0)
    found = 0.5 * (found + found.T)
    np.fill_diagonal(found, 1.0)
    return found


def root(cosine: Array) -> Array:
    """B with BᵀB = C; what is slightly negative of C's eigenvalues counts as 0."""
    values, vectors = np.linalg.eigh(cosine)
    found: Array = np.sqrt(values.clip(min=0.0))[:, None] * vectors.T
    return found


def nearest_to_origin(points: Array) -> Array:
    """The convex weights of the point nearest to 0 in the hull of the columns of `points` `[K, T]`.

    By non-negative least squares: min ‖P v‖² + (1 − Σ v)² over v ≥ 0 has a multiple of the answer as its solution.
    """
    size = np.linalg.norm(points, axis=0).max()
    if size == 0.0:
        return np.full(points.shape[1], 1.0 / points.shape[1])
    system = np.vstack([points / size, np.ones(points.shape[1])])
    aim = np.zeros(len(system))
    aim[-1] = 1.0
    found: Array = nnls(system, aim)[0]
    found /= found.sum()
    return found


def least_norm(gramian: Array, lowest: Array | None = None) -> Array:
    """The minimum of wᵀ G w over Σ w = 1, w ≥ the bounds `[T]` (0 where not given; Σ of them below 1)."""
    points = root(cosines(gramian)) * norms(gramian)
    if lowest is None:
        return nearest_to_origin(points)
    rest = 1.0 - lowest.sum()
    # w = bounds + rest · y with y convex: the hull of P·bounds + rest · P.
    found: Array = lowest + rest * nearest_to_origin((points @ lowest)[:, None] + rest * points)
    return found


def onto_simplex(values: Array, total: float = 1.0) -> Array:
    """The nearest point of {x ≥ 0, Σ x = total} to `values`."""
    values = values - values.max()  # which moves its projection nowhere, and keeps digits
    ordered = np.sort(values)[::-1]
    surplus = np.cumsum(ordered) - total
    last = np.nonzero(ordered - surplus / np.arange(1, len(values) + 1) > 0)[0][-1]
    found: Array = np.maximum(values - surplus[last] / (last + 1), 0.0)
    return found


def into_dual_cone(gramian: Array) -> Array:
    """Row i: the coefficients v of g_i's projection onto {d: g_tᵀd ≥ 0 for all t}: min vᵀ G v, v ≥ e_i. `[T, T]`."""
    size, basis = norms(gramian), root(cosines(gramian))
    rows = [nnls(basis, -basis[:, task])[0] * (size[task] / size) for task in range(len(size))]
    found: Array = np.eye(len(size)) + np.array(rows)
    return found


def conflict_averse(gramian: Array, radius: float) -> Array:
    """CAGrad's inner problem: min over convex w of g_wᵀ g_0 + c‖g_0‖ ‖g_w‖, g_0 the mean, g_w = Σ w_t g_t.

    As √q = min_λ (q/λ + λ)/2, it is the problem of `nearest_to_origin` for the points g_t + (λ / c‖g_0‖) g_0, where λ
    must come out as ‖g_w‖.
    """
    points = root(cosines(gramian)) * norms(gramian)
    points = points / np.linalg.norm(points, axis=0).max()
    mean = points.mean(axis=1)
    reach = radius * np.linalg.norm(mean)

    def weights(length: float) -> Array:
        return nearest_to_origin(points + (length / reach) * mean[:, None])

    def excess(length: float) -> float:
        return length - float(np.linalg.norm(points @ weights(length)))

    least = float(np.linalg.norm(points @ nearest_to_origin(points)))
    if reach <= 1e-12 * max(1.0, radius) or least >= 1.0 or excess(least) >= 0.0:
        return nearest_to_origin(points) if reach <= 1e-12 * max(1.0, radius) else weights(least)
    return weights(brentq(excess, least, 1.0, xtol=1e-13))


def bargained(gramian: Array, alpha: float) -> Array:
    """The w > 0 with (G w)_t = w_t^(−1/α): minimum of ½ wᵀ G w − Σ w^(1 − 1/α)/(1 − 1/α), a logarithm for α = 1.

    Newton's method with a line search, in w = s ⊙ y, where s solves the problem without the off-diagonal. Opposite
    gradients have no finite answer: the cosines' ridge gives a large one.
    """
    size = norms(gramian)
    power = 1.0 / alpha
    shrunk = size ** (-2.0 * alpha / (alpha + 1.0))
    kept = size ** (2.0 * (1.0 - alpha) / (1.0 + alpha))  # of both terms of the diagonal's equation
    kept = kept / kept.max()
    balance = np.sqrt(kept)
    matrix = (cosines(gramian) + _RIDGE * np.eye(len(size))) * balance * balance[:, None]

    def value(y: Array) -> float:
        gain = np.log(y) if alpha == 1.0 else y ** (1.0 - power) / (1.0 - power)
        return float(0.5 * y @ matrix @ y - kept @ gain)

    y = np.ones(len(size))
    for _ in range(_NEWTON):
        slope = matrix @ y - kept * y**-power
        hessian = matrix + np.diag(kept * power * y ** (-power - 1.0))
        step = np.linalg.solve(hessian / balance / balance[:, None], slope / balance) / balance
        if not step.any() or np.abs(step / y).max() < 1e-12:
            break
        rate = min(1.0, 0.9 / max((step / y).max(), 1e-300)) if (step > 0).any() else 1.0
        here, fall = value(y), float(slope @ step)
        while rate > 1e-12 and value(y - rate * step) > here - 1e-4 * rate * fall + 1e-15 * abs(here):
            rate *= 0.5
        y = y - rate * step
    weights: Array = shrunk * y
    return weights
