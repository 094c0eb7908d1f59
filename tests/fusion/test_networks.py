import math

import numpy as np
import pytest
import torch
from torch import nn

from polyrank.errors import TrainingDiverged
from polyrank.fusion.networks import NONE, NetworkConfig, fit, padded, pairwise_loss


class TestPadded:
    @pytest.mark.parametrize("seed", [None, 0, 1])
    @pytest.mark.parametrize("pairs", [1, 30, 10**6])
    def test_every_row_is_there_once_with_its_request(self, seed, pairs):
        requests = np.random.default_rng(5).integers(0, 20, 90)
        generator = None if seed is None else np.random.default_rng(seed)
        batches = list(padded(requests, pairs, generator))
        rows = np.concatenate([batch[batch != NONE] for batch in batches])
        np.testing.assert_array_equal(np.sort(rows), np.arange(90))
        for batch in batches:
            assert len(batch) == 1 or batch.shape[0] * batch.shape[1] ** 2 <= pairs
            for line in batch:
                mine = requests[line[line != NONE]]
                assert (mine == mine[0]).all()
                assert len(mine) == (requests == mine[0]).sum()

    def test_a_generator_shuffles(self):
        requests = np.arange(40) // 2
        first, second = (next(padded(requests, 10**6, np.random.default_rng(s))) for s in (0, 1))
        assert (first != second).any()

    def test_no_row(self):
        assert list(padded(np.zeros(0, np.int64), 10)) == []


class TestPairwiseLoss:
    def test_by_hand(self):
        scores = torch.tensor([[1.0, 0.0, 9.0], [0.0, 2.0, 2.0]])
        target = torch.tensor([[3.0, 1.0, 7.0], [1.0, 0.0, 0.0]])
        present = torch.tensor([[True, True, False], [True, True, True]])
        # Pairs: (1, 0) with difference 2; (0, 2) twice with difference 1. Padding takes no part.
        right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))
        assert pairwise_loss(scores, target, present).item() == pytest.approx((2 * right + 2 * wrong) / 4)
        plain = pairwise_loss(scores, target, present, weighted=False).item()
        assert plain == pytest.approx((right + 2 * wrong) / 3)

    def test_without_a_pair_it_is_zero_with_a_gradient(self):
        scores = torch.zeros(1, 3, requires_grad=True)
        loss = pairwise_loss(scores, torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
        loss.backward()
        assert loss.item() == 0.0
        assert torch.equal(scores.grad, torch.zeros(1, 3))


class TestFit:
    def test_the_best_epoch_is_kept_and_patience_ends_it(self):
        net, held = nn.Linear(1, 1, bias=False), iter([3.0, 1.0, 2.0, 2.5, 0.0])
        seen = []

        def valid(batch):
            seen.append(net.weight.detach().clone())
            return torch.tensor(next(held))

        requests = np.zeros(2, np.int64)
        train = (requests, lambda batch: net(torch.ones(1, 1)).sum())
        fit(net, train, (requests, valid), NetworkConfig(epochs=5, patience=2), None)
        assert len(seen) == 4  # the fifth would have been better, but two in a row were not
        assert torch.equal(net.weight, seen[1])

    def test_a_loss_that_is_not_finite_is_said(self):
        net, requests = nn.Linear(1, 1), np.zeros(2, np.int64)
        loss = (requests, lambda batch: net(torch.ones(1, 1)).sum() * math.nan)
        with pytest.raises(TrainingDiverged, match="must be finite"):
            fit(net, loss, loss, NetworkConfig(), None)
