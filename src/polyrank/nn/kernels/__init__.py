"""Kernels compiled by numba: what torch has no operation for, or spends its time copying in.

Each has a plain-torch twin with the same numbers, which is its test's reference and what runs where numba is missing.
Threads are torch's own: numba's OpenMP layer finds the library that torch has loaded, and shares its pool, so that two
pools never spin against each other.
"""

from importlib import import_module
from types import ModuleType


def optional(module: str) -> ModuleType | None:
    """A module that needs numba, or None where numba cannot be imported."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    return import_module(module)
