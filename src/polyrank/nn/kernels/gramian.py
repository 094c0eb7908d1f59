"""The Gramian of the tasks' gradients at the outputs of shared experts, without writing these gradients out.

T tasks, B rows, H width (a multiple of 16), S shared experts, L gate logits, N parts of the batch.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from polyrank.nn.kernels.llvm import LANES
from polyrank.nn.kernels.vectors import dot


@njit(parallel=True, cache=True, nogil=True)
def gramian(gradients: Any, weights: Any, columns: Any, out: Any) -> None:
    """G_ij = Σ_b (Σ_s r_is r_js) (δ_iᵀδ_j), r_ts task t's gate weight of expert s: ∂L_t/∂f_s = r_ts δ_t.

    Args:
        gradients: `[T, B, H]` float32: δ, with respect to the tasks' mixtures.
        weights: `[B, L]` float32: of the gates.
        columns: `[T, S]` int64: where in them; −1 where a gate does not see the expert. S = 0: all r are 1.
        out: `[N, T, T]` float64, written: the sums over each part of the rows, both triangles.
    """
    tasks, rows, width = gradients.shape
    parts, shared, vectors, kind = len(out), columns.shape[1], width // LANES, gradients.dtype.type(0)
    for part in prange(parts):
        for i in range(tasks):
            for j in range(tasks):
                out[part, i, j] = 0.0
        for b in range(part * rows // parts, (part + 1) * rows // parts):
            for i in range(tasks):
                one = gradients.ctypes.data + np.uint64((i * rows + b) * width * 4)
                for j in range(i + 1):
                    other = gradients.ctypes.data + np.uint64((j * rows + b) * width * 4)
                    common = 1.0
                    if shared:
                        common = 0.0
                        for s in range(shared):
                            left, right = columns[i, s], columns[j, s]
                            if left >= 0 and right >= 0:
                                common += weights[b, left] * weights[b, right]
                    out[part, i, j] += common * dot(one, other, vectors, kind, kind)
        for i in range(tasks):
            for j in range(i):
                out[part, j, i] = out[part, i, j]
