"""Soft parameter sharing: a network for each task, tied by the distance of their weights.

Duong, Cohn, Bird, Cook, "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network Parser",
ACL-IJCNLP 2015; with two tasks the baseline "L2-Constrained" of Ma et al., KDD 2018, section 6.1.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from polyrank.nn.experts import GateWeights, Level
from polyrank.nn.inputs import InputColumns, Inputs, by_set
from polyrank.nn.layers import NetworkConfig
from polyrank.nn.ownership import Owned, of_level

Norm = Literal["l1", "l2"]


@dataclass(frozen=True)
class SoftSharingConfig(NetworkConfig):
    """The papers tune λ. Has the fields of `NetworkConfig` too: the layers of each task's network.

    Attributes:
        norm: `l2`: the squares of the weights' differences; `l1`: their absolute values.
        strength: λ, on the sum over all weights and pairs of tasks; 0 for separate networks.
        embeddings: `shared`, or `separate`: a set for each task, which no distance ties.
    """

    widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (128, 64)
    norm: Norm = "l2"
    strength: Annotated[float, Ge(0)] = 1e-4
    embeddings: Literal["shared", "separate"] = "shared"


class SoftSharing(nn.Module):
    """h_t = f(x; θ_t), and the objective's penalty λ Σ_l Σ_{s<t} ‖θ_s^l − θ_t^l‖², or λ Σ_l Σ_{s<t} |θ_s^l − θ_t^l|.

    θ^l are the weights of hidden layer l: not the biases, embeddings or towers. The square has a gradient also where
    weights are equal, which the norm that the MMoE paper prints has not. All networks start from random weights of
    their own; Duong et al. start one from another, trained before.

    Args:
        in_width: D.
        tasks: T.
        config: the knobs.
        columns: what stands where in x; needed for separate embeddings alone.
    """

    sets: Tensor | None

    def __init__(
        self, in_width: int, tasks: int, config: SoftSharingConfig, columns: InputColumns | None = None
    ) -> None:
        super().__init__()
        self.tasks, self.norm, self.strength = tasks, config.norm, config.strength
        separate = config.embeddings == "separate"
        self.register_buffer("sets", None, persistent=False)
        if separate:
            assert columns is not None, "separate embeddings need to know where they stand"
            self.sets = torch.tensor(columns.sets)
        width = in_width if self.sets is None else self.sets.shape[1]
        self.networks = Level(width, [(1, 0)] * tasks if separate else [(tasks, 0)], [], config.widths, **config.style)
        self.out_width = self.networks.out_width

    @staticmethod
    def embedding_sets(tasks: int, config: SoftSharingConfig) -> int:
        """T, or 1 where they are shared."""
        return tasks if config.embeddings == "separate" else 1

    def forward(self, x: Inputs) -> Tensor:
        """`[B, D]` → `[T, B, H]`."""
        output: Tensor = self.networks([x] if self.sets is None else by_set(x, self.sets))[0]
        return output

    def owned(self) -> Owned:
        """Each network: only the penalty ties them."""
        return of_level(self.networks, range(self.tasks))

    def penalty(self) -> Tensor | None:
        """λ times the distance; None where λ is 0."""
        if not self.strength:
            return None
        distances = [pairwise_distance(weights, self.norm) for weights in self.networks.matrices()]
        return self.strength * torch.stack(distances).sum()

    def gates(self, x: Inputs) -> list[GateWeights]:
        """It has none."""
        return []


def pairwise_distance(weights: Tensor, norm: Norm) -> Tensor:
    """Σ_{s<t} of the squares or absolute values of θ_s − θ_t.

    Not pair by pair: the squares are T Σ_t ‖θ_t − mean‖², and with θ₍₁₎ ≤ … ≤ θ₍ₜ₎ the absolute values are
    Σ_k (2k − T − 1) θ₍ₖ₎.

    Args:
        weights: `[T, ...]`.
        norm: which.
    """
    tasks = len(weights)
    if norm == "l2":
        return tasks * (weights - weights.mean(dim=0)).square().sum()
    ranks = torch.arange(1 - tasks, tasks, 2, dtype=weights.dtype)
    return (ranks @ weights.flatten(1).sort(dim=0).values).sum()
