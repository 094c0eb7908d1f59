"""Setting rows of one source aside: the latest ones by a clock, or random ones."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from polyrank.data.fitting import NumberSketch
from polyrank.data.readers import Source
from polyrank.errors import DataError


def split(source: Source, shares: dict[str, float], time: str) -> dict[str, Source]:
    """Cut a source into named parts, in order of time: the first named is the earliest.

    Args:
        source: what to cut.
        shares: each part's share of the rows; they sum to 1.
        time: the column of the clock (a number or a timestamp); empty for a random split, the same in every run.

    Raises:
        DataError: the clock is no number or timestamp, or a part would be empty.
    """
    ends = np.cumsum(list(shares.values()))
    inner = _instants(source, time, ends[:-1]) if time else ends[:-1].tolist()
    cuts: list[float] = [float("-inf") if time else 0.0, *inner, float("inf") if time else 1.0]
    parts = {}
    for index, name in enumerate(shares):
        low, high = cuts[index], cuts[index + 1]
        if time:
            part = replace(source, dataset=source.dataset.filter(_between(source, time, low, high)))
        else:
            part = replace(source, share=(low, high))
        fingerprint = f"{source.fingerprint} {time} {low!r} {high!r}"
        parts[name] = replace(part, name=f"{source.name} ({name} part)", fingerprint=fingerprint)
        if parts[name].count_rows() == 0:
            raise DataError(
                f"every part of a split must hold rows; the {name} part has none",
                received=f"{source.name} split by {time or 'chance'}",
                mend="give data.valid and data.test, or other shares",
            )
    return parts


def _instants(source: Source, time: str, shares: np.ndarray) -> list[float]:
    """The clock's quantiles."""
    sketch = NumberSketch()
    for batch in source.batches([time]):
        try:
            sketch.add(batch.column(0).cast(pa.int64(), safe=False).cast(pa.float64()).to_numpy(zero_copy_only=False))
        except pa.ArrowException as error:
            raise DataError(
                "the clock must be a number or a timestamp", received=f"column {time!r}: {error}", mend="convert it"
            ) from error
    return [float(np.floor(value)) for value in sketch.quantiles(shares)]


def _between(source: Source, time: str, low: float, high: float) -> ds.Expression:
    kind = source.schema.field(time).type
    bounds = ds.field(time).is_valid()
    if low != float("-inf"):
        bounds = bounds & pc.greater_equal(ds.field(time), pa.scalar(int(low)).cast(kind))
    if high != float("inf"):
        bounds = bounds & pc.less(ds.field(time), pa.scalar(int(high)).cast(kind))
    return bounds
