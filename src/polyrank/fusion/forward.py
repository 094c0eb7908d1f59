"""Small networks without torch: what a policy needs when it serves."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from polyrank.metrics.checks import Rows


class Network:
    """E networks of the same shape: linear layers with ReLU between them; numpy in, numpy out.

    What it reads may come in parts that broadcast against one another, a state `[B, 1, S]` and n candidates
    `[1, n, K]`; the first layer's weights are those of the parts, one below another.

    Attributes:
        layers: (W `[E, in, out]`, b `[E, 1, out]`) of each.
    """

    def __init__(self, layers: Sequence[tuple[Rows, Rows]]) -> None:
        self.layers = layers

    @classmethod
    def of(cls, arrays: Mapping[str, Rows], name: str) -> Self:
        """From what `arrays` gave."""
        count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in arrays)
        if not count:
            raise ValueError(f"no network {name!r} among {sorted(arrays)}")
        return cls([(arrays[f"{name}.{index}.weight"], arrays[f"{name}.{index}.bias"]) for index in range(count)])

    def arrays(self, name: str) -> dict[str, Rows]:
        """What `of` reads."""
        return {
            f"{name}.{index}.{part}": array
            for index, layer in enumerate(self.layers)
            for part, array in zip(("weight", "bias"), layer, strict=True)
        }

    def __call__(self, *parts: Rows) -> Rows:
        """`[..., d_p]` each, which broadcast → `[E, ..., O]`."""
        (weights, bias), at = self.layers[0], 0
        lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
        out: Rows = np.zeros((len(weights), *(1 for _ in lead), 1), np.float32)
        for part in parts:
            rows = np.matmul(part.reshape(-1, part.shape[-1]), weights[:, at : at + part.shape[-1]])
            out, at = out + rows.reshape(len(weights), *part.shape[:-1], weights.shape[2]), at + part.shape[-1]
        out = out.reshape(len(weights), math.prod(lead), weights.shape[2]) + bias
        for weights, bias in self.layers[1:]:
            out = np.matmul(np.maximum(out, 0), weights) + bias
        return out.reshape(len(weights), *lead, out.shape[2])
