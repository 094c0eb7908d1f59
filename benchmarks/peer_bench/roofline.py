"""The bare matrix products of one MMoE training step: what no implementation of it can do without.

B rows, D input width, E experts, H₁ and H₂ their widths, T tasks, U tower width.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Products:
    """The textbook products on operands that lie ready and contiguous (transposes too), into buffers that lie ready.

    For every layer y = x W the three products x W, xᵀ dy and dy Wᵀ: the first layers of all experts as one product
    `[B, D] × [D, E·H₁]`, the gates as one `[B, D] × [D, T·E]`, the second layers, the towers and their outputs as
    batched products. Left out are the gates' mixing of experts (which multiplies activations by each other), biases,
    activations, losses, embeddings, the optimiser and all data movement.

    Args:
        rows: B.
        in_width: D.
        tasks: T.
        dtype: float32 or bfloat16.
    """

    def __init__(
        self,
        rows: int,
        in_width: int,
        tasks: int,
        dtype: torch.dtype,
        *,
        experts: int = 8,
        widths: tuple[int, int] = (128, 64),
        tower: int = 32,
    ) -> None:
        first, second = widths
        self.work: list[tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]] = []
        layers = (
            (1, in_width, experts * first),
            (1, in_width, tasks * experts),
            (experts, first, second),
            (tasks, second, tower),
            (tasks, tower, 1),
        )
        forward, backward = [], []
        for groups, inner, outer in layers:
            x, w, dy = (torch.randn(groups, a, b).to(dtype) for a, b in ((rows, inner), (inner, outer), (rows, outer)))
            forward.append((x, w))
            backward.append(((x.mT.contiguous(), dy), (dy, w.mT.contiguous())))
        for a, b in forward + [pair for pairs in reversed(backward) for pair in pairs]:
            plain = len(a) == 1
            a, b = (a[0], b[0]) if plain else (a, b)
            self.work.append((torch.mm if plain else torch.bmm, a, b, a @ b))

    def seconds(self, repeats: int) -> float:
        """The median time of all products of one step."""
        times = []
        with torch.inference_mode():
            for _ in range(repeats + 3):
                began = time.perf_counter()
                for product, a, b, out in self.work:
                    product(a, b, out=out)
                times.append(time.perf_counter() - began)
        return float(np.median(times[3:]))
