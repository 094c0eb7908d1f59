import numpy as np
import pytest
from scipy import stats

from polyrank.simulator.draws import below, keys, normals, uniforms

MANY = keys(keys(3, 1), np.arange(200_000))


def test_keys_are_splitmix64():
    # the first outputs of the reference generator (Vigna's splitmix64.c) from the state 0 and from 1234567
    assert [int(keys(0, part)) for part in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert int(keys(1234567, 0)) == 6457827717110365317


def test_a_key_is_a_number_whatever_is_asked_with_it():
    np.testing.assert_array_equal(keys(MANY[:5], 7), [keys(key, 7) for key in MANY[:5]])
    np.testing.assert_array_equal(keys(MANY[:5, None], np.arange(3))[2], keys(MANY[2], np.arange(3)))
    assert len(np.unique(MANY)) == len(MANY)


def test_uniforms_are_uniform_and_unrelated():
    u = uniforms(MANY, 3)
    assert u.dtype == np.float32
    assert 0 < u.min() < u.max() < 1
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.01
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.01  # neighbours
    other = uniforms(keys(keys(4, 1), np.arange(200_000)), 1)[:, 0]
    assert abs(np.corrcoef(u[:, 0], other)[0, 1]) < 0.01  # another seed


@pytest.mark.parametrize("count", [1, 2, 5])
def test_normals_are_normal_and_unrelated(count):
    z = normals(MANY, count)
    assert z.shape == (len(MANY), count)
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert np.abs(np.cov(z.T) - np.eye(count)).max() < 0.02


def test_below_reaches_every_number_alike():
    found = np.bincount(below(MANY, 7), minlength=7)
    assert len(found) == 7
    assert stats.chisquare(found).pvalue > 1e-3
