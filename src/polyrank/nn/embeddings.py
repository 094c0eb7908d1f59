"""One merged embedding table for all features, gathered at once; gradients exist for the gathered rows only.

B rows, F id columns, S single-valued wide features, G bags, D numbers, W embedding width, R rows of the merged table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from polyrank.nn.inputs import Inputs, Narrow
from polyrank.nn.kernels import optional

kernels = optional("polyrank.nn.kernels.rows")
_threads = optional("polyrank.nn.kernels.threads")
_narrow = optional("polyrank.nn.kernels.narrow")
_blocks = optional("polyrank.nn.kernels.blocks")

NARROW_ROWS = 2_048
"""A block of outputs of that many table rows, 256 KiB, still comes from a core's own cache."""


@dataclass(frozen=True)
class Columns:
    """Which id columns are single values and which are bags, and which table each one reads.

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


@dataclass(frozen=True)
class Touched:
    """Distinct rows of the table and the gradient of each, in P parts.

    Attributes:
        rows: `[n]` int64: part p's are `rows[starts[p] : starts[p] + counts[p]]`.
        sums: `[n, W]` float32: the gradient of each, summed over its occurrences.
        starts: `[P]` int64.
        counts: `[P]` int64.
    """

    rows: Tensor
    sums: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def of(cls, rows: Tensor, sums: Tensor) -> "Touched":
        """One part."""
        return cls(rows, sums, torch.from_numpy(np.zeros(1, np.int64)), torch.from_numpy(np.array([len(rows)])))


@dataclass(frozen=True)
class _Taken:
    """What a batch took: its ids `[B, F]`, the bags' shares `[B, G]`, and what carries the gradient after backward."""

    ids: Tensor
    shares: Tensor
    wide: Tensor | None
    narrow: Narrow | None


class Embeddings(nn.Module):
    """Ids → embeddings: one for each single-valued feature, the mean over each bag (zeros for an empty one).

    The table is no leaf of autograd. In training the output is: after `backward` it carries its gradient, and `touched`
    gives the rows it came from and their gradients, so that an optimiser can update these rows and nothing ever has the
    size of the table.

    Features with a small table of their own come first in the output ("narrow", for which see `Inputs`), then the other
    single-valued ones, then bags; each in the layout's order.

    Args:
        columns: the layout of the id matrix.
        width: W.
        std: standard deviation of the initial rows.
        first_order: further columns of each row, zeros at the start, which W counts from here on: the weights of
            first-order terms.
    """

    def __init__(self, columns: Columns, width: int, *, std: float = 0.05, first_order: int = 0) -> None:
        super().__init__()
        features = range(len(columns.starts))
        narrow = _narrow_features(columns)
        singles = [f for f in features if not columns.bags[f] and f not in narrow]
        bags = [f for f in features if columns.bags[f]]
        # Tables of narrow features come first, so that they are one slice of the merged table.
        tables = [columns.names[f] for f in narrow]
        tables += [name for name in columns.tables if name not in tables]
        offsets, total = {}, 0
        for name in tables:
            offsets[name] = total
            total += columns.tables[name]
        self.order = [*narrow, *singles, *bags]
        self.narrow_columns = np.array([columns.starts[f] for f in narrow], np.int64)
        self.all_narrow = self.narrow_columns.tolist() == list(range(max(columns.stops, default=0)))
        sizes = [columns.tables[columns.names[f]] for f in narrow]
        self.begins = torch.tensor([0, *np.cumsum(sizes)], dtype=torch.int64)
        self.narrow_rows = sum(sizes)
        self.rest = _Plan(columns, [*singles, *bags], offsets)
        self.whole = _Plan(columns, self.order, offsets)
        self.width, self.features = width + first_order, len(self.order)
        self.table = nn.Parameter(torch.empty(total, self.width).normal_(0.0, std), requires_grad=False)
        if first_order:
            self.table[:, width:] = 0.0
        self._taken: _Taken | None = None

    def forward(self, ids: Tensor, numbers: Tensor, *, written: bool = False) -> Inputs:
        """Look a batch up.

        Args:
            ids: `[B, F]` int32, local to each table.
            numbers: `[B, D]` float32: further columns of the input.
            written: whether all of the input must be written out.

        Returns:
            The input `[B, features · W + D]`.
        """
        rows = self.narrow_rows
        # Small tables are worth multiplying with the weights where they have fewer rows than the batch has values.
        split = _narrow is not None and not written and 0 < rows < len(ids) * len(self.narrow_columns)
        plan = self.rest if split else self.whole
        wide, shares = _look_up(self.table, ids, plan, numbers)
        narrow = None
        if split:
            # By numpy: torch is slow at gathering columns.
            own = ids if self.all_narrow else torch.from_numpy(ids.numpy().take(self.narrow_columns, axis=1))
            narrow = _survey(self.table.detach()[:rows], self.begins, own)
        taken = None
        if torch.is_grad_enabled():
            if narrow is not None:
                narrow.tables.requires_grad_()
            taken = _Taken(ids, shares, wide.requires_grad_() if len(plan.columns) else None, narrow)
        self._taken = taken
        return Inputs(wide, narrow)

    def touched(self) -> list[Touched]:
        """Rows that the last batch took and their gradients; none where no gradient came back, or a second time.

        The parts touch different rows.
        """
        taken, self._taken = self._taken, None
        found: list[Touched] = []
        if taken is None:
            return found
        narrow, wide = taken.narrow, taken.wide
        if narrow is not None and narrow.tables.grad is not None:
            (rows,) = narrow.counts.nonzero()
            sums = narrow.tables.grad.numpy().take(rows, axis=0)
            found.append(Touched.of(torch.from_numpy(rows), torch.from_numpy(sums)))
        if wide is not None and wide.grad is not None:
            found.append(_sum_rows(taken, self.whole if narrow is None else self.rest, wide.grad, self.width))
        return found


class _Plan:
    """Which id columns are looked up, in which order, and where their tables begin."""

    def __init__(self, columns: Columns, features: Sequence[int], offsets: Mapping[str, int]) -> None:
        spans = [range(columns.starts[f], columns.stops[f]) for f in features]
        self.singles = sum(not columns.bags[f] for f in features)
        self.columns = torch.tensor([column for span in spans for column in span], dtype=torch.int64)
        begins = [offsets[columns.names[f]] for f, span in zip(features, spans, strict=True) for _ in span]
        self.offsets = torch.tensor(begins, dtype=torch.int64)
        sizes = [len(span) for span in spans[self.singles :]]
        self.bag_starts = torch.tensor([self.singles, *(self.singles + np.cumsum(sizes))], dtype=torch.int64)

    @property
    def bags(self) -> int:
        """G."""
        return len(self.bag_starts) - 1


def _narrow_features(columns: Columns) -> list[int]:
    """Single-valued features with a small table that no other reads: the smallest, as many as fit NARROW_ROWS."""
    readers = list(columns.names)
    own = [f for f, name in enumerate(columns.names) if not columns.bags[f] and readers.count(name) == 1]
    chosen, rows = [], 0
    for feature in sorted(own, key=lambda f: columns.tables[columns.names[f]]):
        rows += columns.tables[columns.names[feature]]
        if rows > NARROW_ROWS:
            break
        chosen.append(feature)
    return sorted(chosen)


def _look_up(table: Tensor, ids: Tensor, plan: _Plan, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings and numbers `[B, (S + G)·W + D]`, and the bags' shares `[B, G]`."""
    if kernels is None or _threads is None:
        return look_up_plainly(table, ids, plan, numbers)
    if not len(plan.columns):
        return numbers, torch.empty(len(ids), 0)
    _threads.follow_torch()
    width = (plan.singles + plan.bags) * table.shape[1] + numbers.shape[1]
    out, shares = torch.empty(len(ids), width), torch.empty(len(ids), plan.bags)
    parts = table, ids, plan.columns, plan.offsets
    kernels.look_up(
        *(p.detach().numpy() for p in parts), plan.singles,
        *(p.numpy() for p in (plan.bag_starts, numbers, out, shares)),
    )  # fmt: skip
    return out, shares


def look_up_plainly(table: Tensor, ids: Tensor, plan: _Plan, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """`kernels.rows.look_up` in plain torch."""
    local = ids[:, plan.columns]
    rows = table.detach()[local + plan.offsets]  # [B, n, W]
    parts = [rows[:, : plan.singles].flatten(1)]
    shares = torch.empty(len(ids), plan.bags)
    for bag in range(plan.bags):
        span = slice(int(plan.bag_starts[bag]), int(plan.bag_starts[bag + 1]))
        here = (local[:, span] != 0).float()
        counts = here.sum(dim=1)
        shares[:, bag] = torch.where(counts > 0, 1.0 / counts, 0.0)
        parts.append((rows[:, span] * here.unsqueeze(2)).sum(dim=1) * shares[:, bag : bag + 1])
    return torch.cat([*parts, numbers], dim=1), shares


def _sum_rows(taken: _Taken, plan: _Plan, gradient: Tensor, width: int) -> Touched:
    """The distinct rows that a batch took through `plan`, and the sums of their gradients."""
    if kernels is None or _threads is None:
        return sum_rows_plainly(taken.ids, plan, taken.shares, gradient, width)
    count, parts = len(taken.ids) * len(plan.columns), _threads.follow_torch()
    rows, sums = torch.empty(count, dtype=torch.int64), torch.empty(count, width)
    starts, counts = torch.empty(parts, dtype=torch.int64), torch.empty(parts, dtype=torch.int64)
    kernels.sum_rows(
        taken.ids.numpy(), plan.columns.numpy(), plan.offsets.numpy(), plan.singles,
        *(t.numpy() for t in (plan.bag_starts, taken.shares, gradient.contiguous())), width, parts,
        *(t.numpy() for t in (rows, sums, starts, counts)),
    )  # fmt: skip
    return Touched(rows, sums, starts, counts)


def sum_rows_plainly(ids: Tensor, plan: _Plan, shares: Tensor, gradient: Tensor, width: int) -> Touched:
    """`kernels.rows.sum_rows` in plain torch, rows in increasing order."""
    local = ids[:, plan.columns]
    slots = torch.arange(plan.singles + plan.bags)
    sizes = torch.cat([torch.ones(plan.singles, dtype=torch.int64), plan.bag_starts.diff()])
    slot = slots.repeat_interleave(sizes)  # [n] the part of the output that each column goes to
    here = (slot < plan.singles) | (local != 0)
    by_slot = gradient[:, : len(slots) * width].reshape(len(gradient), -1, width)  # [B, S + G, W]
    scaled = torch.cat([by_slot[:, : plan.singles], by_slot[:, plan.singles :] * shares.unsqueeze(2)], dim=1)
    rows, inverse = torch.unique((local + plan.offsets)[here], return_inverse=True)
    return Touched.of(rows, torch.zeros(len(rows), width).index_add_(0, inverse, scaled[:, slot][here]))


def _survey(tables: Tensor, begins: Tensor, ids: Tensor) -> Narrow:
    """The narrow part of a batch."""
    assert _narrow is not None, "small tables are multiplied by compiled kernels alone"
    assert _blocks is not None
    rows, columns = ids.shape
    counts, usual = np.empty(len(tables), np.int32), np.empty(columns, np.int64)
    room = columns + -columns % _blocks.STEP
    places, lengths = np.empty((rows, room), np.int32), np.empty(rows, np.int64)
    _narrow.survey(begins.numpy(), ids.numpy(), counts, usual, places, lengths)
    return Narrow(tables, begins, ids, counts, usual, places, lengths)
