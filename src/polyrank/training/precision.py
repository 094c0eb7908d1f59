"""In which numbers the matrix products of a training step are computed."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "float32"]


def resolve(precision: Precision) -> Literal["bf16", "float32"]:
    """What `auto` means on this processor: bf16 where it multiplies matrices of it in hardware (AMX), else float32.

    AVX512-BF16 alone does not count: on such processors the products measured half as fast as those of float32.
    """
    if precision != "auto":
        return precision
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "float32"


def computing_in(precision: Literal["bf16", "float32"]) -> AbstractContextManager[object]:
    """Products in bf16 (sums, weights, optimiser state, losses and the embedding table stay float32), or in float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
