"""The reference is a sum over rows in float64. What callers promise is tested in tests/nn/test_shared.py."""

import numpy as np
import pytest
import torch

from polyrank.nn.kernels.gramian import gramian
from polyrank.nn.kernels.threads import follow_torch


@pytest.mark.parametrize("parts", [1, 3, 40])
@pytest.mark.parametrize("rows", [1, 25])
def test_each_part_sums_its_own_rows(parts, rows):
    follow_torch()
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(3, rows, 32)).astype(np.float32)
    weights = rng.random((rows, 5)).astype(np.float32)
    columns = np.array([[0, 1], [2, -1], [3, 4]], np.int64)
    out = np.full((parts, 3, 3), np.nan)
    gramian(gradients, weights, columns, out)
    padded = np.concatenate([weights, np.zeros((rows, 1), np.float32)], axis=1)
    reads = padded[:, columns].astype(np.float64)  # [B, T, S]; column −1 is the zero
    by_row = np.einsum("bis,bjs->bij", reads, reads) * np.einsum("ibh,jbh->bij", *[gradients.astype(np.float64)] * 2)
    edges = [rows * part // parts for part in range(parts + 1)]
    for part in range(parts):
        np.testing.assert_allclose(out[part], by_row[edges[part] : edges[part + 1]].sum(axis=0), rtol=1e-5, atol=1e-4)


def test_torch_keeps_its_threads():
    torch.set_num_threads(1)
    follow_torch()
    one = np.ones((1, 4, 16), np.float32), np.ones((4, 1), np.float32)
    gramian(*one, np.zeros((1, 0), np.int64), np.zeros((2, 1, 1)))
    assert torch.get_num_threads() == 1
