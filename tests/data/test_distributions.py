import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrank.data import distributions, fitting
from polyrank.data.distributions import POINTS, LabelSketch

NAN = np.nan


def test_quantiles_of_labels_that_count() -> None:
    sketch = LabelSketch()
    sketch.add(np.array([0.0, NAN, 8.0]), None)
    sketch.add(np.array([2.0, 6.0, NAN, 4.0]), None)

    found = sketch.quantiles()

    assert found == tuple(np.linspace(0.0, 8.0, POINTS).tolist())


def test_by_the_duration_s_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "FEWEST", 2)
    sketch = LabelSketch()
    durations = np.array([NAN, 5.0, 10.0, 99.0, 9.9, np.inf, NAN, 1.0])
    sketch.add(np.array([1.0, 2.0, 30.0, 50.0, 4.0, 70.0, 3.0, NAN]), durations)

    missing, short, long = sketch.grouped((10.0,))  # an edge belongs to the bin above it, as in the encoder

    assert (missing[0], missing[-1]) == (1.0, 3.0)
    assert (short[0], short[-1]) == (2.0, 4.0)
    assert (long[0], long[POINTS // 2], long[-1]) == (30.0, 50.0, 70.0)


def test_a_group_without_enough_rows_takes_the_distribution_of_all() -> None:
    sketch = LabelSketch()
    sketch.add(np.arange(120.0), np.r_[np.zeros(100), np.full(20, 7.0)])

    missing, short, long = sketch.grouped((5.0,))

    assert missing == long == sketch.quantiles()
    assert (short[0], short[-1]) == (0.0, 99.0)


@given(st.lists(st.integers(0, 900), max_size=8))
def test_does_not_depend_on_the_chunks(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(2_000) < 0.2, NAN, rng.exponential(9.0, 2_000))
    durations = np.where(rng.random(2_000) < 0.1, NAN, rng.exponential(30.0, 2_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "SAMPLE", 500)
        whole, cut = LabelSketch(), LabelSketch()
        whole.add(labels, durations)
        for rows in np.split(np.arange(2_000), np.cumsum(sizes)[np.cumsum(sizes) < 2_000]):
            cut.add(labels[rows], durations[rows])

    assert cut.quantiles() == whole.quantiles()
    assert cut.grouped((10.0, 40.0)) == whole.grouped((10.0, 40.0))


def test_a_sample_of_many_is_close_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SAMPLE", 20_000)
    labels = np.random.default_rng(0).exponential(9.0, 200_000)
    sketch = LabelSketch()
    sketch.add(labels, None)
    shares = (labels[:, None] <= np.array(sketch.quantiles())[[128, 256, 384]]).mean(axis=0)

    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.015)
