import numpy as np
import pytest

from polyrank.evaluation.power import power


def test_by_hand():
    # z_.975 = 1.95996, z_.8 = 0.84162, together 2.80159.
    found = power(0.002, 1_000, 0.003)
    assert found.detectable == pytest.approx(0.00560318, abs=1e-7)
    assert found.users_needed == 3489  # 1,000 · (0.0056032 / 0.003)² = 3,488.4


def test_a_difference_of_that_size_is_found_as_often_as_promised():
    rng = np.random.default_rng(0)
    error = 0.01
    found = power(error, 100, 0.01, chance=0.9, level=0.9)
    estimates = rng.normal(found.detectable, error, 20_000)
    assert np.mean(estimates - 1.6449 * error > 0) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("arguments", [(-1.0, 10, 0.1), (np.nan, 10, 0.1), (0.1, 10, 0.0)])
def test_refuses_what_has_no_power(arguments):
    with pytest.raises(ValueError, match="a power needs"):
        power(*arguments)
