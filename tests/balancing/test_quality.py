"""Concordance against scikit-learn's AUC and all pairs; accuracy by hand."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from polyrank.balancing.quality import accuracy, concordance


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_is_an_estimate_of_the_auc():
    labels = (torch.rand(20_000, 2) < torch.tensor([0.3, 0.05])).float()
    predictions = torch.randn(20_000, 2) + labels * torch.tensor([1.0, 2.0])
    found = concordance(predictions, labels, torch.ones_like(labels, dtype=torch.bool))
    for task in range(2):
        assert found[task].item() == pytest.approx(roc_auc_score(labels[:, task], predictions[:, task]), abs=0.015)


def test_perfect_reversed_and_blind_predictions():
    values = torch.rand(500)
    labels = torch.stack([values, values, values], dim=1)
    predictions = torch.stack([values * 2 + 1, -values, torch.zeros(500)], dim=1)
    assert concordance(predictions, labels, torch.ones(500, 3, dtype=torch.bool)).tolist() == [1.0, 0.0, 0.5]


def test_rows_that_do_not_count_are_no_pairs():
    labels = torch.tensor([[1.0], [0.0], [torch.nan], [0.0], [1.0], [torch.nan]])
    predictions = torch.tensor([[0.9], [0.1], [0.5], [0.2], [0.8], [0.99]])
    assert concordance(predictions, labels, ~labels.isnan()).tolist() == [1.0]


def test_without_a_pair_it_is_not_defined():
    ones = torch.ones(9, 1)
    assert concordance(torch.rand(9, 1), ones, torch.ones(9, 1, dtype=torch.bool)).isnan().all()
    assert concordance(torch.rand(9, 1), torch.rand(9, 1), torch.zeros(9, 1, dtype=torch.bool)).isnan().all()


def test_one_row():
    assert concordance(torch.rand(1, 2), torch.rand(1, 2), torch.ones(1, 2, dtype=torch.bool)).isnan().all()


def test_accuracy():
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, torch.nan], [0.0, torch.nan]])
    predictions = torch.tensor([[0.9, 0.4], [0.6, 0.7], [0.2, 0.1], [0.3, 0.9]])
    assert accuracy(predictions, labels, ~labels.isnan()).tolist() == [0.5, 0.5]
