import math

import numpy as np
import pytest
from scipy import stats

from polyrank.fusion.explore import BoundedUniform, Gaussian, Mixed, half_and_half
from polyrank.fusion.policy import Policy, StaticPolicy

STATES = np.linspace(-1, 1, 20_000, dtype=np.float32)[:, None]
CENTRE = StaticPolicy([1.0, -0.5])


class Line(Policy):
    """w = (s, 2s)."""

    kind = "line"

    def act(self, states):
        return np.concatenate([states, 2 * states], axis=1).astype(np.float32)

    def arrays(self):
        return {}

    def document(self):
        return {}

    @classmethod
    def restore(cls, document, arrays):
        return cls()


EXPLORERS = {
    "uniform": BoundedUniform(CENTRE, np.array([0.5, 0.1])),
    "gaussian": Gaussian(CENTRE, np.array([0.5, 0.1])),
    "half and half": half_and_half(StaticPolicy([1.2, -0.4]), CENTRE, wide=0.4),
}


@pytest.mark.parametrize("explorer", EXPLORERS.values(), ids=EXPLORERS)
def test_a_density_is_one_in_all_and_that_of_what_is_drawn(explorer):
    step, cells = 1 / 160, np.arange(800) + 0.5  # edges of the boxes are edges of cells
    x, y = (axis.ravel() for axis in np.meshgrid(-1.5 + step * cells, -3 + step * cells))
    mass = step**2 * np.exp(explorer.log_density(np.zeros((len(x), 1)), np.stack([x, y], axis=1).astype(np.float32)))
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    drawn = explorer.draw(STATES, np.random.default_rng(0))
    assert drawn.weights.dtype == np.float32
    assert drawn.log_densities.dtype == np.float64
    expected = mass[(x > 0.9) & (x < 1.1) & (y > -0.55) & (y < -0.45)].sum()
    first, second = drawn.weights.T
    share = ((first > 0.9) & (first < 1.1) & (second > -0.55) & (second < -0.45)).mean()
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / len(STATES)))


def test_the_uniform_density_by_hand():
    drawn = EXPLORERS["uniform"].draw(STATES, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.log_densities, -math.log(1.0 * 0.2))
    np.testing.assert_allclose([drawn.box.low, drawn.box.high], [[0.5, -0.6], [1.5, -0.4]], rtol=1e-6)
    assert not drawn.box.outside(drawn.weights).any()
    np.testing.assert_allclose(drawn.weights.min(axis=0), drawn.box.low, atol=1e-3)
    np.testing.assert_allclose(drawn.weights.max(axis=0), drawn.box.high, atol=1e-3)
    outside = np.array([[1.6, -0.5]], np.float32)
    assert EXPLORERS["uniform"].log_density(STATES[:1], outside)[0] == -math.inf


def test_the_gaussian_density_is_scipys():
    drawn = EXPLORERS["gaussian"].draw(STATES, np.random.default_rng(0))
    expected = stats.multivariate_normal([1.0, -0.5], np.diag([0.25, 0.01])).logpdf(drawn.weights)
    np.testing.assert_allclose(drawn.log_densities, expected, rtol=1e-6, atol=1e-6)
    assert drawn.box is None


def test_a_mixture_knows_all_its_parts():
    explorer = EXPLORERS["half and half"]
    drawn = explorer.draw(STATES, np.random.default_rng(0))
    wide, near = (np.exp(part.log_density(STATES, drawn.weights)) for part in explorer.parts)
    np.testing.assert_allclose(np.exp(drawn.log_densities), (wide + near) / 2, rtol=1e-12)
    # of the near half, 4.6 % lie further off than 2 σ in the first weight; of the wide half, most
    assert (np.abs(drawn.weights[:, 0] - 1.2) < 0.2).mean() == pytest.approx(
        (0.954 + stats.norm(1, 0.4).cdf(1.4) - stats.norm(1, 0.4).cdf(1.0)) / 2, abs=0.015
    )


def test_exploration_follows_a_policy_that_follows_the_state():
    for explorer in (BoundedUniform(Line(), 0.15), Gaussian(Line(), 0.15), Mixed((Gaussian(Line(), 0.15),), (1.0,))):
        drawn = explorer.draw(STATES, np.random.default_rng(0))
        assert drawn.box is None
        centred = drawn.weights - Line().act(STATES)
        assert np.abs(centred.mean(axis=0)).max() < 0.01
    uniform = BoundedUniform(Line(), 0.15).draw(STATES, np.random.default_rng(0))
    assert np.abs(uniform.weights - Line().act(STATES)).max() <= 0.15 + 1e-6
    np.testing.assert_allclose(uniform.log_densities, -2 * math.log(0.3))


def test_the_box_of_a_mixture_holds_its_parts():
    mixed = Mixed((BoundedUniform(CENTRE, 0.1), BoundedUniform(StaticPolicy([2.0, 0.0]), 0.5)), (0.9, 0.1))
    np.testing.assert_allclose([mixed.box.low, mixed.box.high], [[0.9, -0.6], [2.5, 0.5]], rtol=1e-6)


def test_a_seed_is_a_draw_and_one_row_will_do():
    for explorer in EXPLORERS.values():
        first, second = (explorer.draw(STATES[:1], np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(first.weights, second.weights)
        assert first.weights.shape == (1, 2)
        assert len(explorer.draw(STATES[:0], np.random.default_rng(3)).weights) == 0


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf, np.array([0.1, 0.0])])
def test_a_width_is_above_zero(width):
    for kind in (BoundedUniform, Gaussian):
        with pytest.raises(ValueError, match="above 0"):
            kind(CENTRE, width)


@pytest.mark.parametrize("shares", [(0.5,), (0.5, 0.6), (1.0, 0.0)])
def test_shares_fit_their_parts(shares):
    with pytest.raises(ValueError, match="share"):
        Mixed((Gaussian(CENTRE, 0.1), Gaussian(CENTRE, 0.2)), shares)
