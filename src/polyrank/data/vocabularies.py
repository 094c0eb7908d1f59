"""Values → ids: vocabularies, hash buckets and number bins. Their state is JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.data.columns import INTEGER, TEXT, hash64, keys, missing

MISSING, UNKNOWN, FIRST = 0, 1, 2  # the ids every vocabulary begins with: null (or padding), out of vocabulary, values
_KEY_TYPES = {"int64": INTEGER, "large_string": TEXT}
_CHUNK = 65_536


@dataclass(frozen=True)
class Vocabulary:
    """Known values, most frequent first; value number i gets id i + 2. Null gets 0, an unseen value 1.

    Values are found by binary search among their sorted hashes and then compared, so that a look-up costs nothing per
    known value, and a value whose hash is another's is unknown, never that other one.
    """

    values: pa.Array
    _order: np.ndarray = field(init=False, repr=False, compare=False)
    _hashes: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the hashes."""
        hashes = hash64(self.values)
        order = np.argsort(hashes, kind="stable")
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_hashes", hashes[order])

    @property
    def rows(self) -> int:
        """Embedding rows it needs."""
        return len(self.values) + FIRST

    def ids(self, array: pa.Array, column: str) -> np.ndarray:
        """`[n]` int32 ids of `n` values."""
        result = np.full(len(array), UNKNOWN, np.int32)
        if len(self.values):
            key = keys(array, column, self.values.type)
            place = np.searchsorted(self._hashes, hash64(key))
            found = self._order[np.minimum(place, len(self.values) - 1)]
            same = np.asarray(pc.equal(self.values.take(pa.array(found)), key).fill_null(False), bool)
            result[same] = found[same] + FIRST
        result[missing(array)] = MISSING
        return result

    def json(self) -> Iterator[str]:
        """Its state as JSON text, piece by piece: of millions of values only some are Python objects at a time."""
        yield f'{{"kind": "vocabulary", "type": "{self.values.type}", "values": ['
        for first in range(0, len(self.values), _CHUNK):
            values = json.dumps(self.values.slice(first, _CHUNK).to_pylist(), separators=(",", ":"))
            yield ("," if first else "") + values[1:-1]
        yield "]}"


@dataclass(frozen=True)
class Buckets:
    """Hashing for open-ended ids: id = 2 + hash(value) mod buckets; two values may share a bucket.

    Null gets 0; a text that is no integer, where the ids are integers, 1.
    """

    buckets: int
    key_type: pa.DataType

    @property
    def rows(self) -> int:
        """Embedding rows it needs."""
        return self.buckets + FIRST

    def ids(self, array: pa.Array, column: str) -> np.ndarray:
        """`[n]` int32 ids of `n` values."""
        key = keys(array, column, self.key_type)
        result = (hash64(key) % np.uint64(self.buckets)).astype(np.int32) + FIRST
        result[missing(key)] = UNKNOWN
        result[missing(array)] = MISSING
        return result

    def json(self) -> Iterator[str]:
        """Its state as JSON text."""
        yield json.dumps({"kind": "buckets", "type": str(self.key_type), "buckets": self.buckets})


@dataclass(frozen=True)
class NumberScale:
    """A number's quantile bin and its scaled value.

    bin = 1 + #{edges ≤ x}; scaled = clip((s(x) − mean) / std, ±10) with s(x) = sign(x)·log(1 + |x|); both 0 where x is
    missing. The bins carry the shape, the scaled value the order within a bin.
    """

    edges: tuple[float, ...]
    mean: float
    std: float

    @property
    def rows(self) -> int:
        """Embedding rows it needs: missing, and a row per bin."""
        return len(self.edges) + 2

    def ids(self, values: np.ndarray) -> np.ndarray:
        """`[n]` int32 bins of `n` float64 values."""
        bins = 1 + np.searchsorted(np.asarray(self.edges), values, side="right")
        return np.where(np.isnan(values), MISSING, bins).astype(np.int32)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """`[n]` float32 scaled values."""
        z = (np.sign(values) * np.log1p(np.abs(values)) - self.mean) / (self.std or 1.0)
        scaled: np.ndarray = np.nan_to_num(np.clip(z, -10.0, 10.0), nan=0.0).astype(np.float32)
        return scaled

    def json(self) -> Iterator[str]:
        """Its state as JSON text."""
        yield json.dumps({"kind": "number", **asdict(self)}, allow_nan=False)


Encoder = Vocabulary | Buckets | NumberScale


def restore(state: Mapping[str, Any]) -> Encoder:
    """An encoder from what its `json` says.

    Raises:
        KeyError, TypeError, ValueError, pa.ArrowException: it does not say that.
    """
    if state["kind"] == "number":
        return NumberScale(tuple(state["edges"]), state["mean"], state["std"])
    key_type = _KEY_TYPES[state["type"]]
    if state["kind"] == "buckets":
        return Buckets(state["buckets"], key_type)
    return Vocabulary(pa.array(state["values"], key_type))
