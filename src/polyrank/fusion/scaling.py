"""What a learned fusion's network sees: heads on a log scale, context as quantiles, both fitted on training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from polyrank.fusion.fusion import Columns
from polyrank.fusion.transforms import Curve, quantile_curve
from polyrank.metrics.checks import Floats, Rows

_KNOTS = 65


@dataclass(frozen=True)
class Scaling:
    """Standardised logarithms of K heads, and C context columns as quantiles in [−1, 1].

    Ratios of probabilities are what heads differ by (a like of 2 % against 1 %), so a head enters as
    `z = ±(ln max(p, floor) − mean) / std`: strictly monotone in the head above its floor, which is half the smallest
    positive prediction of the training rows. The sign is minus for a head that speaks against a candidate. A context
    column has no natural scale, and what lies beyond the training rows should decide nothing new: its quantile.

    Attributes:
        heads: the K tasks.
        context: the C columns.
        negative: which heads speak against a candidate.
        floors: `[K]`.
        means: `[K]` of the logarithms.
        stds: `[K]` of the logarithms, 1 where there is none.
        curves: `[C]` quantile curves.
    """

    heads: tuple[str, ...]
    context: tuple[str, ...]
    negative: frozenset[str]
    floors: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    curves: tuple[Curve, ...]

    @classmethod
    def fit(cls, columns: Columns, heads: Sequence[str], context: Sequence[str], negative: Sequence[str]) -> Self:
        """From training rows."""
        floors, means, stds = [], [], []
        for head in heads:
            values = np.asarray(columns[head], np.float64)
            positive = values[values > 0]
            floors.append(float(positive.min()) / 2 if len(positive) else 1.0)
            logs = np.log(np.maximum(values, floors[-1]))
            means.append(float(logs.mean()))
            stds.append(float(logs.std()) or 1.0)
        curves = tuple(quantile_curve(columns[name], _KNOTS) for name in context)
        return cls(tuple(heads), tuple(context), frozenset(negative), tuple(floors), tuple(means), tuple(stds), curves)

    def inputs(self, columns: Mapping[str, Rows]) -> tuple[Floats, Floats]:
        """Heads `[N, K]` and context `[N, C]`, float64."""
        rows = len(columns[self.heads[0]])
        z, c = np.empty((rows, len(self.heads))), np.empty((rows, len(self.context)))
        for place, head in enumerate(self.heads):
            logs = np.log(np.maximum(columns[head], self.floors[place]))
            sign = -1.0 if head in self.negative else 1.0
            z[:, place] = sign * (logs - self.means[place]) / self.stds[place]
        for place, name in enumerate(self.context):
            c[:, place] = 2 * self.curves[place](columns[name]) - 1
        return z, c

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "heads": list(self.heads),
            "context": list(self.context),
            "negative": sorted(self.negative),
            "floors": list(self.floors),
            "means": list(self.means),
            "stds": list(self.stds),
            "curves": [{"x": list(curve.x), "y": list(curve.y)} for curve in self.curves],
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Self:
        """What `document` describes.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        floors, means, stds = (tuple(map(float, document[name])) for name in ("floors", "means", "stds"))
        heads, context = tuple(document["heads"]), tuple(document["context"])
        curves = tuple(Curve(tuple(entry["x"]), tuple(entry["y"])) for entry in document["curves"])
        if any(len(values) != len(heads) for values in (floors, means, stds)) or len(curves) != len(context):
            raise ValueError("a scaling must have as many numbers as heads, and as many curves as context columns")
        return cls(heads, context, frozenset(document["negative"]), floors, means, stds, curves)
