"""What a model reads: the embeddings of a batch and its numbers, written out, or partly still as ids of small tables.

B rows, C id columns with a small table each, W embedding width, R rows of these tables together.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Narrow:
    """The part of the input that is cheaper to look up after the first layer than before it.

    Attributes:
        tables: `[R, W]`, one small table after another; a leaf of autograd in training.
        begins: `[C + 1]` int64: where each begins.
        ids: `[B, C]` int32, local to each.
        counts: `[R]` int32: how often the batch has each row.
        usual: `[C]` int64: the commonest row of each column, if more than a quarter of the batch has it, or −1.
        places: `[B, C]` int32: of each row of the batch the values that are not the usual one (see
            `polyrank.nn.kernels.narrow.survey`).
        lengths: `[B]` int64: how many these are.
    """

    tables: Tensor
    begins: Tensor
    ids: Tensor
    counts: np.ndarray
    usual: np.ndarray
    places: np.ndarray
    lengths: np.ndarray

    def written(self) -> Tensor:
        """The embeddings, `[B, C·W]`."""
        return self.tables[self.ids + self.begins[:-1]].flatten(1)


@dataclass(frozen=True)
class Inputs:
    """x `[B, D]`: first the narrow part's C·W columns, if there is one, then the wide ones.

    Attributes:
        wide: `[B, D − C·W]`, written out.
        narrow: the rest, or None.
    """

    wide: Tensor
    narrow: Narrow | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.wide)

    def written(self) -> Tensor:
        """The whole x."""
        return self.wide if self.narrow is None else torch.cat([self.narrow.written(), self.wide], dim=1)


@dataclass(frozen=True)
class InputColumns:
    """What stands where in x.

    Attributes:
        features: for every feature, by name, its columns: its embeddings (of all sets), and its scaled number if any.
        sets: for every embedding set its columns: the embeddings that belong to it, and all scaled numbers.
    """

    features: Mapping[str, Sequence[int]]
    sets: Sequence[Sequence[int]]

    def of(self, names: Iterable[str]) -> list[int]:
        """The columns of these features, in increasing order.

        Raises:
            ValueError: a name that no feature has.
        """
        found: set[int] = set()
        for name in names:
            if name not in self.features:
                near = difflib.get_close_matches(name, self.features, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.features)}"
                raise ValueError(f"features must be named as in the schema. Received: {name!r}; {hint}")
            found.update(self.features[name])
        return sorted(found)


def by_set(x: Inputs, columns: Tensor) -> Tensor:
    """Each embedding set's input, written out: columns `[S, D']` of x → `[S, B, D']`."""
    picked = x.written().index_select(1, columns.flatten())
    return picked.view(x.rows, *columns.shape).transpose(0, 1)
