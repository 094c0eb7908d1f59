import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from polyrank.fusion import transforms

ANY = [-1e150, -1e3, -1.0, -0.0, 0.0, 1e-300, 1e-45, 1e-10, 0.5, 1.0, 1e3, 1e150]


@pytest.mark.parametrize("name", ["log", "log1p", "exp", "sigmoid", "logit"])
def test_one_argument_is_finite_everywhere_and_never_falls(name: str) -> None:
    values = getattr(transforms, name)(np.array(ANY))
    assert np.isfinite(values).all()
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("name", ["power", "times", "divide"])
def test_two_arguments_are_finite_everywhere(name: str) -> None:
    x, y = np.meshgrid(ANY, ANY)
    with np.errstate(over="ignore", under="ignore"):
        assert np.isfinite(getattr(transforms, name)(x, y)).all()


def test_a_positive_float32_is_above_the_floor() -> None:
    assert np.nextafter(np.float32(0), np.float32(1)).astype(float) > transforms.FLOOR


def test_negative_sums_stay_in_the_band_below_all_others() -> None:
    s = np.array([-3.0, -1.5, -1e-9, 0.0, 2.0])
    np.testing.assert_allclose(
        transforms.band(s, 3.0, 5.0, 0.1), [0.0, 0.03, 0.06, 0.1, 2.1], atol=1e-9
    )  # (s + 3) / 5 · 0.1 below 0, s + 0.1 from 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 9))
def test_ranks_within_requests_are_scipys_mean_ranks(values: list[int], requests: int, seed: int) -> None:
    x = np.array(values, float)
    of = np.random.default_rng(seed).integers(0, requests, len(x))
    ranks = transforms.rank_within(x, of)
    for request in np.unique(of):
        np.testing.assert_array_equal(ranks[of == request], rankdata(-x[of == request]))
    np.testing.assert_array_equal(transforms.rank_within(x, None), rankdata(-x))


def test_no_rows_have_no_ranks() -> None:
    assert transforms.rank_within(np.zeros(0), None).shape == (0,)
    assert transforms.rank_within(np.zeros(0), np.zeros(0, np.int64)).shape == (0,)


def test_quantiles_by_hand() -> None:
    curve = transforms.quantile_curve(np.array([3.0, 1.0, 3.0, 7.0]))
    assert curve.x == (1.0, 3.0, 7.0)
    assert curve.y == (0.125, 0.5, 0.875)  # middle of each value's mass
    np.testing.assert_allclose(curve(np.array([-5.0, 2.0, 99.0])), [0.125, 0.3125, 0.875])


def test_many_values_keep_few_knots_near_the_distribution() -> None:
    x = np.random.default_rng(0).exponential(size=20_000)
    curve = transforms.quantile_curve(x)
    assert len(curve.x) <= 257
    np.testing.assert_allclose(curve(x), rankdata(x) / len(x), atol=0.006)


def test_quantiles_within_buckets_do_not_know_the_bucket() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 100, 30_000).astype(float)
    watch = length * rng.random(30_000)  # grows with the length; its share of the length does not
    found = transforms.bucket_quantiles(watch, length, 10)(watch, length)
    assert np.corrcoef(watch, length)[0, 1] > 0.6
    assert abs(np.corrcoef(found, length)[0, 1]) < 0.1
    assert found.min() >= 0
    assert found.max() <= 1


def test_one_bucket_value_is_one_bucket() -> None:
    curves = transforms.bucket_quantiles(np.array([1.0, 2.0]), np.array([5.0, 5.0]))
    assert curves.edges == ()
    np.testing.assert_allclose(curves(np.array([1.0, 2.0]), 5.0), [0.25, 0.75])


def test_a_learned_curve_follows_the_reward_and_never_falls() -> None:
    x = np.array([0.1, 0.2, 0.3, 0.4])
    curve = transforms.learned_curve(x, np.array([0.0, 2.0, 1.0, 4.0]))
    np.testing.assert_allclose(curve(x), [0.0, 1.5 / 4, 1.5 / 4, 1.0])
    assert set(transforms.learned_curve(x, -x).y) == {0.0}


@given(arrays(float, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32)), st.integers(0, 99))
def test_fitted_curves_never_fall(x: np.ndarray, seed: int) -> None:
    reward = np.random.default_rng(seed).random(len(x))
    for curve in (transforms.quantile_curve(x), transforms.learned_curve(x, reward)):
        assert (np.diff(curve(np.sort(x))) >= 0).all()
        assert min(curve.y) >= 0
        assert max(curve.y) <= 1
