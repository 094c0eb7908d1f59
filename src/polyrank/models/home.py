"""HoME: normalised experts in a hierarchy of task categories, with gates on what each group of experts reads.

Wang et al., "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", KDD 2025 (arXiv 2408.05430).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn

from polyrank.nn.experts import SHARED, GatedConfig, GateWeights, mix
from polyrank.nn.gates import Gates, softmax_over
from polyrank.nn.inputs import InputColumns, Inputs
from polyrank.nn.layers import Dropout, StackedBatchNorm, StackedLinear, StackedNorm
from polyrank.nn.ownership import Owned, of_stack

_Expert = tuple[int, int]


@dataclass(frozen=True)
class HoMEConfig(GatedConfig):
    """The paper gives no numbers or widths of experts. Has the fields of `GatedConfig` and `NetworkConfig` too.

    With `layer_norm` experts are normalised row by row, not over the batch as in the paper: for small batches, and
    where rows without labels should not matter to the others.

    Attributes:
        categories: tasks that behave alike, by a category's name ("watch", "interact"); where empty all are of one.
        shared_experts: experts of everyone, at either level.
        category_experts: experts of each category, at either level.
        task_experts: experts of each task, at the second level.
        lora_gates: L_f, the low-rank factors that a feature gate mixes.
        gate_widths: the hidden layers of gates and self gates, of which the paper says that they are MLPs, and no more;
            empty for linear ones.
    """

    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shared_experts: Annotated[int, Gt(0)] = 2
    category_experts: Annotated[int, Gt(0)] = 2
    task_experts: Annotated[int, Gt(0)] = 2
    lora_gates: Annotated[int, Gt(0)] = 2
    gate_widths: tuple[Annotated[int, Gt(0)], ...] = (64,)


class HoME(nn.Module):
    """Level 1 gives a state to each category and a shared one, level 2 a vector to each task.

    An expert is Swish(BN(·W + b)) layer by layer. Before its first layer each group of experts has an input of its own,
    v ⊙ FeaGate(v), FeaGate(v) = Σ_l softmax(v W)_l · 2 σ(v B_l A_l), B_l A_l of rank D / L_f (rounded down: the paper
    has an L_f that divides D).

    Level 1, v = x: z^c mixes shared and category c's experts, z^shared those of all categories too. Level 2, task t of
    category c: shared experts read z^shared, the category's and the task's own read z^c; t's gate, which reads
    [z^c; z^shared], mixes them. Every unit adds Σ_k SelfGate(v)_k e_k over its own experts alone (v = z^c at level 2),
    SelfGate a softmax, or σ where there is one expert. Gates and self gates are MLPs, what a feature gate chooses by is
    linear. `gate_features` narrows what level 1's gates read, not the self gates and feature gates.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        names: the tasks' names.
        columns: what stands where in x; needed for `gate_features` alone.

    Raises:
        ValueError: a category names no task of these, or a task stands in none or in two.
    """

    def __init__(
        self,
        in_width: int,
        tasks: int,
        config: HoMEConfig,
        names: Sequence[str] = (),
        columns: InputColumns | None = None,
    ) -> None:
        super().__init__()
        of = _category_of(names, config.categories) if config.categories else [0] * tasks
        categories, width = max(of) + 1, config.widths[-1]
        self.of, self.out_width = of, width
        numbers = iter(range(config.shared_experts + categories * config.category_experts))
        shared = [(SHARED, next(numbers)) for _ in range(config.shared_experts)]
        middle = [[(SHARED, next(numbers)) for _ in range(config.category_experts)] for _ in range(categories)]
        own = [[(task, number) for number in range(config.task_experts)] for task in range(tasks)]
        seen = [*(shared + part for part in middle), [*shared, *chain.from_iterable(middle)]]
        self.gate_read = config.gate_columns(columns)
        gate_width = in_width if self.gate_read is None else len(self.gate_read)
        self.meta = Stage(in_width, gate_width, [shared, *middle], seen, [*middle, shared], config)
        seen = [shared + middle[category] + mine for category, mine in zip(of, own, strict=True)]
        self.tasks = Stage(width, 2 * width, [shared, *middle, *own], seen, own, config)
        # Which of level 1's states level 2's groups read; the shared one stands last.
        self.read = [categories, *range(categories), *of]

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        return self._run(x)[0]

    def _run(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """The tasks' vectors, and both levels' gate weights `[U, B, E]`."""
        v = x.written()
        read = v.expand(len(self.meta.seen), -1, -1)
        states, first = self.meta(read, v if self.gate_read is None else v[:, self.gate_read], v)
        own = states[self.of]
        both = torch.cat([own, states[-1:].expand_as(own)], dim=2)
        vectors, second = self.tasks(states[self.read], both, own)
        return vectors, first, second

    def owned(self) -> Owned:
        """A task's experts and gates at level 2; those of a category of one task too."""
        alone = [
            SHARED if self.of.count(category) > 1 else self.of.index(category) for category in range(max(self.of) + 1)
        ]
        return [*self.meta.owned([*alone, SHARED]), *self.tasks.owned(range(len(self.of)))]

    def gates(self, x: Inputs) -> list[GateWeights]:
        """Of level 1 the gate of each task's category, and the shared one; of level 2 the tasks'.

        Without self gates. Experts of categories count as shared ones, after those of everyone.
        """
        _, first, second = self._run(x)
        units = [*enumerate(self.of), (SHARED, -1)]
        found = [GateWeights(1, owner, *self.meta.named(unit, first)) for owner, unit in units]
        return found + [GateWeights(2, task, *self.tasks.named(task, second)) for task in range(len(self.of))]


class Stage(nn.Module):
    """G groups of experts, E in all, under U units: each a gate over the experts it sees, and a self gate over its own.

    Args:
        in_width: D.
        gate_width: what the units' gates read.
        groups: of each group its experts (owner and number).
        seen: of each unit the experts that its gate mixes.
        own: of each unit the experts that its self gate adds.
        config: the knobs.
    """

    group: Tensor
    visible: Tensor
    mine: Tensor
    alone: Tensor

    def __init__(
        self,
        in_width: int,
        gate_width: int,
        groups: Sequence[Sequence[_Expert]],
        seen: Sequence[Sequence[_Expert]],
        own: Sequence[Sequence[_Expert]],
        config: HoMEConfig,
    ) -> None:
        super().__init__()
        self.seen, self.experts = seen, [*chain.from_iterable(groups)]
        self._note("group", [number for number, group in enumerate(groups) for _ in group])
        self._note("visible", [[expert in some for expert in self.experts] for some in seen])
        self._note("mine", [[expert in some for expert in self.experts] for some in own])
        self._note("alone", [[[len(some) == 1]] for some in own])
        self.features = FeatureGate(len(groups), in_width, config.lora_gates)
        self.networks = SwishNetworks(len(self.experts), in_width, config)
        self.gate, self.self_gate = (
            Gates(len(seen), width, len(self.experts), config.gate_widths, dropout=config.dropout)
            for width in (gate_width, in_width)
        )

    def _note(self, name: str, values: list[Any]) -> None:
        self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, inputs: Tensor, gate_inputs: Tensor, own_inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What groups, gates and self gates read → `[U, B, H]`, and the gates' weights `[U, B, E]`.

        That is `[G, B, D]`, `[U, B, ·]` and `[U, B, D]`, the latter two `[B, ·]` where all units read the same.
        """
        experts = self.networks((inputs * self.features(inputs))[self.group])
        weights = softmax_over(self.gate(gate_inputs), self.visible)
        logits = self.self_gate(own_inputs)
        extra = torch.where(self.alone, torch.sigmoid(logits) * self.mine[:, None], softmax_over(logits, self.mine))
        return mix(weights + extra, experts), weights

    def owned(self, units: Sequence[int]) -> Owned:
        """All parameters, by the owners of the units: an expert is a unit's if no other sees it."""
        seeing = [{unit for unit, some in zip(units, self.seen, strict=True) if e in some} for e in self.experts]
        experts = [owners.pop() if len(owners) == 1 else SHARED for owners in seeing]
        groups = [experts[self.group.tolist().index(number)] for number in range(int(self.group.max()) + 1)]
        factors = [owner for owner in groups for _ in range(self.features.factors)]
        parts = (
            (self.features.choice, groups),
            (self.features.down, groups),
            (self.features.up, factors),
            (self.networks, experts),
            (self.gate, units),
            (self.self_gate, units),
        )
        return [found for module, owners in parts for found in of_stack(module, owners)]

    def named(self, unit: int, weights: Tensor) -> tuple[tuple[_Expert, ...], Tensor]:
        """The experts that a unit sees, and its gate's weights of them."""
        return tuple(e for e in self.experts if e in self.seen[unit]), weights[unit][:, self.visible[unit]].detach()


class FeatureGate(nn.Module):
    """Σ_l softmax(v W)_l · 2 σ(v B_l A_l), for each of G groups.

    Args:
        groups: G.
        width: D.
        factors: L.
    """

    def __init__(self, groups: int, width: int, factors: int) -> None:
        super().__init__()
        rank = max(1, width // factors)
        self.factors = factors
        self.choice = Gates(groups, width, factors)
        self.down = StackedLinear(groups, width, factors * rank, bias=False)
        self.up = StackedLinear(groups * factors, rank, width, bias=False)

    def forward(self, v: Tensor) -> Tensor:
        """`[G, B, D]` → `[G, B, D]`, each in (0, 2)."""
        groups, rows, width = v.shape
        low = self.down(v).view(groups, rows, self.factors, -1).transpose(1, 2).flatten(0, 1)
        scales = 2.0 * torch.sigmoid(self.up(low)).view(groups, self.factors, rows, width)
        shares = torch.softmax(self.choice(v), dim=2)
        return torch.einsum("gbl,glbd->gbd", shares, scales)


class SwishNetworks(nn.Module):
    """E independent networks of the same shape, Swish(BN(x W)) layer by layer, Swish(a) = a σ(a).

    Args:
        experts: E.
        in_width: D.
        config: the knobs.
    """

    def __init__(self, experts: int, in_width: int, config: HoMEConfig) -> None:
        super().__init__()
        norm = StackedNorm if config.layer_norm else StackedBatchNorm
        sizes = [*pairwise((in_width, *config.widths))]
        self.layers = nn.ModuleList(StackedLinear(experts, inner, outer, bias=False) for inner, outer in sizes)
        self.norms = nn.ModuleList(norm(experts, outer) for _, outer in sizes)
        self.residual = [config.residual and inner == outer for inner, outer in sizes]
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[E, B, D]` → `[E, B, H]`."""
        for layer, norm, add in zip(self.layers, self.norms, self.residual, strict=True):
            out = self.dropout(torch.nn.functional.silu(norm(layer(x))))
            x = x + out if add else out
        return x


def _category_of(names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> list[int]:
    """Each task's category, as a number."""
    found = {task: number for number, tasks in enumerate(categories.values()) for task in tasks}
    listed = [task for tasks in categories.values() for task in tasks]
    if sorted(listed) != sorted(names) or not all(categories.values()):
        received = "; ".join(f"{name}: {', '.join(tasks) or '(none)'}" for name, tasks in categories.items())
        raise ValueError(
            f"categories must name each task once ({', '.join(names)}), and none be empty. Received: {received}"
        )
    return [found[name] for name in names]
