import math

import numpy as np
import pytest
import torch

from polyrank.heads.cread import Cread, CreadConfig, classification_loss, order_penalty

NO_BINS = torch.zeros(0, dtype=torch.int64)
PLAIN = CreadConfig(bins=4, alpha=0.0)
QUANTILES = np.linspace(0.0, 8.0, 513).tolist()  # thresholds 0, 2, 4, 6, 8


def logit(p):
    return math.log(p / (1 - p))


def test_classification_by_hand():
    """The reference's φ = (0.8, 0.5, 0.1) at t = (2, 5, 10), y = 4: 1.021651."""
    logits = torch.tensor([[logit(0.8), logit(0.5), logit(0.1)]])
    assert classification_loss(logits, torch.tensor([[1.0, 0.0, 0.0]])).item() == pytest.approx(1.021651, abs=1e-6)


def test_order_by_hand():
    survival = torch.tensor([[0.8, 0.5, 0.1], [0.5, 0.8, 0.1]])
    assert order_penalty(survival).tolist() == pytest.approx([0.0, 0.3])


def test_loss_by_hand():
    """S = (1, 0.8, 0.5, 0.1) at 0, 2, 4, 6: ŷ = 1.8 + 1.3 + 0.6 + 0.1 = 3.8; y = 5 of std 4: Huber ½·0.3²."""
    head = Cread(QUANTILES, 4.0, CreadConfig(bins=4, alpha=0.0, restoration=3.0, order=5.0))
    assert head.thresholds.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    logits = torch.tensor([[20.0, logit(0.8), logit(0.5), logit(0.1)]])
    assert head.predict(logits, NO_BINS).item() == pytest.approx(3.8, abs=1e-5)
    classified = -(math.log(0.8) + math.log(0.5) + math.log(0.9)) / 4
    found = head.loss(logits, torch.tensor([5.0]), NO_BINS).item()
    assert found == pytest.approx(classified + 3.0 * 0.5 * 0.3**2, abs=1e-6)
    wrong = torch.tensor([[20.0, logit(0.5), logit(0.8), logit(0.1)]])
    assert head.loss(wrong, torch.tensor([5.0]), NO_BINS).item() == pytest.approx(
        classified + 3.0 * 0.5 * 0.3**2 + 5.0 * 0.3, abs=1e-5
    )


def test_far_off_the_restoration_costs_linearly():
    head = Cread(QUANTILES, 1.0, PLAIN)
    logits = torch.full((1, 4), -20.0)
    far, near = (head.loss(logits, torch.tensor([y]), NO_BINS).item() for y in (8.0, 7.0))
    assert far - near == pytest.approx(1.0, abs=1e-4)


def test_alpha_is_chosen_unless_it_is_given():
    labels = np.random.default_rng(0).exponential(9.0, 9_000)
    quantiles = np.quantile(labels, np.linspace(0, 1, 513)).tolist()
    of_beta, given, equal = (Cread(quantiles, 1.0, CreadConfig(alpha=a, beta=1e3)) for a in (None, 2.0, 0.0))
    assert of_beta.thresholds[16] > given.thresholds[16] > equal.thresholds[16]


def test_it_starts_at_the_training_labels():
    labels = np.where(np.random.default_rng(0).random(9_000) < 0.4, 0.0, np.linspace(0, 50, 9_000))
    head = Cread(np.quantile(labels, np.linspace(0, 1, 513)).tolist(), float(labels.std()), CreadConfig())
    assert head.predict(torch.tensor([head.biases()]), NO_BINS).item() == pytest.approx(labels.mean(), rel=0.02)


def test_another_unit_is_another_unit_of_the_predictions():
    logits, labels = torch.randn(9, 4), torch.rand(9) * 8
    one, other = Cread(QUANTILES, 2.0, PLAIN), Cread([60 * q for q in QUANTILES], 120.0, PLAIN)
    torch.testing.assert_close(other.predict(logits, NO_BINS), 60 * one.predict(logits, NO_BINS))
    torch.testing.assert_close(other.loss(logits, 60 * labels, NO_BINS), one.loss(logits, labels, NO_BINS))
