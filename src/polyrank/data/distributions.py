"""How the labels of a duration task are distributed over its training rows: overall, and by the item's duration."""

import numpy as np

from polyrank.data.fitting import Sample

POINTS = 513  # quantiles of a distribution, equally spaced
FEWEST = 50  # rows of a group's own distribution; with fewer it takes that of all


class LabelSketch:
    """A uniform sample of a task's labels, each beside the duration of its item. One streaming pass, bounded memory.

    Up to 262,144 rows it holds all, and the quantiles are exact; beyond, a quantile q deviates by about
    √(q(1−q) / 262,144), that is, less than 0.001, in its share of rows.
    """

    def __init__(self) -> None:
        self._sample = Sample(2)

    def add(self, labels: np.ndarray, durations: np.ndarray | None) -> None:
        """Take a chunk in.

        Args:
            labels: `[n]`, NaN where a row does not count for the task.
            durations: `[n]` of the items, NaN where missing; None where the task names none.
        """
        beside = np.full(len(labels), np.nan) if durations is None else durations
        self._sample.add(np.stack([labels, beside], axis=1).astype(np.float64), ~np.isnan(labels))

    def quantiles(self) -> tuple[float, ...]:
        """`POINTS` equally spaced quantiles, from the least label to the greatest."""
        return _quantiles(self._sample.rows[:, 0])

    def grouped(self, edges: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
        """The quantiles by the bin of the duration: bin 0 for missing ones, then those between the edges."""
        labels, durations = self._sample.rows.T
        bins = np.where(np.isnan(durations), 0, 1 + np.searchsorted(np.asarray(edges), durations, side="right"))
        order = np.argsort(bins, kind="stable")
        parts = np.split(labels[order], np.searchsorted(bins[order], np.arange(1, len(edges) + 2)))
        overall = self.quantiles()
        return tuple(_quantiles(part) if len(part) >= FEWEST else overall for part in parts)


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.quantile(values, np.linspace(0.0, 1.0, POINTS)).tolist())
