"""Loss weighting: one backward pass over a weighted sum of task losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor


@dataclass(frozen=True)
class StaticConfig:
    """Attributes: `weights`: a task's weight w_k by its name; 1 where not given."""

    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)


class Static:
    """Formula (1) of the field with fixed weights: L = Σ_k w_k L_k.

    Args:
        tasks: the tasks' names, in order.
        config: the weights.

    Raises:
        ValueError: a weight for a task that is not there.
    """

    def __init__(self, tasks: Sequence[str], config: StaticConfig) -> None:
        unknown = sorted(set(config.weights) - set(tasks))
        if unknown:
            raise ValueError(f"weights must name tasks ({', '.join(tasks)}). Received: {', '.join(unknown)}")
        self.weights = torch.tensor([float(config.weights.get(task, 1.0)) for task in tasks])

    def backward(self, losses: Tensor, present: Tensor) -> Tensor:
        """Backward of Σ_k w_k L_k; a task without rows has loss 0 and leaves no gradient."""
        torch.autograd.backward((losses * self.weights).sum())
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes in training."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""
