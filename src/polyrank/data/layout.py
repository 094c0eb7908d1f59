"""The encoded matrix: its rows, and where each feature lies in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FeatureKind = Literal["id", "category", "number", "tags", "sequence"]


@dataclass(frozen=True)
class Field:
    """Where a feature lies in the encoded matrix.

    Attributes:
        start: first id column; `stop`: one past the last (a bag or sequence has `max_length` columns).
        table: the feature whose embedding rows it uses: itself, or the one it shares with.
        dense: the column of its scaled value, −1 where it has none.
        derived: whether it was made from the other fields (tree leaves), and not read from the data.
    """

    name: str
    kind: FeatureKind
    start: int
    stop: int
    table: str
    dense: int = -1
    derived: bool = False


@dataclass(frozen=True)
class Layout:
    """The encoded matrix: its fields, the embedding rows of each table, and the edges of numbers' bins, scaled."""

    fields: tuple[Field, ...]
    tables: Mapping[str, int]
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def id_columns(self) -> int:
        """Width of the id matrix."""
        return max((f.stop for f in self.fields), default=0)

    @property
    def dense_columns(self) -> int:
        """Width of the matrix of scaled values."""
        return sum(f.dense >= 0 for f in self.fields)


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: ids `[n, F]` int32, dense `[n, D]` float32; where read: labels, weights `[n, T]`, groups `[n]`."""

    ids: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
