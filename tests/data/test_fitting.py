import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrank.data import fitting
from polyrank.data.fitting import BLOCK, Moments, NumberSketch, ValueCounts

NAN = np.nan


def _cut(values: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(values, np.cumsum(sizes)[np.cumsum(sizes) < len(values)])


def test_values_by_count_then_by_value() -> None:
    counts = ValueCounts()
    counts.add(pa.array([5, 3, None, 3, 9]))
    counts.add(pa.array([9, 1, 1, 9, None]))

    assert counts.values(pa.int64(), 1).to_pylist() == [9, 1, 3, 5]
    assert counts.values(pa.int64(), 2).to_pylist() == [9, 1, 3]
    assert counts.values(pa.int64(), 4).to_pylist() == []


def test_no_values_at_all() -> None:
    empty = ValueCounts()
    for type_ in (pa.int64(), pa.large_string()):
        assert empty.values(type_, 1).to_pylist() == []
        assert empty.values(type_, 1).type == type_
    empty.add(pa.nulls(3, pa.large_string()))
    assert empty.values(pa.large_string(), 1).to_pylist() == []


def test_compacting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    chunks = [pa.array([f"v{v}" for v in rng.zipf(1.5, 50)], pa.large_string()) for _ in range(40)]
    plain, compacted = ValueCounts(), ValueCounts()
    for chunk in chunks:
        plain.add(chunk)
    monkeypatch.setattr(fitting, "_COMPACT_AT", 60)
    for chunk in chunks:
        compacted.add(chunk)

    assert len(compacted._parts) < len(plain._parts)
    assert compacted.values(pa.large_string(), 2).equals(plain.values(pa.large_string(), 2))


def test_moments_by_hand() -> None:
    moments = Moments(3)
    moments.add(np.array([[1, NAN, NAN], [3, 5, NAN]], np.float32))
    moments.add(np.array([[NAN, 5, NAN], [5, 5, NAN]], np.float32))

    count, mean, std = moments.result()

    assert count.tolist() == [3, 3, 0]
    assert mean.tolist() == [3, 5, 0]
    np.testing.assert_allclose(std, [np.sqrt(8 / 3), 0, 0])


def test_moments_of_many_large_float32_values() -> None:
    """Sums in float32, or a variance from E[x²] − mean², would be far off here."""
    values = np.random.default_rng(0).integers(10**6, 10**6 + 200, (2 * BLOCK + 77, 1)).astype(np.float32)
    moments = Moments(1)
    for chunk in np.array_split(values, 5):
        moments.add(chunk)

    count, mean, std = moments.result()

    assert count[0] == len(values)
    np.testing.assert_allclose(mean[0], values.mean(dtype=np.float64), rtol=1e-13)
    np.testing.assert_allclose(std[0], values.std(dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize("constant", [0.1, -1e9, 3.0, 1e-300])
def test_a_constant_does_not_deviate_at_all(constant: float) -> None:
    moments = Moments(1)
    for size in (1, BLOCK, 1000):
        moments.add(np.full((size, 1), constant))

    assert moments.result()[1].tolist() == [constant]
    assert moments.result()[2].tolist() == [0]


@given(st.lists(st.integers(0, 40_000), max_size=12))
def test_moments_and_sketch_do_not_depend_on_the_chunks(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(BLOCK + 9_999) < 0.1, NAN, rng.normal(size=BLOCK + 9_999) * 1e3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "SAMPLE", 500)
        whole, cut = NumberSketch(), NumberSketch()
        whole.add(values)
        for chunk in _cut(values, sizes):
            cut.add(chunk)

    assert (cut.mean, cut.std) == (whole.mean, whole.std)
    assert cut.edges(16) == whole.edges(16)


def test_sketch_moments_are_of_signed_logs() -> None:
    sketch = NumberSketch()
    sketch.add(np.array([np.e - 1, NAN, 1 - np.e, np.inf, -np.inf, 0.0, np.e**2 - 1]))

    assert sketch.mean == pytest.approx(0.5)
    assert sketch.std == pytest.approx(np.sqrt((1 + 1 + 0 + 4) / 4 - 0.25))


def test_edges_of_few_values_lie_halfway() -> None:
    sketch = NumberSketch()
    sketch.add(np.array([1.0, 10, 2, 2, 1, NAN]))

    assert sketch.edges(3) == (1.5, 6.0)
    assert sketch.edges(64) == (1.5, 6.0)


def test_edges_of_many_values_share_the_sample_equally() -> None:
    sketch = NumberSketch()
    sketch.add(np.arange(1.0, 101))

    assert sketch.edges(4) == (25.5, 50.5, 75.5)


def test_a_heavy_value_gets_a_bin_of_its_own() -> None:
    sketch = NumberSketch()
    sketch.add(np.concatenate([np.zeros(97), np.arange(1.0, 10)]))

    # 0 cuts at 0.5; the other nine share the two bins that are left: 1–5 and 6–9.
    assert sketch.edges(4) == (0.5, 5.5)


def test_edges_of_nothing_of_a_constant_and_of_extremes() -> None:
    sketch = NumberSketch()
    assert (sketch.edges(8), sketch.mean, sketch.std) == ((), 0, 0)
    sketch.add(np.array([NAN, np.inf]))
    assert (sketch.edges(8), sketch.mean, sketch.std) == ((), 0, 0)
    sketch.add(np.full(9, 0.1))
    assert (sketch.edges(8), sketch.std) == ((), 0)
    extreme = NumberSketch()
    extreme.add(np.array([1e308, 1.2e308]))
    assert extreme.edges(8) == pytest.approx((1.1e308,))


def test_sample_is_uniform_over_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SAMPLE", 4_000)
    sketch = NumberSketch()
    for chunk in np.array_split(np.arange(100_000.0), 13):
        sketch.add(chunk)

    assert len(sketch._sample) == 4_000
    assert len(np.unique(sketch._sample)) == 4_000
    # The standard error of a sample's quartile is 100 000 · √(0.25 · 0.75 / 4 000) ≈ 685.
    np.testing.assert_allclose(sketch.quantiles(np.array([0.25, 0.5, 0.75])), [25_000, 50_000, 75_000], atol=3 * 800)
