"""Encoded rows as the flat matrix that boosted trees read."""

import numpy as np

from polyrank.data.layout import Field, Layout

_MANY = 1_000  # a category of more values is given as a number: LightGBM overfits long lists of categories


def tree_columns(layout: Layout) -> list[tuple[str, str]]:
    """Columns of the matrix: names that LightGBM accepts, and whether each is a category or a number."""
    result = []
    for index, field in _own(layout):
        if field.kind in ("tags", "sequence"):
            result += [(f"f{index}_length", "number"), (f"f{index}_last", "number")]
        else:
            short = field.kind == "category" and layout.tables[field.table] <= _MANY
            result.append((f"f{index}", "category" if short else "number"))
    return result


def tree_matrix(layout: Layout, ids: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """`[n, columns]` float32; every embedding id below 2²⁴ is exact in it, and beyond only neighbours in rank merge.

    Numbers enter as they are ordered, missing ones as missing; ids as their rank by frequency; bags and sequences by
    their length and their last value. What trees have made themselves (leaves) is left out.

    Args:
        layout: the encoded matrix.
        ids: `[n, F]` int32.
        dense: `[n, D]` float32.
    """
    columns: list[np.ndarray] = []
    for _, field in _own(layout):
        block = ids[:, field.start : field.stop]
        if field.kind == "number":
            columns.append(np.where(block[:, 0] == 0, np.nan, dense[:, field.dense]))
        elif field.kind in ("tags", "sequence"):
            length = (block != 0).sum(axis=1)
            last = block[np.arange(len(block)), np.maximum(length - 1, 0)]
            columns += [length, last]
        else:
            columns.append(block[:, 0])
    return np.stack(columns, axis=1).astype(np.float32)


def _own(layout: Layout) -> list[tuple[int, Field]]:
    return [(index, field) for index, field in enumerate(layout.fields) if not field.derived]
