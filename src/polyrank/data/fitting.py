"""What one streaming pass remembers: counts of values, and a sketch of each number. Memory does not grow with rows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SAMPLE = 262_144
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


class NumberSketch:
    """Mean and standard deviation of s(x) = sign(x)·log(1+|x|), and a uniform sample of x for quantiles.

    The sample is the `SAMPLE` values with the smallest of independent uniform keys (priority sampling), so it does not
    depend on how the stream is cut into chunks; data with fewer rows is sampled whole.
    """

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=0x706F6C79))
        self._keys = np.zeros(0)
        self._sample = np.zeros(0)
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Take a chunk in; NaN (missing) and infinite values are passed over."""
        draws = self._generator.random(len(values))
        known = np.isfinite(values)
        values, draws = values[known], draws[known]
        scaled = np.sign(values) * np.log1p(np.abs(values))
        self._count += len(values)
        self._sum += float(scaled.sum())
        self._squares += float(np.square(scaled).sum())
        if len(self._keys) == SAMPLE:
            better = draws < self._keys.max()
            values, draws = values[better], draws[better]
        sample, drawn = np.concatenate([self._sample, values]), np.concatenate([self._keys, draws])
        if len(drawn) > SAMPLE:
            kept = np.sort(np.argpartition(drawn, SAMPLE)[:SAMPLE])
            sample, drawn = sample[kept], drawn[kept]
        self._sample, self._keys = sample, drawn

    @property
    def mean(self) -> float:
        """Mean of s(x)."""
        return self._sum / self._count if self._count else 0.0

    @property
    def std(self) -> float:
        """Standard deviation of s(x); 0 for a constant."""
        if not self._count:
            return 0.0
        return float(np.sqrt(max(self._squares / self._count - self.mean**2, 0.0)))

    def edges(self, bins: int) -> tuple[float, ...]:
        """At most `bins − 1` increasing edges: halfway between the values if these are few, else at equal quantiles."""
        distinct = np.unique(self._sample)
        if len(distinct) <= bins:
            return tuple(((distinct[:-1] + distinct[1:]) / 2).tolist())
        quantiles = np.quantile(self._sample, np.arange(1, bins) / bins, method="inverted_cdf")
        edges = np.unique(quantiles)
        return tuple(edges[edges > distinct[0]].tolist())
