"""In which numbers the matrix products of a training step are computed."""

import time
from contextlib import AbstractContextManager
from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "float32"]

_CLEARLY = 1.3  # the rest of a step gains less than its products


def resolve(precision: Precision) -> Literal["bf16", "float32"]:
    """What `auto` means on this processor: bf16 where it multiplies matrices of it clearly faster, else float32.

    A processor without AMX or AVX512-BF16 cannot. With AVX512-BF16 alone some multiply bf16 more than twice as fast as
    float32, others half as fast (both seen): there a product is measured, once in a process.
    """
    if precision != "auto":
        return precision
    if torch.cpu.get_capabilities().get("amx_bf16", False):
        return "bf16"
    return "bf16" if multiplies_bf16() and speedup() > _CLEARLY else "float32"


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for products in bf16; without them one takes several times as long."""
    able = torch.cpu.get_capabilities()
    return any(able.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))


@cache
def speedup() -> float:
    """How many times as fast as in float32 a product of 512 × 512 matrices is in bf16: the best of twenty each.

    They take turns, so that other work on the machine slows neither alone.
    """
    operands = {kind: torch.ones(512, 512, dtype=kind) for kind in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(operands, float("inf"))
    with torch.inference_mode():
        for _ in range(20):
            for kind, matrix in operands.items():
                began = time.perf_counter()
                torch.mm(matrix, matrix)
                best[kind] = min(best[kind], time.perf_counter() - began)
    return best[torch.float32] / best[torch.bfloat16]


def computing_in(precision: Literal["bf16", "float32"]) -> AbstractContextManager[object]:
    """Products in bf16 (sums, weights, optimiser state, losses and the embedding table stay float32), or in float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
