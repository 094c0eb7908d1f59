"""The Ranker: embeddings → architecture → towers → heads; and the registry of architectures."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn

from polyrank.data.encoders import TaskStatistics
from polyrank.data.layout import Layout
from polyrank.data.loader import Batch
from polyrank.data.paths import ROOT, path
from polyrank.data.schema import Task
from polyrank.data.tree import parents
from polyrank.heads.build import HeadsConfig, build_heads
from polyrank.losses import smoothed
from polyrank.models.adatt import AdaTT, AdaTTConfig
from polyrank.models.aitm import AITM, AITMConfig
from polyrank.models.cgc import CGC, CGCConfig
from polyrank.models.cross_stitch import CrossStitch, CrossStitchConfig
from polyrank.models.dbmtl import DBMTL, DBMTLConfig
from polyrank.models.dselect_k import DSelectK, DSelectKConfig
from polyrank.models.escm2 import ESCM2Config
from polyrank.models.esmm import ESMM, ESMMConfig
from polyrank.models.extension import ExtensionConfig
from polyrank.models.home import HoME, HoMEConfig
from polyrank.models.mmoe import MMoE, MMoEConfig
from polyrank.models.omoe import OMoE, OMoEConfig
from polyrank.models.pepnet import PEPNet, PEPNetConfig
from polyrank.models.ple import PLE, PLEConfig
from polyrank.models.shared_bottom import SharedBottom, SharedBottomConfig
from polyrank.models.single_task import SingleTask, SingleTaskConfig
from polyrank.models.sluice import Sluice, SluiceConfig
from polyrank.models.snr_trans import SNRTrans, SNRTransConfig
from polyrank.models.soft_sharing import SoftSharing, SoftSharingConfig
from polyrank.models.stem import STEM, STEMConfig
from polyrank.nn.cross import Cross, CrossConfig
from polyrank.nn.embeddings import Embeddings
from polyrank.nn.experts import GateWeights
from polyrank.nn.features import FeatureConfig, FeatureSide, spread
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.layers import Dropout
from polyrank.nn.towers import Towers
from polyrank.spaces import OWN, SpaceConfig, Training, conditional, counting_rows, space_losses


class Architecture(Protocol):
    """What an architecture is: `x [B, D]` → one vector per task `[T, B, H]`.

    Made as `cls(D, T, config, **facts)`, the facts being those that its entry in ARCHITECTURES asks for. It may also
    have a method `penalty() -> Tensor | None`: what it adds to the objective, over its parameters or over the last
    batch it saw in training.

    For balancers it says who owns what (`polyrank.nn.ownership`): by `levels()` where it is made of `Level`s, else by
    `owned()`, and gradients are then compared at the parameters. Without either all of its parameters count as shared.
    """

    out_width: int

    def __call__(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""

    def gates(self, x: Inputs) -> list[GateWeights]:
        """What its gates do to a batch; empty where it has none."""


@dataclass(frozen=True)
class Entry:
    """An architecture and its config.

    Attributes:
        asks: what else its constructor takes by keyword: "columns" (`InputColumns`), "names" (the tasks'), "parents"
            (the tree of `given` relations, see `polyrank.data.paths`).
        sets: (tasks, config) → how many embeddings of each feature it reads.
        training: on which rows its paper trains tasks `given` another: what `space.training = "auto"` means for it.
    """

    kind: Any
    config: Any
    asks: tuple[str, ...] = ()
    sets: Callable[[int, Any], int] = lambda tasks, config: 1
    training: Training = "own"


ARCHITECTURES: Mapping[str, Entry] = MappingProxyType(
    {
        "single_task": Entry(SingleTask, SingleTaskConfig),
        "shared_bottom": Entry(SharedBottom, SharedBottomConfig),
        "mmoe": Entry(MMoE, MMoEConfig, ("columns",)),
        "cgc": Entry(CGC, CGCConfig, ("columns",)),
        "ple": Entry(PLE, PLEConfig, ("columns",)),
        "soft_sharing": Entry(SoftSharing, SoftSharingConfig, ("columns",), SoftSharing.embedding_sets),
        "omoe": Entry(OMoE, OMoEConfig, ("columns",)),
        "cross_stitch": Entry(CrossStitch, CrossStitchConfig),
        "sluice": Entry(Sluice, SluiceConfig),
        "snr_trans": Entry(SNRTrans, SNRTransConfig),
        "dselect_k": Entry(DSelectK, DSelectKConfig, ("columns",)),
        "stem": Entry(STEM, STEMConfig, ("columns",), STEM.embedding_sets),
        "adatt": Entry(AdaTT, AdaTTConfig, ("columns",)),
        "home": Entry(HoME, HoMEConfig, ("names", "columns")),
        "pepnet": Entry(PEPNet, PEPNetConfig, ("columns",)),
        "esmm": Entry(ESMM, ESMMConfig, training="entire"),
        "escm2_ips": Entry(MMoE, ESCM2Config, asks=("columns",), training="ips"),
        "escm2_dr": Entry(MMoE, ESCM2Config, asks=("columns",), training="dr"),
        "aitm": Entry(AITM, AITMConfig, asks=("parents",), training="direct"),
        "dbmtl": Entry(DBMTL, DBMTLConfig, asks=("parents",)),
    }
)


@dataclass(frozen=True)
class RankerConfig(FeatureConfig):
    """What all architectures have in common; the sections below `[model]` are `FeatureConfig`'s and `cross`.

    Attributes:
        architecture: a key of ARCHITECTURES.
        embedding_width: W.
        embedding_dropout: the share of the input's elements dropped in training.
        towers: the hidden layers of every task's tower.
        tower_dropout: the share of activations dropped after each.
        cross: crosses of the input with itself, before the architecture.
        heads: the knobs of the heads of duration tasks, by head: `[model.heads.cread]`.
        extension: what new tasks get beside an old model (`train.warm_start`): `[model.extension]`.
    """

    architecture: str = "mmoe"
    embedding_width: Annotated[int, Gt(0)] = 8
    embedding_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    towers: tuple[Annotated[int, Gt(0)], ...] = (32,)
    tower_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    cross: CrossConfig = field(default_factory=CrossConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    extension: ExtensionConfig = field(default_factory=ExtensionConfig)


class Ranker(nn.Module):
    """A batch → each task's logits, and its prediction. B rows, T tasks, D input width, L logits of all tasks together.

    x = [embeddings of single-valued features; means over bags; scaled numbers], changed by what is on of the feature
    side, dropped out in training, crossed with itself; the architecture gives each task a vector, its tower a logit
    (some heads: several), its head a prediction.

    An ensemble of k members gives k·B rows of logits, member after member; `views` makes the labels to hold them
    against. Each member's rows go through its own towers. First-order terms go to a task's first logit.

    Args:
        tasks: the T tasks it predicts, in order.
        statistics: their label statistics.
        layout: the encoded matrix.
        config: the architecture's name and the common knobs.
        options: the architecture's own config.
        space: on which rows a task `given` another is trained, resolved (not `auto`).

    Raises:
        ValueError: the architecture cannot take these tasks, or the training needs a parent that is not among them.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        statistics: Sequence[TaskStatistics],
        layout: Layout,
        config: RankerConfig,
        options: Any,
        space: SpaceConfig = OWN,
    ) -> None:
        super().__init__()
        self.heads = build_heads(tasks, statistics, layout, config.heads)
        self.binary = [kind == "binary" for kind in self.heads.kinds]
        self.tree, self.space = parents(tasks), space
        if space.training != "own":
            _check_tree(tasks, space)
        # Tasks with an imputation tower: all but the heads see it as one more task, which hangs where the task does.
        self.imputed = [task for task, above in enumerate(self.tree) if above != ROOT and space.training == "dr"]
        seen = [*range(len(tasks)), *self.imputed]
        entry = ARCHITECTURES[config.architecture]
        sets, self.members = entry.sets(len(seen), options), config.ensemble.members
        width = config.embedding_width * sets
        self.embeddings = Embeddings(spread(layout, config), width, first_order=len(seen) if config.first_order else 0)
        self.features = FeatureSide(layout, self.embeddings.order, width, len(seen), config)
        in_width = self.features.out_width
        self.in_width = in_width
        self.dropout = Dropout(config.embedding_dropout)
        self.cross = Cross(in_width, config.cross) if config.cross.layers else None
        names = [task.name for task in tasks]
        facts = {
            "columns": input_columns(
                layout, self.features.fields, config.embedding_width, sets, number_width=self.features.number_width
            ),
            "names": (*names, *(f"{names[task]} imputation" for task in self.imputed)),
            "parents": tuple(self.tree[task] for task in seen),
        }
        asked = {name: facts[name] for name in entry.asks}
        self.architecture: Any = entry.kind(in_width, len(seen), options, **asked)
        biases = self._biases([s.mean for s in statistics])
        self.widths = [len(own) for own in biases]
        self.towers = Towers(
            len(seen) * self.members,
            self.architecture.out_width,
            config.towers,
            dropout=config.tower_dropout,
            biases=[own for own in biases for _ in range(self.members)],
        )

    @property
    def kinds(self) -> list[str]:
        """`[T]` the tasks' kinds."""
        return self.heads.kinds

    def views(self, batch: Batch) -> Batch:
        """The batch with each row once for every member, as `forward` gives logits; of one member the batch itself."""
        if self.members == 1:
            return batch
        return batch.mapped(lambda part: part.repeat(self.members, 1))

    def represent(self, batch: Batch) -> Inputs:
        """The shared input `[k·B, D]`."""
        return self.read(batch)[0]

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[k·B, L + C]` float32, all rows of the first member first; L = T unless a head needs several.

        Under `dr` there are C imputation towers, one for each task with a parent.
        """
        x, first_order = self.read(batch)
        return self.answer(self.architecture(x), first_order, batch.rows)

    def answer(self, vectors: Tensor, first_order: Tensor | None, rows: int) -> Tensor:
        """The architecture's vectors `[T + C, k·B, H]`, first-order logits `[k·B, T + C]` or None → `forward`'s."""
        if self.members > 1:
            # [T, k·B, H] → a tower for each task and member, [T·k, B, H] → [B, L·k] → [k·B, L]; with C more of each
            vectors = vectors.reshape(-1, rows, self.architecture.out_width)
        logits: Tensor = self.towers(vectors).float()
        if self.members > 1 and not self.heads.wide:
            logits = logits.view(rows, -1, self.members).permute(2, 0, 1).flatten(0, 1)
        elif self.members > 1:
            parts = torch.split(logits, [self.members * width for width in self.widths], dim=1)
            by_member = torch.cat([part.view(rows, self.members, -1) for part in parts], dim=2)
            logits = by_member.transpose(0, 1).flatten(0, 1)
        if first_order is not None:
            if self.heads.wide:
                firsts = torch.tensor([0, *accumulate(self.widths)][:-1])
                first_order = torch.zeros_like(logits).index_copy(1, firsts, first_order)
            logits = logits + first_order
        return logits

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities given the parent, or values in the label's unit, the members' mean: `[B, T]` float32."""
        result = self.values(self(batch), self.views(batch).ids)
        return result.view(self.members, batch.rows, -1).mean(dim=0) if self.members > 1 else result

    def values(self, logits: Tensor, ids: Tensor) -> Tensor:
        """`forward`'s logits and the ids of their rows → predictions, one row for one."""
        result: Tensor = self.heads.predict(logits[:, : self.heads.starts[-1]], ids)
        if self.space.training == "direct":
            result = torch.where(torch.tensor(self.binary), conditional(self.heads.first(logits), self.tree), result)
        return result

    def losses(self, logits: Tensor, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """Each task's loss over the rows of its training, from `forward`'s logits for `views(batch)`: `[T]`.

        `smoothing` is ε of label smoothing, for tasks trained on their own rows.
        """
        labels = smoothed(batch.labels, self.heads.kinds, smoothing)
        if self.space.training == "own":  # that looks at nothing else
            return self.heads.mean_losses(logits, labels, batch.where, batch.ids, batch.weights)
        end = self.heads.starts[-1]
        return space_losses(
            self.heads.losses(logits[:, :end], labels, batch.where, batch.ids),
            self.heads.first(logits),
            logits[:, end:],
            config=self.space,
            parents=self.tree,
            binary=self.binary,
            labels=batch.labels,
            where=batch.where,
            joint=batch.joint,
            weights=batch.weights,
        )

    def mass(self, batch: Batch) -> Tensor:
        """The weight of the rows behind each task's loss: `[T]`."""
        return counting_rows(self.space, self.tree, self.binary, batch.where, batch.joint, batch.weights).sum(dim=0)

    def _biases(self, means: Sequence[float]) -> list[list[float]]:
        """Output biases that predict base rates: joint ones under `direct`; an imputed error starts at softplus(0)."""
        biases = self.heads.biases()
        for task in range(len(means)) if self.space.training == "direct" else ():
            if self.binary[task]:
                rate = math.prod(means[step] for step in path(self.tree, task))
                biases[task] = [math.log(rate / (1.0 - rate))]
        pseudo = [self.binary[task] and self.space.imputation == "label" for task in self.imputed]
        return biases + [biases[task] if label else [0.0] for task, label in zip(self.imputed, pseudo, strict=True)]

    def penalty(self) -> Tensor | None:
        """What the architecture adds to the objective; None if nothing. To be asked between forward and backward."""
        # A module takes long to say that it lacks something; its class does not.
        return self.architecture.penalty() if hasattr(type(self.architecture), "penalty") else None

    def gates(self, batch: Batch) -> list[GateWeights]:
        """What the architecture's gates do to a batch, the mean over the members."""
        found: list[GateWeights] = self.architecture.gates(self.represent(batch))
        return [replace(one, weights=one.weights.view(self.members, batch.rows, -1).mean(dim=0)) for one in found]

    def read(self, batch: Batch) -> tuple[Inputs, Tensor | None]:
        """What the architecture reads, and the first-order logits where there are such."""
        written = self.dropout.active or self.features.active or self.cross is not None
        x, first_order = self.features(self.embeddings(batch.ids, batch.dense, written=written), batch.ids)
        if self.dropout.active:
            x = Inputs(self.dropout(x.wide))
        return (x if self.cross is None else Inputs(self.cross(x.wide))), first_order

    def dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Everything but the embedding table."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def parameter_count(self) -> int:
        """All parameters, the embedding table included."""
        return sum(p.numel() for p in self.parameters())


def input_columns(
    layout: Layout, order: Sequence[int], width: int, sets: int, *, number_width: int = 1
) -> InputColumns:
    """What stands where in x: for each feature of `order` `sets` embeddings of `width`, then all (encoded) numbers."""
    features: dict[str, list[int]] = {}
    by_set: list[list[int]] = [[] for _ in range(sets)]
    for place, feature in enumerate(order):
        start = place * sets * width
        features[layout.fields[feature].name] = list(range(start, start + sets * width))
        for number, columns in enumerate(by_set):
            columns += range(start + number * width, start + (number + 1) * width)
    start = len(order) * sets * width
    for own in layout.fields:
        if own.dense >= 0:
            first = start + own.dense * number_width
            features[own.name] += range(first, first + number_width)
    numbers = range(start, start + layout.dense_columns * number_width)
    return InputColumns(features, [[*columns, *numbers] for columns in by_set])


def resolve_space(config: SpaceConfig, architecture: str) -> SpaceConfig:
    """The config with `auto` resolved: what the architecture's paper does."""
    if config.training != "auto":
        return config
    return replace(config, training=ARCHITECTURES[architecture].training)


def _check_tree(tasks: Sequence[Task], space: SpaceConfig) -> None:
    names = [task.name for task in tasks]
    for task in tasks:
        if task.given and task.given not in names:
            raise ValueError(
                f"space.training = {space.training!r} needs the parents of all tasks. Received: {task.name!r} without "
                f"{task.given!r}; train both, or set space.training = 'own'"
            )
