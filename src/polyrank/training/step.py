"""A training step as balancers see it: the ranker's graph, cut where the towers begin. T tasks, B rows, H width."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polyrank.balancing.step import Quality, Scope
from polyrank.errors import ConfigError
from polyrank.models.ranker import Ranker
from polyrank.nn import shared
from polyrank.nn.experts import SHARED
from polyrank.nn.ownership import owned_slices, reading

_LEAST = 2.0**-40  # a weight that is smaller than this times the largest counts as so much: it is divided by

_HOOKS: "WeakKeyDictionary[nn.Module, list[RemovableHandle]]" = WeakKeyDictionary()  # of each architecture's junction


class Junction:
    """Cuts a ranker's graph at the architecture's output, in training, by hooks: nothing else of it changes.

    The towers read a leaf instead of the architecture's vectors `[T, B, H]`; the backward pass stops there, and goes on
    when the balancer has decided.

    Args:
        ranker: whose.
        tasks: T.
    """

    def __init__(self, ranker: Ranker, tasks: int) -> None:
        architecture = ranker.architecture
        levels = architecture.levels() if hasattr(architecture, "levels") else []
        self.slices = owned_slices(architecture)
        # Where a task's loss reaches through the predictions of others, no vector belongs to one loss alone.
        self.coupled = ranker.space.training != "own"
        self.columns = None if self.coupled else reading(levels, tasks)
        towers = {id(p) for part in (ranker.towers, ranker.heads) for p in part.parameters()}
        self.below = [p for _, p in ranker.dense_parameters() if id(p) not in towers]
        self.vectors = self.leaf = self.gate_weights = torch.empty(0)
        # The newest junction is the only one: where an earlier trainer had cut, nothing would get below that cut.
        for handle in _HOOKS.pop(architecture, ()):
            handle.remove()
        _HOOKS[architecture] = [architecture.register_forward_hook(self._cut)]
        if self.columns is not None:
            self.mixing = levels[-1][0]
            _HOOKS[architecture].append(self.mixing.register_forward_hook(self._keep))

    def _cut(self, module: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        if not (module.training and output.requires_grad):
            return None
        self.vectors = output
        self.leaf = output.detach().requires_grad_()
        return self.leaf

    def _keep(self, module: nn.Module, arguments: Any, output: tuple[Tensor, Tensor]) -> None:
        self.gate_weights = output[1].float()  # under autocast it may be bf16

    def clear(self) -> None:
        """Let the last step's tensors go."""
        self.vectors = self.leaf = self.gate_weights = torch.empty(0)


class TrainingStep:
    """`polyrank.balancing.step.Step` of the last forward pass.

    Own parts of the architecture (gates, experts that only one task reads) receive what comes through task t's vector
    times w_t, and that is all they receive: divided by w_t it is the task's own gradient.

    Args:
        junction: the ranker's.
        losses: `[T]`, attached to the graph.
        present: `[T]` bool.
        quality: the batch's metric by its name.
        keep: whether something else will go backward through the graph afterwards.
    """

    def __init__(
        self,
        junction: Junction,
        losses: Tensor,
        present: Tensor,
        quality: Callable[[Quality], Tensor],
        *,
        keep: bool = False,
    ) -> None:
        self.losses, self.present = losses.detach(), present
        self._junction, self._attached, self._keep, self._quality = junction, losses, keep, quality
        self._scale: Tensor  # once it is pulled
        self._found: dict[Scope, Tensor] = {}
        self._each: list[Tensor] = []

    @property
    def cheap(self) -> bool:
        """Whether the Gramian at the representation costs next to nothing."""
        return self._junction.columns is not None

    @property
    def measured(self) -> Tensor | None:
        """The Gramian that was asked for, `[T, T]` of the losses themselves."""
        for found in self._found.values():
            return found / _outer(self._scale)
        return None

    def pull(self, scale: Tensor | None = None) -> None:
        """See `Step`."""
        self._scale = torch.ones_like(self.losses) if scale is None else scale.to(self.losses.dtype)
        if self._junction.coupled:
            self._each = [self._alone(task) for task in range(len(self.losses))]
        # What the towers read besides the vectors may come from below the cut: the graph stays for `push`.
        torch.autograd.backward(self._attached, self._scale, retain_graph=True)
        assert self._junction.leaf.grad is not None, "the losses must come from the last forward pass"

    def gramian(self, scope: Scope = "representation") -> Tensor:
        """See `Step`."""
        scope = scope if self.cheap else "parameters"
        if scope not in self._found:
            if scope == "representation":
                assert self._junction.columns is not None
                parts = self._junction.gate_weights, self._junction.columns
                found = shared.gramian(self._gradient, *parts)
            else:
                vectors = self.summed(1, scope)[0]
                found = (vectors @ vectors.T).double()
            self._found[scope] = found
        return self._found[scope]

    def summed(self, parts: int = 1, scope: Scope = "representation") -> Tensor:
        """See `Step`."""
        rows = self._gradient.shape[1]
        edges = [rows * part // parts for part in range(parts + 1)]
        spans = [slice(start, stop) for start, stop in pairwise(edges)]
        columns = self._junction.columns
        if scope == "representation" and columns is not None:
            weights = self._junction.gate_weights
            return torch.stack([shared.summed(self._gradient[:, s], weights[s], columns) for s in spans])
        return torch.stack([torch.stack([self._through(task, s) for task in range(len(self.losses))]) for s in spans])

    def units(self) -> Tensor:
        """See `Step`."""
        if not self.cheap:
            raise ConfigError(
                "balance.method graddrop compares the units of experts that all tasks read, each for itself",
                received="an architecture without such experts, or tasks trained through each other's predictions",
                mend="choose mmoe, cgc, ple or shared_bottom with space.training = 'own', or another method",
            )
        return (self._junction.vectors.detach().sign() * self._gradient).sum(dim=1)

    def push(self, weights: Tensor | None = None) -> None:
        """See `Step`."""
        if weights is None or not self.present.any():
            assert self._junction.leaf.grad is not None, "pull comes first"
            self._backward(self._junction.leaf.grad)
            return
        gradient = self._gradient
        if weights.dim() == 1:
            used = torch.where(self.present, weights, 1.0).to(gradient.dtype)
            least = _LEAST * used.abs().max().clamp(min=1e-30)
            used = torch.where(used.abs() < least, least, used)
            if self._each:
                seeds = torch.stack([weight * each for weight, each in zip(used, self._each, strict=True)]).sum(dim=0)
                self._backward_but_own(gradient, seeds)
                return
            self._backward(gradient * used[:, None, None])
            factors = torch.cat([1.0 / used, torch.ones(1)])  # SHARED is the last
            for parameter, owners in self._junction.slices:
                if parameter.grad is not None:
                    parameter.grad.mul_(factors[owners])
        else:
            self._backward_masked(gradient, weights.to(gradient.dtype))

    def quality(self, metric: Quality) -> Tensor:
        """See `Step`."""
        return self._quality(metric)

    @property
    def _gradient(self) -> Tensor:
        """δ `[T, B, H]` float32, of the scaled losses."""
        gradient = self._junction.leaf.grad
        assert gradient is not None, "pull comes first"
        return gradient.float()

    def _alone(self, task: int) -> Tensor:
        """∂(c_t L_t)/∂h of one task's loss, at all vectors."""
        if not self.present[task]:
            return torch.zeros_like(self._junction.leaf)
        loss = self._attached[task] * self._scale[task]
        (found,) = torch.autograd.grad(loss, self._junction.leaf, retain_graph=True)
        return found.float()

    def _backward_masked(self, gradient: Tensor, factors: Tensor) -> None:
        """Shared experts are given `factors` `[T, H]` times the gradient, gates and own experts all of it."""
        columns = self._junction.columns
        assert columns is not None, "without common experts there are no units to mask"
        if not columns.shape[1]:
            self._backward(gradient * factors[:, None])
            return
        masks = torch.ones(self._junction.gate_weights.shape[1], gradient.shape[2])
        seen = columns >= 0
        masks[columns[seen]] = factors[:, None].expand(*columns.shape, -1)[seen]
        with self._junction.mixing.masked(masks):
            self._backward(gradient)

    def _backward_but_own(self, own: Tensor, shared: Tensor) -> None:
        """Shared parts receive what the seeds `shared` give, own ones what `own` gives: two passes if need be."""
        kept = self._grad([parameter for parameter, _ in self._junction.slices], own)
        self._backward(shared)
        for (parameter, owners), found in zip(self._junction.slices, kept, strict=True):
            assert parameter.grad is not None
            assert found is not None
            parameter.grad.copy_(torch.where(owners == SHARED, parameter.grad, found))

    def _backward(self, seeds: Tensor) -> None:
        vectors = self._junction.vectors
        torch.autograd.backward(vectors, seeds.to(vectors.dtype), retain_graph=self._keep)

    def _grad(self, parameters: Sequence[nn.Parameter], seeds: Tensor) -> tuple[Tensor | None, ...]:
        if not parameters:
            return ()
        vectors = self._junction.vectors
        return torch.autograd.grad(vectors, parameters, seeds.to(vectors.dtype), retain_graph=True, allow_unused=True)

    def _through(self, task: int, rows: slice) -> Tensor:
        """One task's gradient at all shared dense parameters, `[P]`, from some rows."""
        gradient, below = self._gradient, self._junction.below
        if not self.present[task]:
            return torch.zeros(sum(parameter.numel() for parameter in below))
        seeds = torch.zeros_like(gradient)
        if self._each:
            seeds[:, rows] = self._each[task][:, rows]
        else:
            seeds[task, rows] = gradient[task, rows]
        found = self._grad(below, seeds)
        owners = {id(parameter): owner for parameter, owner in self._junction.slices}
        parts = []
        for parameter, own in zip(below, found, strict=True):
            part = torch.zeros_like(parameter) if own is None else own
            parts.append((part * (owners[id(parameter)] == SHARED) if id(parameter) in owners else part).flatten())
        return torch.cat(parts)


def _outer(scale: Tensor) -> Tensor:
    """The product c cᵀ float64, 1 where it is 0: an absent task's row is 0 anyway."""
    scale = torch.where(scale == 0, 1.0, scale.double())
    return scale[:, None] * scale
