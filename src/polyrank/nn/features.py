"""The feature side: what stands between looked-up embeddings and the architecture.

B rows, S features, L places of a sequence, W embedding width, T tasks, D numbers, k members of an ensemble.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor, nn

from polyrank.data.layout import Layout
from polyrank.nn.embeddings import Columns
from polyrank.nn.ensemble import EnsembleConfig, Members
from polyrank.nn.gating import FeatureGate, FeatureGateConfig
from polyrank.nn.inputs import Inputs
from polyrank.nn.numeric import NumberConfig, Periodic, Piecewise
from polyrank.nn.sequences import SequenceConfig, SequenceTransformer, TargetAttention


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The feature side's options, each in a section of its own below `[model]`.

    Attributes:
        sequence: how histories are read.
        number: how numbers are encoded.
        feature_gate: whether features are gated.
        ensemble: how many members the model has.
        first_order: wide terms: for each task a weight of every id, whose sum over the features (for bags and
            sequences the mean) is added to the task's logit, as in Wide & Deep (Cheng et al. 2016). A weight is a
            further column of the id's embedding row and starts at zero.
    """

    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    number: NumberConfig = field(default_factory=NumberConfig)
    feature_gate: FeatureGateConfig = field(default_factory=FeatureGateConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    first_order: bool = False


@dataclass(frozen=True)
class _Run:
    """Neighbours among the looked-up parts: `size` of them that stay as they are, or the places of a sequence.

    `column` is the sequence's first id column, −1 where it is none; `target` its candidate among the parts.
    """

    size: int
    column: int = -1
    target: int = 0


class FeatureSide(nn.Module):
    """Looked-up embeddings → [single-valued features; bags; attended sequences; numbers], scaled for each member.

    Args:
        layout: the encoded matrix.
        order: the looked-up features in their order, as numbers into `spread(layout, …)`.
        width: W.
        tasks: T.
        config: the knobs.

    Raises:
        ValueError: target attention without a sequence that has a candidate, or numbers encoded where there are none.
    """

    def __init__(self, layout: Layout, order: Sequence[int], width: int, tasks: int, config: FeatureConfig) -> None:
        super().__init__()
        attended = attended_fields(layout, config)
        if config.sequence.pooling != "mean" and not attended:
            raise ValueError("sequence.pooling needs a sequence that shares the embeddings of a feature; there is none")
        owners = [field for field, _ in _places(layout, attended)]
        parts = [owners[slot] for slot in order]
        self.runs = _runs(layout, parts, attended)
        # The field of each vector that comes out; an attended sequence's places have become one.
        self.fields = [field for field, _ in groupby(parts)]
        self.first_order, self.numbers = tasks if config.first_order else 0, layout.dense_columns
        self.width, self.parts = width, len(order)
        din = config.sequence.pooling == "din"
        self.readers = nn.ModuleList(
            TargetAttention(width, config.sequence) if din else SequenceTransformer(width, run.size, config.sequence)
            for run in self.runs
            if run.column >= 0
        )
        widths = [width] * sum(run.size if run.column < 0 else 1 for run in self.runs)
        self.encoding: Piecewise | Periodic | None = None
        if config.number.encoding != "scaled":
            if not self.numbers:
                raise ValueError("number.encoding needs a number feature; there is none")
            edges = [layout.edges.get(f.name, ()) for f in layout.fields if f.dense >= 0]
            piecewise = config.number.encoding == "piecewise"
            self.encoding = Piecewise(edges, config.number) if piecewise else Periodic(self.numbers, config.number)
        self.number_width = 1 if self.encoding is None else config.number.width
        widths += [self.number_width] * self.numbers
        self.gate = FeatureGate(widths, config.feature_gate) if config.feature_gate.on else None
        self.members = Members(widths, config.ensemble) if config.ensemble.members > 1 else None
        self.out_width = sum(widths)
        modules = (self.encoding, self.gate, self.members)
        # Whether it does anything; it then needs all of its input written out.
        self.active = bool(self.readers or self.first_order) or any(module is not None for module in modules)

    def forward(self, x: Inputs, ids: Tensor) -> tuple[Inputs, Tensor | None]:
        """From looked-up rows to the architecture's input.

        Args:
            x: `[B, parts·(W + T)]` with first-order terms, else `[B, parts·W]`, and D numbers.
            ids: `[B, F]` int32.

        Returns:
            `[k·B, out_width]`, and the first-order logits `[k·B, T]` or None.
        """
        if not self.active:
            return x, None
        taken = self.parts * (self.width + self.first_order)
        # Splits, not slices: the gradient of a slice is as large as what it was cut from.
        written, numbers = torch.split(x.written(), [taken, self.numbers], dim=1)
        rows, first_order = written.reshape(len(written), self.parts, -1), None
        if self.first_order:
            rows, weights = torch.split(rows, [self.width, self.first_order], dim=2)
            first_order = self._sums(weights, ids)
        pieces = torch.split(rows, [run.size for run in self.runs], dim=1)
        found, readers = [], iter(self.readers)
        for run, piece in zip(self.runs, pieces, strict=True):
            if run.column < 0:
                found.append(piece)
                continue
            present = ids[:, run.column : run.column + run.size] != 0
            found.append(next(readers)(self._part(pieces, run.target), piece, present).unsqueeze(1))
        encoded = numbers if self.encoding is None else self.encoding(numbers).flatten(1)
        out = torch.cat([torch.cat(found, dim=1).flatten(1), encoded], dim=1)
        if self.gate is not None:
            out = self.gate(out)
        if self.members is not None:
            out = self.members(out)
            first_order = None if first_order is None else first_order.repeat(len(self.members.scale), 1)
        return Inputs(out), first_order

    def _part(self, pieces: Sequence[Tensor], number: int) -> Tensor:
        """One looked-up part, `[B, W]`."""
        for run, piece in zip(self.runs, pieces, strict=True):
            if number < run.size:
                return piece[:, number]
            number -= run.size
        raise AssertionError("runs cover all parts")

    def _sums(self, weights: Tensor, ids: Tensor) -> Tensor:
        """First-order logits: `[B, parts, T]` → `[B, T]`, of a sequence the mean of its places."""
        total = torch.zeros(len(ids), self.first_order)
        for run, piece in zip(self.runs, torch.split(weights, [run.size for run in self.runs], dim=1), strict=True):
            if run.column < 0:
                total = total + piece.sum(dim=1)
            else:  # absent places are zeros
                count = (ids[:, run.column : run.column + run.size] != 0).sum(dim=1, keepdim=True)
                total = total + piece.sum(dim=1) / count.clamp_min(1)
        return total


def attended_fields(layout: Layout, config: FeatureConfig) -> list[int]:
    """Sequences that are read with their candidate."""
    if config.sequence.pooling == "mean":
        return []
    return [i for i, field in enumerate(layout.fields) if field.kind == "sequence" and field.table != field.name]


def spread(layout: Layout, config: FeatureConfig) -> Columns:
    """What is looked up: a field as one value or one bag; of an attended sequence each place as a bag of one.

    An absent place (id 0) is then zeros, and no row of the table receives a gradient from it.
    """
    attended = attended_fields(layout, config)
    places = _places(layout, attended)
    return Columns(
        [span.start for _, span in places],
        [span.stop for _, span in places],
        [layout.fields[f].kind in ("tags", "sequence") for f, _ in places],
        [layout.fields[f].table for f, _ in places],
        layout.tables,
    )


def _places(layout: Layout, attended: Sequence[int]) -> list[tuple[int, range]]:
    """(field, its columns), an attended sequence once for each of its columns."""
    found: list[tuple[int, range]] = []
    for index, field_ in enumerate(layout.fields):
        columns = range(field_.start, field_.stop)
        found += [(index, range(c, c + 1)) for c in columns] if index in attended else [(index, columns)]
    return found


def _runs(layout: Layout, owners: Sequence[int], attended: Sequence[int]) -> list[_Run]:
    """Looked-up parts, each the field it is of, as runs."""
    runs: list[_Run] = []
    names = [field_.name for field_ in layout.fields]
    for is_attended, group in groupby(owners, key=lambda owner: owner if owner in attended else -1):
        size = len(list(group))
        if is_attended < 0:
            runs.append(_Run(size))
        else:
            own = layout.fields[is_attended]
            runs.append(_Run(size, own.start, owners.index(names.index(own.table))))
    return runs
