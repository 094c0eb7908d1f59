"""Setting rows of one source aside: the latest ones by a clock, or random ones."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import types

from polyrank.config import nearest
from polyrank.data.fitting import NumberSketch
from polyrank.data.readers import Source
from polyrank.errors import DataError


def split(source: Source, shares: dict[str, float], time: str) -> dict[str, Source]:
    """Cut a source into named parts, in order of time: the first named is the earliest.

    Every row is in exactly one part. Rows of the same time are never parted: they are all in the later of the two parts
    that a cut among them would make.

    Args:
        source: what to cut.
        shares: each part's share of the rows; they sum to 1.
        time: the column of the clock (a number, a date or a timestamp); empty for a random split, the same in every
            run.

    Raises:
        DataError: the clock is missing, of another type, or null on a row, or a part would be empty.
    """
    ends = np.cumsum(list(shares.values()))[:-1]
    inner = _instants(source, time, ends) if time else ends.tolist()
    cuts = [-math.inf, *inner, math.inf]
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


def _instants(source: Source, time: str, ends: np.ndarray) -> list[float]:
    """The time at which each later part begins: the first that has the share `ends` of the rows before it."""
    if time not in source.schema.names:
        received = f"no column {time!r} in {source.name}"
        raise DataError("the clock must be a column", received=received, mend=nearest(time, source.schema.names))
    kind = source.schema.field(time).type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_timestamp(kind) or types.is_date(kind)):
        received = f"column {time!r} of type {kind}"
        raise DataError("the clock must be a number, a date or a timestamp", received=received, mend="convert it")
    sketch, rows, timeless = NumberSketch(), 0, 0
    for batch in source.batches([time]):
        clock = batch.column(0).cast(_number(kind), safe=False).cast(pa.float64(), safe=False)
        times = clock.to_numpy(zero_copy_only=False)
        sketch.add(times)
        rows, timeless = rows + len(times), timeless + int(np.count_nonzero(~np.isfinite(times)))
    if timeless or not rows:
        raise DataError(
            "every row needs a clock to be split by time",
            received=f"column {time!r} of {source.name} has none on {timeless:,} of {rows:,} rows",
            mend="clean it, or remove `time` from the schema for a random split, or give data.valid and data.test",
        )
    # A little above the share: the value after the last one of the earlier part, however the share was rounded.
    return [float(value) for value in sketch.quantiles(ends + 1e-9)]


def _number(kind: pa.DataType) -> pa.DataType:
    """What a clock is read as: integers where it counts something."""
    if types.is_floating(kind):
        return pa.float64()
    return pa.int32() if types.is_date32(kind) else pa.int64()


def _between(source: Source, time: str, low: float, high: float) -> ds.Expression:
    kind = source.schema.field(time).type
    within = pc.scalar(True)

    def instant(value: float) -> pa.Scalar:
        return pa.scalar(value if types.is_floating(kind) else int(value), _number(kind)).cast(kind)

    if low != -math.inf:
        within = within & pc.greater_equal(ds.field(time), instant(low))
    if high != math.inf:
        within = within & pc.less(ds.field(time), instant(high))
    return within
