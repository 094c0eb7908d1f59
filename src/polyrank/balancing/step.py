"""What a balancer may ask of a training step: losses, which tasks have rows, and gradients. T tasks."""

from typing import Literal, Protocol

from torch import Tensor

Scope = Literal["representation", "parameters"]
Quality = Literal["auc", "accuracy"]


class Step(Protocol):
    """One batch's losses, before the backward pass: `pull` it to the shared part, look, `push` it through that.

    The network is cut where it hands each task's tower a vector. What is above belongs to one task each; below, experts
    and gates that only one task reads belong to it too, and all else is shared. With scale c and weights v, the own
    parts of task t receive c_t ∇L_t, and the shared ones, embeddings among them, Σ_t v_t c_t ∇L_t. `pull` and `push`
    are called once each, in this order.

    Attributes:
        losses: `[T]`, detached; 0 for a task without rows.
        present: `[T]` bool: the batch had a row for the task.
    """

    losses: Tensor
    present: Tensor

    def pull(self, scale: Tensor | None = None) -> None:
        """Differentiate Σ_t c_t L_t down to the cut, c the `[T]` scale, or ones."""

    def gramian(self, scope: Scope = "representation") -> Tensor:
        """`[T, T]` float64: inner products of the tasks' gradients of c_t L_t over the shared part, after `pull`.

        `representation`: at the outputs of the last shared experts (or trunk), all rows of the batch side by side:
        costs next to nothing. `parameters`: at the shared dense parameters, never an embedding table: costs a backward
        pass of the architecture for each task. An architecture that does not say what is shared is measured at its
        parameters.
        """

    def summed(self, parts: int = 1, scope: Scope = "representation") -> Tensor:
        """`[parts, T, K]`: the gradients of c_t L_t as vectors, of `parts` equal parts of the batch each.

        At the `representation` they are summed over rows, which makes K small and lets two parts be compared.
        """

    def units(self) -> Tensor:
        """`[T, H]`: Σ_b sign(h_tb) ∂(c_t L_t)/∂h_tb, h_t the vectors that the towers read.

        Raises:
            ConfigError: the architecture's tasks do not read common experts: unit i of one is not unit i of another.
        """

    def push(self, weights: Tensor | None = None) -> None:
        """Differentiate on through the shared part: v is `[T]`, or `[T, H]` with a factor for each unit of h_t.

        Such factors act where the shared experts, or the trunk, hand their outputs on: what goes through a task's own
        gates and experts is left as it is.
        """

    def quality(self, metric: Quality) -> Tensor:
        """`[T]` float64: how well the batch's predictions rank or classify its labels; NaN where not defined."""
