from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polyrank.fusion import kernels
from polyrank.metrics.concordance import group_xauc
from polyrank.metrics.grouped import group_auc
from polyrank.metrics.toplists import ndcg


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**31), st.sampled_from([1, 3, 1000]))
def test_they_equal_their_plain_twins(sizes: list[int], seed: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    n, groups = int(starts[-1]), np.repeat(np.arange(len(sizes)), sizes)
    scores, weights = rng.integers(0, distinct, n).astype(float), rng.random(n)
    labels, gains = (rng.random(n) < 0.4).astype(float), rng.integers(0, 3, n).astype(float)
    order = np.empty(n, np.int64)
    kernels.sort_requests(scores, starts, order)
    for a, b in pairwise(starts):
        assert sorted(order[a:b]) == list(range(a, b))
        assert (np.diff(scores[order[a:b]]) <= 0).all()
    missing = labels.copy()
    missing[rng.random(n) < 0.2] = np.nan
    seen = ~np.isnan(missing)
    expected = group_auc(scores[seen], missing[seen], groups[seen], weights[seen]).mean()
    np.testing.assert_allclose(kernels.mean_auc(scores, order, starts, missing, weights), expected, atol=1e-12)
    expected = group_xauc(scores[seen], (gains + missing)[seen], groups[seen]).mean()
    np.testing.assert_allclose(kernels.mean_xauc(scores, starts, gains + missing), expected, atol=1e-12)
    k = 3
    discounts = 1 / np.log2(np.arange(k) + 2)
    ideal = np.array([np.sort(gains[a:b])[::-1][:k] @ discounts[: b - a] for a, b in pairwise(starts)])
    expected = ndcg(scores, gains, groups, k).mean()
    np.testing.assert_allclose(kernels.mean_ndcg(scores, order, starts, gains, discounts, ideal), expected, atol=1e-12)
