"""How many threads a kernel may use: as many as torch."""

import numba
import torch

# Where OpenMP is missing numba takes the next; a user's own choice (NUMBA_THREADING_LAYER) goes before all.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def follow_torch() -> int:
    """Let numba use as many threads as torch uses now; how many these are."""
    wanted = torch.get_num_threads()
    threads: int = min(wanted, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    if torch.get_num_threads() != wanted:  # they share OpenMP: when numba starts, it asks for all processors
        torch.set_num_threads(wanted)
    return threads
