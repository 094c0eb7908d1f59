"""The Fusion protocol: several task scores of a candidate → the one score that sorts the list."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from polyrank.metrics.checks import Floats, Rows

# `[N]` arrays by name: a task's prediction under the task's name, a context column under the column's.
Columns: TypeAlias = Mapping[str, Rows]
Document: TypeAlias = dict[str, Any]


class Fusion(ABC):
    """`score = Σ_k w_k(context) · g_k(p_k)` or whatever a subclass makes of it; higher is better.

    Formulas, learned rankers and policies differ only in who supplies `w` and `g`. A fusion is immutable, needs no
    labels, and draws no random numbers: equal candidates get equal scores.

    Attributes:
        kind: its key in `FUSIONS` (`fusion/store.py`), by which a saved one is read back.
        heads: the tasks whose predictions it reads, by name.
        context: the other numeric columns it reads (a video's length, a price).
        within_request: a score depends on the other candidates of the request (ranks, attention): the candidates that
            are scored together must be those that compete.
    """

    kind: ClassVar[str]
    heads: tuple[str, ...]
    context: tuple[str, ...] = ()
    within_request: bool = False

    @abstractmethod
    def score(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """Score rows of any number of requests.

        Args:
            rows: `[N]` finite arrays for every head (probabilities, or values in the label's unit) and context column;
                others are ignored.
            requests: `[N]` int64, equal for rows of one request, in any order; None: all rows are one request.

        Returns:
            `[N]` finite scores.

        Raises:
            ValueError: a column is missing, has another length, or a value is not finite.
        """

    @abstractmethod
    def document(self) -> Document:
        """All of it but its arrays, for JSON."""

    def arrays(self) -> dict[str, Rows]:
        """Its arrays by name, for safetensors; most have none."""
        return {}

    @classmethod
    @abstractmethod
    def restore(cls, document: Document, arrays: Mapping[str, Rows]) -> Self:
        """What `document` and `arrays` describe.

        Raises:
            ConfigError, ValueError, KeyError, TypeError: they describe none.
        """

    def rank(self, request: Columns) -> npt.NDArray[np.intp]:
        """Positions `[N]` of one request's candidates, best first; equal scores keep their order."""
        return np.argsort(-self.score(request), kind="stable")


def read_columns(rows: Columns, names: Sequence[str]) -> dict[str, Floats]:
    """The named columns in float64.

    Raises:
        ValueError: one is missing, not `[N]` like the others, or holds a value that is not finite.
    """
    columns: dict[str, Floats] = {}
    rows_of: int | None = None
    for name in names:
        if name not in rows:
            raise ValueError(f"the fusion reads {name!r}, which is not among {sorted(rows)}")
        column = np.asarray(rows[name], np.float64)
        if column.ndim != 1 or (rows_of is not None and len(column) != rows_of):
            raise ValueError(f"{name!r} must have the shape ({rows_of if rows_of is not None else 'N'},)")
        if not np.isfinite(column).all():
            raise ValueError(f"{name!r} must be finite, got {column[~np.isfinite(column)][0]}")
        columns[name], rows_of = column, len(column)
    return columns
