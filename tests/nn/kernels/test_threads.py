"""Numba's threads follow torch's, in number."""

import numba
import pytest
import torch

from polyrank.nn.kernels.threads import follow_torch

most = numba.config.NUMBA_NUM_THREADS


@pytest.mark.parametrize("wanted", [1, 2, most, most + 3])
def test_as_many_as_torch_but_never_more_than_numba_has(wanted):
    torch.set_num_threads(wanted)
    assert follow_torch() == min(wanted, most)
    assert numba.get_num_threads() == min(wanted, most)
    assert torch.get_num_threads() == wanted  # what was asked of torch stays


def test_follows_back_and_forth():
    for wanted in (1, min(2, most), 1):
        torch.set_num_threads(wanted)
        assert follow_torch() == wanted


def test_openmp_goes_first():
    assert numba.config.THREADING_LAYER_PRIORITY[0] == "omp"
