"""One merged embedding table for all features, gathered at once; gradients exist for the gathered rows only.

B rows, F id columns, W embedding width, R rows of the merged table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Columns:
    """Which id columns are single values and which are bags, and where each one's rows begin in the merged table.

    Attributes:
        starts: for every feature its first id column.
        stops: for every feature one past its last id column (a bag has several).
        bags: for every feature whether it is a bag (id 0 is padding there).
        names: for every feature the table it reads.
        tables: each table's number of rows, by name.
    """

    starts: Sequence[int]
    stops: Sequence[int]
    bags: Sequence[bool]
    names: Sequence[str]
    tables: Mapping[str, int]


class Embeddings(nn.Module):
    """Ids → the concatenation of their embeddings: one for each single-valued feature, the mean over each bag.

    The table is no leaf of autograd. In training the gathered rows are: after `backward` they carry their gradient, and
    `taken` pairs them with the table rows they came from, so that an optimiser can update these rows and nothing ever
    has the size of the table. An empty bag gives zeros.

    Args:
        columns: the layout of the id matrix.
        width: W.
        std: standard deviation of the initial rows.
    """

    single: Tensor
    single_offsets: Tensor
    bag: Tensor
    bag_offsets: Tensor
    bag_owner: Tensor

    def __init__(self, columns: Columns, width: int, *, std: float = 0.05) -> None:
        super().__init__()
        offsets: dict[str, int] = {}
        total = 0
        for name, rows in columns.tables.items():
            offsets[name] = total
            total += rows
        single = [
            (a, offsets[t]) for a, bag, t in zip(columns.starts, columns.bags, columns.names, strict=True) if not bag
        ]
        spans = [
            (range(a, z), offsets[t])
            for a, z, bag, t in zip(columns.starts, columns.stops, columns.bags, columns.names, strict=True)
            if bag
        ]
        cells = [(column, offset, owner) for owner, (span, offset) in enumerate(spans) for column in span]
        for name, values in (
            ("single", [column for column, _ in single]),
            ("single_offsets", [offset for _, offset in single]),
            ("bag", [column for column, _, _ in cells]),
            ("bag_offsets", [offset for _, offset, _ in cells]),
            ("bag_owner", [owner for _, _, owner in cells]),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.bags = len(spans)
        self.width = width
        self.out_width = (len(single) + self.bags) * width
        self.table = nn.Parameter(torch.empty(total, width).normal_(0.0, std), requires_grad=False)
        self.taken: list[tuple[Tensor, Tensor]] = []

    def forward(self, ids: Tensor) -> Tensor:
        """Look a batch up.

        Args:
            ids: `[B, F]` integers, local to each table.

        Returns:
            `[B, (features) · W]`: single-valued features first, then bags, each in the layout's order.
        """
        self.taken = []
        rows = len(ids)
        parts = []
        if len(self.single):
            places = ids[:, self.single] + self.single_offsets  # [B, S]
            parts.append(self._gather(places).view(rows, -1))
        if self.bags:
            local = ids[:, self.bag]
            here = local != 0
            row, cell = here.nonzero(as_tuple=True)
            owner = row * self.bags + self.bag_owner[cell]  # which of the B·bags bags each value is in, increasing
            counts = torch.bincount(owner, minlength=rows * self.bags)
            values = self._gather(local[here] + self.bag_offsets[cell])  # [values, W]
            # Values stand bag after bag, so a bag's sum is a segment of them.
            sums = torch.segment_reduce(values, "sum", lengths=counts, unsafe=True, initial=0.0)
            parts.append((sums / counts.clamp_min(1).unsqueeze(1)).view(rows, -1))
        return torch.cat(parts, dim=1) if len(parts) != 1 else parts[0]

    def _gather(self, places: Tensor) -> Tensor:
        """Rows of the table, `[n, W]`; in training a leaf that will receive their gradient."""
        places = places.reshape(-1)
        rows = self.table.index_select(0, places)
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self.taken.append((places, rows))
        return rows


def sum_by_row(places: Tensor, gradients: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Sum the gradients of repeated rows.

    Args:
        places: `[n]` table rows, repeats allowed.
        gradients: `[n, W]`.
        rows: R.

    Returns:
        The distinct rows `[u]`, increasing, and their summed gradients `[u, W]`.
    """
    if rows <= 4 * len(places):
        # A small table: summing into all its rows is quicker than sorting the places.
        dense = torch.ops.aten.embedding_dense_backward(gradients, places, rows, -1, False)
        touched = torch.zeros(rows, dtype=torch.bool)
        touched[places] = True
        distinct = touched.nonzero().squeeze(1)
        return distinct, dense.index_select(0, distinct)
    distinct, inverse = torch.unique(places, return_inverse=True)
    return distinct, torch.ops.aten.embedding_dense_backward(gradients, inverse, len(distinct), -1, False)
