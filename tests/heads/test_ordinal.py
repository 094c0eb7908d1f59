import math

import numpy as np
import pytest
import torch

from polyrank.heads.ordinal import Ordinal, OrdinalConfig, ordinal_loss

NO_BINS = torch.zeros(0, dtype=torch.int64)
QUANTILES = np.linspace(0.0, 8.0, 513).tolist()


def logit(p):
    return math.log(p / (1 - p))


def test_loss_by_hand():
    """P(y > t) = 0.8, then 0.5 of these, then 0.2: three bins pass with 0.8·0.5, the third stops: −ln 0.32."""
    logits = torch.tensor([[logit(0.8), logit(0.5), logit(0.2)]] * 3)
    above = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    expected = [-math.log(0.8 * 0.5 * 0.8), -math.log(0.2), -math.log(0.8 * 0.5 * 0.2)]
    assert ordinal_loss(logits, above).tolist() == pytest.approx(expected, rel=1e-6)


def test_questions_that_are_not_asked_have_no_gradient():
    logits = torch.zeros(1, 4, requires_grad=True)
    ordinal_loss(logits, torch.tensor([[1.0, 0.0, 0.0, 0.0]])).sum().backward()
    assert logits.grad.tolist() == [[-0.5, 0.5, 0.0, 0.0]]


def test_prediction_by_hand():
    """Thresholds 0, 2, 4, 6, 8; survival 1, 0.5, 0.25, 0: 1.5 + 0.75 + 0.25."""
    head = Ordinal(QUANTILES, OrdinalConfig(bins=4))
    assert head.thresholds.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert head.predict(torch.tensor([[100.0, 0.0, 0.0, -100.0]]), NO_BINS).tolist() == pytest.approx([2.5])


def test_predictions_are_in_order_whatever_the_logits():
    head = Ordinal(QUANTILES, OrdinalConfig(bins=8))
    survival = torch.sigmoid(torch.randn(99, 8) * 5).cumprod(dim=1)
    assert (torch.diff(survival, dim=1) <= 0).all()
    values = head.predict(torch.randn(99, 8) * 50, NO_BINS)
    assert ((values >= 0) & (values <= 8)).all()


def test_it_starts_at_the_training_labels():
    labels = np.where(np.random.default_rng(0).random(9_000) < 0.4, 0.0, np.linspace(0, 50, 9_000))
    head = Ordinal(np.quantile(labels, np.linspace(0, 1, 513)).tolist(), OrdinalConfig())
    logits = torch.tensor([head.biases()])
    assert torch.sigmoid(logits[0, 0]).item() == pytest.approx(0.6, abs=0.01)  # above 0
    assert head.predict(logits, NO_BINS).item() == pytest.approx(labels.mean(), rel=0.02)
    loss = head.loss(logits.expand(9_000, -1), torch.tensor(labels, dtype=torch.float32), NO_BINS).mean()
    assert 0.5 < loss.item() < 1.1


def test_one_threshold_is_enough():
    head = Ordinal([0.0] * 300 + [5.0] * 213, OrdinalConfig())
    assert head.logits == 1
    logits = torch.tensor([head.biases()])
    assert torch.isfinite(head.loss(logits, torch.tensor([5.0]), NO_BINS)).all()
