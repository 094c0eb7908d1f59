"""What balancers remember from step to step, saved and loaded exactly. T tasks, S tasks present in a step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Memory:
    """Tensors by name, and a random generator of its own where one is needed.

    Args:
        tasks: the tasks' names, in order.
        seed: of the generator; None for no generator.
        tensors: what is remembered, as it is before the first step.
    """

    combines = False
    """Whether shared parameters get a combination and own ones their own gradient, instead of weighted losses."""

    again = False
    """Whether it wants the losses of the coming step once more after the update, in `after`."""

    def __init__(self, tasks: Sequence[str], *, seed: int | None = None, **tensors: Tensor) -> None:
        self.tasks = list(tasks)
        self.memory = tensors
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def after(self, losses: Tensor, present: Tensor) -> None:
        """The same batch's losses `[T]` after the update, with the same dropout; called where `again`."""

    def state_dict(self) -> dict[str, Any]:
        """All tensors, and the generator's state."""
        return self.memory | ({} if self.generator is None else {"generator": self.generator.get_state()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        for name in self.memory:
            self.memory[name] = state[name].clone()
        if self.generator is not None:
            self.generator.set_state(state["generator"].clone())


@contextmanager
def instead_of_torchs(generator: torch.Generator) -> Iterator[None]:
    """Run code that draws from torch's global generator on `generator`: dropout's draws stay what they were."""
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


def by_task(values: Mapping[str, float], tasks: Sequence[str], default: float, what: str) -> Tensor:
    """`[T]` float64: each task's value, `default` where none is given.

    Raises:
        ValueError: a value for a task that is not there.
    """
    unknown = sorted(set(values) - set(tasks))
    if unknown:
        raise ValueError(f"{what} must name tasks ({', '.join(tasks)}). Received: {', '.join(unknown)}")
    return torch.tensor([float(values.get(task, default)) for task in tasks], dtype=torch.float64)
