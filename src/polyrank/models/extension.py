"""New tasks on an old model: a trained ranker, and beside it experts, gates and towers of the new tasks alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn

from polyrank.data.loader import Batch
from polyrank.losses import smoothed
from polyrank.nn.experts import GateWeights, Level
from polyrank.nn.inputs import Inputs
from polyrank.nn.ownership import Owned, of_level
from polyrank.nn.towers import Towers


@dataclass(frozen=True)
class ExtensionConfig:
    """What a new task gets of its own.

    Attributes:
        experts: how many.
        widths: their hidden layers; one as wide as the old model's task vectors follows.
        dropout: the share of their activations dropped after each layer.
    """

    experts: Annotated[int, Gt(0)] = 2
    widths: tuple[Annotated[int, Gt(0)], ...] = (64,)
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class Branch(nn.Module):
    """f_n(x) = Σ_e g_n(x)_e · e(x), the new task n's own experts and the old tasks' vectors under one softmax gate.

    That is CGC's extraction (Tang et al., RecSys 2020, section 4.1) with the trained model's task vectors in the place
    of the shared experts, and the lateral connections of progressive networks (Rusu et al., arXiv 1606.04671, 2016).
    B rows, D input width, N new and T old tasks, M experts of each new task, H width of the vectors.

    Args:
        in_width: D.
        old: T.
        new: N.
        width: H.
        config: the knobs.
    """

    def __init__(self, in_width: int, old: int, new: int, width: int, config: ExtensionConfig) -> None:
        super().__init__()
        self.old, self.new, self.own = old, new, config.experts
        widths = (*config.widths, width)
        self.experts = Level(in_width, [(new * config.experts, 0)], [], widths, dropout=config.dropout)
        self.gate = nn.Parameter(torch.zeros(in_width, new * (config.experts + old)))

    def weights(self, x: Inputs) -> Tensor:
        """The gates' weights `[B, N, M + T]`, own experts first."""
        logits = x.written() @ self.gate
        return torch.softmax(logits.view(len(logits), self.new, self.own + self.old), dim=2)

    def forward(self, x: Inputs, vectors: Tensor) -> Tensor:
        """`[B, D]` and the old tasks' `[T, B, H]` → `[N, B, H]`."""
        weights = self.weights(x)
        own = self.experts([x])[0].view(self.new, self.own, len(weights), -1)
        mixed = torch.einsum("bnm,nmbh->nbh", weights[:, :, : self.own], own.to(weights.dtype))
        return mixed + torch.einsum("bnt,tbh->nbh", weights[:, :, self.own :], vectors.to(weights.dtype))


class Vectors(nn.Module):
    """All tasks' vectors: the old model's architecture, and the branch of the new tasks that reads them.

    Args:
        base: the old ranker; it is not registered here, but where it belongs.
        branch: of the new tasks.
        frozen: whether the old architecture is left out of the graph.
    """

    def __init__(self, base: Any, branch: Branch, *, frozen: bool) -> None:
        super().__init__()
        self._base, self.branch, self.frozen = [base], branch, frozen
        self.out_width = base.architecture.out_width

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T + N, B, H]`, the old tasks' first; imputations of `dr` stand between."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            vectors: Tensor = self._base[0].architecture(x)
        new: Tensor = self.branch(x, vectors[: self.branch.old])
        return torch.cat([vectors, new.to(vectors.dtype)])

    def owned(self) -> Owned:
        """The new tasks' experts and gates; the old architecture counts as everyone's."""
        tasks = torch.arange(self.branch.old, self.branch.old + self.branch.new)
        columns = tasks.repeat_interleave(self.branch.own + self.branch.old)
        experts = tasks.repeat_interleave(self.branch.own).tolist()
        return [(self.branch.gate, columns), *of_level(self.branch.experts, experts)]


class ExtendedRanker(nn.Module):
    """A ranker of the old model's T tasks and N new ones, the old ones first; it is used as a `Ranker` is.

    The old model is whole inside it, `base`, of whatever architecture: its embeddings, experts, gates and towers. New
    tasks read its embeddings and, through their gates, its task vectors. Frozen, it is not trained at all: no gradient,
    no dropout, no update of its embeddings, so that its parameters keep every bit and its tasks every prediction.

    Args:
        base: the old ranker, with its weights.
        heads: of the new tasks.
        config: a `RankerConfig`: its `extension`, and the new towers' layers and dropout.
        frozen: whether the old model stays as it is.
    """

    def __init__(self, base: Any, heads: Any, config: Any, *, frozen: bool) -> None:
        super().__init__()
        self.base, self.frozen = base, frozen
        self.old, self.new = len(base.heads.kinds), len(heads.kinds)
        self.new_heads = heads
        width = base.architecture.out_width
        branch = Branch(base.in_width, self.old, self.new, width, config.extension)
        self.architecture = Vectors(base, branch, frozen=frozen)
        self.new_towers = Towers(self.new, width, config.towers, dropout=config.tower_dropout, biases=heads.biases())
        if frozen:
            base.requires_grad_(False)

    @property
    def embeddings(self) -> Any:
        """The old model's; the new tasks have none of their own."""
        return self.base.embeddings

    @property
    def branch(self) -> Branch:
        """The new tasks' own experts and gates."""
        return self.architecture.branch

    @property
    def towers(self) -> nn.ModuleList:
        """The old tasks' and the new ones'."""
        return nn.ModuleList([self.base.towers, self.new_towers])

    @property
    def heads(self) -> nn.ModuleList:
        """The old tasks' and the new ones'."""
        return nn.ModuleList([self.base.heads, self.new_heads])

    @property
    def kinds(self) -> list[str]:
        """`[T + N]` the tasks' kinds."""
        return [*self.base.heads.kinds, *self.new_heads.kinds]

    @property
    def space(self) -> Any:
        """On which rows the old tasks are trained; new ones are on their own."""
        return self.base.space

    def train(self, mode: bool = True) -> "ExtendedRanker":
        """As of any module, but that a frozen base is always in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.base.eval()
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, L]` float32, the old tasks' first."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x, first_order = self.base.read(batch)
        vectors = self.architecture(x)
        old: Tensor = self.base.answer(vectors[: -self.new], first_order, batch.rows)
        new: Tensor = self.new_towers(vectors[-self.new :]).float()
        return torch.cat([old, new], dim=1)

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities, or values in the label's unit: `[B, T + N]` float32."""
        return self.values(self(batch), batch.ids)

    def values(self, logits: Tensor, ids: Tensor) -> Tensor:
        """`forward`'s logits and the ids of their rows → predictions."""
        old, new = self._split(logits)
        return torch.cat([self.base.values(old, ids), self.new_heads.predict(new, ids)], dim=1)

    def losses(self, logits: Tensor, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """Each task's loss over its rows, the new tasks' over their own; `smoothing` as of a `Ranker`: `[T + N]`."""
        old, new = self._split(logits)
        mine = _tasks(batch, slice(self.old, None))
        labels = smoothed(mine.labels, self.new_heads.kinds, smoothing)
        theirs: Tensor = self.base.losses(old, _tasks(batch, slice(0, self.old)), smoothing=smoothing)
        return torch.cat([theirs, self.new_heads.mean_losses(new, labels, mine.where, mine.ids, mine.weights)])

    def views(self, batch: Batch) -> Batch:
        """The batch as `forward` gives logits: as it is, since an ensemble is not extended."""
        return batch

    def mass(self, batch: Batch) -> Tensor:
        """The weight of the rows behind each task's loss: `[T + N]`."""
        mine = _tasks(batch, slice(self.old, None))
        rows = mine.where.float() if mine.weights is None else mine.where * mine.weights
        return torch.cat([self.base.mass(_tasks(batch, slice(0, self.old))), rows.sum(dim=0)])

    def penalty(self) -> Tensor | None:
        """What the old model's architecture adds to the objective; None if nothing, or if it is frozen."""
        penalty: Tensor | None = None if self.frozen else self.base.penalty()
        return penalty

    def gates(self, batch: Batch) -> list[GateWeights]:
        """What the gates of the old model and of the new tasks do to a batch; an old task's vector has the number 0."""
        x = self.base.represent(batch)
        weights = self.branch.weights(x)
        found: list[GateWeights] = self.base.architecture.gates(x)
        for place in range(self.new):
            task = self.old + place
            seen = [(task, number) for number in range(self.branch.own)] + [(t, 0) for t in range(self.old)]
            found.append(GateWeights(1, task, tuple(seen), weights[:, place].detach()))
        return found

    def dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Everything that is trained but the embedding table."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def parameter_count(self) -> int:
        """All parameters, the embedding table included."""
        return sum(p.numel() for p in self.parameters())

    def _split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        end = sum(self.base.widths)
        return logits[:, :end], logits[:, end:]


def _tasks(batch: Batch, places: slice) -> Batch:
    """The batch as rankers of some of its tasks see it."""
    weights = None if batch.weights is None else batch.weights[:, places]
    joint = None if batch.joint is None else batch.joint[:, places]
    labels, where = batch.labels[:, places], batch.where[:, places]
    return replace(batch, labels=labels, where=where, weights=weights, joint=joint)
