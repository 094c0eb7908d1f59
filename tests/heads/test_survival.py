"""Thresholds and restoration: values by hand, and distributions with a known mean."""

import numpy as np
import pytest
import torch

from polyrank.heads.survival import adaptive_alpha, base_logits, bin_means, discretise, exceeds, restore, share_up_to


def test_restoration_by_hand():
    """S = (1, 0.8, 0.5) with bins' values 0 | 1, 4, 8: 0·0 + 0.2·1 + 0.3·4 + 0.5·8 = 5.4."""
    assert restore(torch.tensor([[1.0, 0.8, 0.5]]), torch.tensor([0.0, 1.0, 4.0, 8.0])).tolist() == pytest.approx([5.4])
    assert restore(torch.zeros(1, 3), torch.tensor([3.0, 4.0, 7.0, 9.0])).tolist() == [3.0]


def test_the_reference_s_example():
    """Its φ = (0.8, 0.5, 0.1) at t = (0, 2, 5, 10) gives 3.6: with right ends for values, and no classifier at 0."""
    assert restore(torch.tensor([[0.8, 0.5, 0.1]]), torch.tensor([0.0, 2.0, 5.0, 10.0])).item() == pytest.approx(3.6)


def test_means_within_bins_by_hand():
    """Half of the labels are 0, the others spread evenly over 0 to 8, then over 8 to 40."""
    shares = np.linspace(0.0, 1.0, 513)
    quantiles = np.interp(shares, [0.0, 0.5, 0.75, 1.0], [0.0, 0.0, 8.0, 40.0])
    thresholds = np.array([0.0, 4.0, 8.0, 40.0])
    assert bin_means(quantiles, thresholds).tolist() == pytest.approx([0.0, 2.0, 6.0, 24.0])
    wide = bin_means(quantiles, np.array([0.0, 40.0]))  # half of what is above 0 lies around 4, half around 24
    assert wide.tolist() == pytest.approx([0.0, 14.0])


@pytest.mark.parametrize("alpha", [0.0, 2.0, 6.0])
@pytest.mark.parametrize("bins", [1, 4, 32])
def test_the_labels_own_distribution_is_restored_to_their_own_mean(alpha, bins):
    labels = np.random.default_rng(0).lognormal(1.0, 1.5, 20_000) * (np.random.default_rng(1).random(20_000) < 0.7)
    quantiles = np.quantile(labels, np.linspace(0, 1, 513))
    thresholds = discretise(quantiles, bins, alpha)
    survival = torch.tensor(1.0 - share_up_to(quantiles, thresholds[:-1]))[None]
    found = restore(survival, torch.tensor(bin_means(quantiles, thresholds))).item()
    mean = (quantiles[1:] + quantiles[:-1]).mean() / 2
    assert found == pytest.approx(mean, rel=1e-6)
    ends = restore(survival, torch.tensor(thresholds)).item()
    assert ends > 1.05 * mean


def test_what_exceeds_which_threshold():
    above = exceeds(torch.tensor([0.0, 4.0, 99.0]), torch.tensor([0.0, 2.0, 5.0, 10.0]))
    assert above.tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_the_share_up_to_a_value():
    quantiles = np.array([0.0, 0.0, 0.0, 4.0, 8.0])  # half are zero
    values = np.array([-1.0, 0.0, 2.0, 4.0, 8.0, 9.0])
    assert share_up_to(quantiles, values).tolist() == [0.0, 0.5, 0.625, 0.75, 1.0, 1.0]


class TestDiscretise:
    def test_gamma_by_hand(self):
        """γ(½; α = 2) = 0.731059."""
        quantiles = np.linspace(0.0, 1.0, 513)
        assert discretise(quantiles, 2, 2.0).tolist() == pytest.approx([0.0, 0.731059, 1.0], abs=1e-6)

    def test_alpha_zero_is_equal_frequency(self):
        quantiles = np.linspace(0.0, 1.0, 513) ** 2
        assert discretise(quantiles, 4, 0.0).tolist() == pytest.approx([0.0, 1 / 16, 1 / 4, 9 / 16, 1.0])

    def test_thresholds_that_coincide_are_one(self):
        quantiles = np.concatenate([np.zeros(300), np.linspace(0.0, 9.0, 213)])
        thresholds = discretise(quantiles, 32, 0.0)
        assert thresholds[0] == 0.0
        assert (np.diff(thresholds) > 0).all()
        assert 10 < len(thresholds) < 33

    def test_two_values(self):
        assert discretise(np.array([0.0] * 50 + [7.0] * 50), 32, 1.0).tolist() == [0.0, 7.0]


def test_a_long_tail_asks_for_finer_high_bins_than_none():
    flat = np.linspace(0.0, 1.0, 513)
    tailed = -np.log1p(-np.linspace(0.0, 0.999, 513))
    assert adaptive_alpha(flat, 16, 1e3) == 0.0 < adaptive_alpha(tailed, 16, 1e3)


def test_alpha_is_the_least_estimated_error_of_the_grid():
    """Of two bins, A_w and A_b by hand at α = 0: ΔΨ = (½, ½), Δt = (1, 3): ½·20 and ½·10; unequal ones are better."""
    quantiles = np.interp(np.linspace(0, 1, 513), [0.0, 0.5, 1.0], [0.0, 1.0, 4.0])

    def error(alpha):
        t = discretise(quantiles, 2, alpha)
        mass, width = np.diff(share_up_to(quantiles, t)), np.diff(t)
        return (mass**2).sum() * ((width**2 / mass).sum() + (width**2).sum())

    assert error(0.0) == pytest.approx(0.5 * 20 + 0.5 * 10)
    found = adaptive_alpha(quantiles, 2, 1.0)
    assert error(found) == min(error(alpha) for alpha in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0))
    assert error(found) < error(0.0)


def test_base_logits_are_finite():
    assert base_logits(np.array([0.5, 0.0, 1.0])) == pytest.approx([0.0, -9.21024, 9.21024], abs=1e-5)
