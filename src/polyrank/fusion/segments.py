"""One fusion per segment (new and active users): the same heads, other weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from polyrank.fusion.formula import Formula
from polyrank.fusion.fusion import Columns, Document, Fusion, read_columns
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class Segmented(Fusion):
    """Formulas by the value of a numeric column; a value without a formula of its own has the common one.

    A segment is a trait of the request (of its user), so that scores of two segments never meet in one list.

    Attributes:
        column: the context column that names the segment, as a whole number.
        parts: formulas by segment.
        otherwise: the common formula.
    """

    kind: ClassVar[str] = "segmented"
    column: str
    parts: Mapping[int, Formula]
    otherwise: Formula

    def __post_init__(self) -> None:
        """Gather what any part reads."""
        every = (self.otherwise, *self.parts.values())
        heads = tuple(dict.fromkeys(name for part in every for name in part.heads))
        context = tuple(dict.fromkeys([self.column, *(name for part in every for name in part.context)]))
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "context", context)
        object.__setattr__(self, "within_request", any(part.within_request for part in every))

    def score(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """Each row by its own segment's formula; see `Fusion.score`."""
        columns = read_columns(rows, (*self.heads, *self.context))
        segment, scores = columns[self.column], np.zeros(len(columns[self.column]))
        rest = np.ones(len(segment), np.bool_)
        for value, part in [*self.parts.items(), (None, self.otherwise)]:
            mine = rest if value is None else segment == value
            if mine.any():
                inner = {name: column[mine] for name, column in columns.items()}
                scores[mine] = part.score(inner, None if requests is None else np.asarray(requests)[mine])
            rest = rest & ~mine
        return scores

    def document(self) -> Document:
        """See `Fusion.document`."""
        parts = {str(value): part.document() for value, part in self.parts.items()}
        return {"column": self.column, "parts": parts, "otherwise": self.otherwise.document()}

    @classmethod
    def restore(cls, document: Document, arrays: Mapping[str, Rows]) -> Self:
        """See `Fusion.restore`."""
        parts = {int(value): Formula.restore(part, arrays) for value, part in document["parts"].items()}
        return cls(document["column"], parts, Formula.restore(document["otherwise"], arrays))


def shrunk(
    own: Mapping[str, float], common: Mapping[str, float], parameters: Mapping[str, Any], share: float
) -> dict[str, float]:
    """A segment's parameters drawn towards the common ones: `share` of its own, the rest common.

    Weights on a log scale are averaged in their logarithms: `w = w_own^share · w_common^(1 − share)`.
    With `share = n / (n + κ)` for a segment of n requests this is the shrinkage of an empirical-Bayes mean whose
    prior is worth κ requests.
    """
    mixed = {}
    for name, parameter in parameters.items():
        if parameter.log:
            mixed[name] = math.exp(share * math.log(own[name]) + (1 - share) * math.log(common[name]))
        else:
            mixed[name] = share * own[name] + (1 - share) * common[name]
    return mixed
