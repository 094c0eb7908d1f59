"""What one streaming pass remembers: counts of values, moments, a sketch of each number.

Memory does not grow with rows, and the result does not depend on how the stream was cut into chunks, bit for bit.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SAMPLE = 262_144
BLOCK = 65_536
_COMPACT_AT = 4_000_000


class ValueCounts:
    """Counts of distinct values; memory grows with the number of distinct values only."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._pending = 0

    def add(self, array: pa.Array) -> None:
        """Count a chunk; nulls are not counted."""
        pairs = pc.value_counts(array.drop_null())
        self._parts.append(pa.table({"value": pairs.field("values"), "count": pairs.field("counts")}))
        self._pending += len(pairs)
        if self._pending > _COMPACT_AT:
            self._parts = [self.table()]
            # Distinct values that are really there do not count as pending, or each chunk would compact again.
            self._pending = 0

    def table(self) -> pa.Table:
        """Columns `value` and `count`, each value once, in no particular order."""
        if not self._parts:
            return pa.table({"value": pa.nulls(0, pa.int64()), "count": pa.nulls(0, pa.int64())})
        joined = pa.concat_tables(self._parts)
        counted = joined.group_by("value", use_threads=False).aggregate([("count", "sum")])
        return counted.rename_columns(["value", "count"]).combine_chunks()

    def values(self, key_type: pa.DataType, min_count: int) -> pa.Array:
        """Values seen at least `min_count` times, most frequent first, equal counts in the values' order."""
        table = self.table()
        table = table.filter(pc.greater_equal(table["count"], min_count))
        table = table.sort_by([("count", "descending"), ("value", "ascending")])
        values = table["value"].cast(key_type).combine_chunks()
        return values if isinstance(values, pa.Array) else pa.concat_arrays(values.chunks)


class Moments:
    """Count, mean and standard deviation of each of C columns; NaN is passed over.

    Rows are taken in blocks of `BLOCK`, and blocks are merged in order: mean += δ·n_b/n, M₂ += M₂_b + δ²·n_a·n_b/n with
    δ = mean_b − mean_a (Chan, Golub & LeVeque 1979). Nothing cancels, and a constant deviates by exactly 0.
    """

    def __init__(self, columns: int) -> None:
        self._rest = np.zeros((0, columns))
        self._state = np.zeros((3, columns))  # n, mean, M₂

    def add(self, values: np.ndarray) -> None:
        """Take a chunk `[n, C]` in."""
        rows = np.concatenate([self._rest, values], dtype=np.float64)
        whole = len(rows) - len(rows) % BLOCK
        for first in range(0, whole, BLOCK):
            self._state = _merged(self._state, rows[first : first + BLOCK])
        self._rest = rows[whole:].copy()

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, mean and standard deviation, each `[C]`; both 0 where nothing was counted."""
        count, mean, squares = _merged(self._state, self._rest)
        return count, mean, np.sqrt(squares / np.maximum(count, 1))


def _merged(state: np.ndarray, block: np.ndarray) -> np.ndarray:
    known = ~np.isnan(block)
    n = known.sum(axis=0)
    if not n.any():
        return state
    # About the first value of each column the sum is small, and of a constant exactly 0.
    origin = np.where(n, block[known.argmax(axis=0), np.arange(block.shape[1])], 0.0)
    mean_b = origin + np.where(known, block - origin, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares_b = np.square(np.where(known, block - mean_b, 0.0)).sum(axis=0)
    count, mean, squares = state
    total = np.maximum(count + n, 1)
    delta = np.where(n, mean_b - mean, 0.0)
    return np.stack([count + n, mean + delta * (n / total), squares + squares_b + delta**2 * (count * n / total)])


class Sample:
    """A uniform sample of the rows of a stream of C columns: `SAMPLE` of them, or all where there are fewer.

    Those with the smallest of independent uniform keys are kept (priority sampling), so the sample does not depend on
    how the stream is cut into chunks.
    """

    def __init__(self, columns: int = 1) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=0x706F6C79))
        self._keys = np.zeros(0)
        self.rows = np.zeros((0, columns))

    def add(self, rows: np.ndarray, known: np.ndarray) -> None:
        """Take a chunk `[n, C]` in; rows that are not `known` `[n]` are passed over, but draw their keys."""
        draws = self._generator.random(len(rows))[known]
        rows = rows[known]
        if len(self._keys) == SAMPLE:
            better = draws < self._keys.max()
            rows, draws = rows[better], draws[better]
        sample, drawn = np.concatenate([self.rows, rows]), np.concatenate([self._keys, draws])
        if len(drawn) > SAMPLE:
            kept = np.sort(np.argpartition(drawn, SAMPLE)[:SAMPLE])
            sample, drawn = sample[kept], drawn[kept]
        self.rows, self._keys = sample, drawn


class NumberSketch:
    """Mean and standard deviation of s(x) = sign(x)·log(1+|x|), and a uniform sample of x for quantiles."""

    def __init__(self) -> None:
        self._chosen = Sample()
        self._moments = Moments(1)

    def add(self, values: np.ndarray) -> None:
        """Take a chunk in; NaN (missing) and infinite values are passed over."""
        known = np.isfinite(values)
        self._chosen.add(values[:, None], known)
        self._moments.add((np.sign(values[known]) * np.log1p(np.abs(values[known])))[:, None])

    @property
    def _sample(self) -> np.ndarray:
        return self._chosen.rows[:, 0]

    @property
    def mean(self) -> float:
        """Mean of s(x)."""
        return float(self._moments.result()[1][0])

    @property
    def std(self) -> float:
        """Standard deviation of s(x); 0 for a constant."""
        return float(self._moments.result()[2][0])

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Values of the sample at these shares of it (nan where it is empty)."""
        if not len(self._sample):
            return np.full(len(shares), np.nan)
        result: np.ndarray = np.quantile(self._sample, shares, method="inverted_cdf")
        return result

    def edges(self, bins: int) -> tuple[float, ...]:
        """Increasing edges of about `bins` bins, each halfway between two neighbouring values of the sample.

        A value with 1/bins of the sample or more gets a bin of its own, and the others share the rest in equal parts:
        were all bins of equal mass, a column that is mostly 0 would keep two or three for the values that matter.
        """
        values, counts = np.unique(self._sample, return_counts=True)
        begins = np.ones(len(values), dtype=bool)  # which values begin a bin
        if len(values) > bins:
            heavy = counts * bins >= counts.sum()
            light = np.where(heavy, 0, counts)
            shared_bins = max(1, bins - 2 * int(heavy.sum()))  # a heavy value also cuts the bin around it in two
            bucket = (np.cumsum(light) - light) * shared_bins // max(1, int(light.sum()))
            begins[1:] = (np.diff(bucket) > 0) | heavy[1:] | heavy[:-1]
        starts = np.flatnonzero(begins)[1:]
        return tuple((values[starts - 1] / 2 + values[starts] / 2).tolist())  # halved first: the sum may overflow
