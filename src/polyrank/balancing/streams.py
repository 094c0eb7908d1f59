"""Statistics of a stream of steps, task by task: averages, reference values, Adam. T tasks.

Each keeps its tensors in a balancer's memory under a name, and only moves the entries `here` of the tasks present.
"""

import torch
from torch import Tensor


def zeros(tasks: int) -> Tensor:
    """`[T]` float64."""
    return torch.zeros(tasks, dtype=torch.float64)


class Average:
    """An exponential average without bias: m ← β m + (1 − β) x, read as m / (1 − β^k), β = 2^(−1/half-life).

    k counts the steps in which the task was there. Half-life 0: the last value.

    Args:
        memory: where it is kept.
        name: under which name.
        tasks: T.
        half_life: in such steps.
    """

    def __init__(self, memory: dict[str, Tensor], name: str, tasks: int, half_life: float) -> None:
        self.memory, self.name = memory, name
        self.beta = 2.0 ** (-1.0 / half_life) if half_life > 0 else 0.0
        memory[name], memory[f"{name}_steps"] = zeros(tasks), zeros(tasks)

    def add(self, values: Tensor, here: Tensor) -> Tensor:
        """Take in `[S]` values; the averages `[S]`."""
        mean, steps = self.memory[self.name], self.memory[f"{self.name}_steps"]
        mean[here] = self.beta * mean[here] + (1.0 - self.beta) * values
        steps[here] += 1.0
        return mean[here] / (1.0 - self.beta ** steps[here])


class Reference:
    """The mean of a value over the first steps in which the task was there; until then, over those there were.

    Args:
        memory: where it is kept.
        name: under which name.
        tasks: T.
        steps: how many steps count.
        skipped: how many steps before them do not.
    """

    def __init__(self, memory: dict[str, Tensor], name: str, tasks: int, steps: int, skipped: int = 0) -> None:
        self.memory, self.name, self.steps, self.skipped = memory, name, steps, skipped
        memory[name], memory[f"{name}_steps"] = zeros(tasks), zeros(tasks)

    def add(self, values: Tensor, here: Tensor) -> Tensor:
        """Take in `[S]` values; the references `[S]`."""
        total, seen = self.memory[self.name], self.memory[f"{self.name}_steps"]
        seen[here] += 1.0
        counts = seen[here] - self.skipped
        total[here] += torch.where((counts > 0) & (counts <= self.steps), values, 0.0)
        return torch.where(counts > 0, total[here] / counts.clamp(1, self.steps), values)

    def settled(self, here: Tensor) -> Tensor:
        """`[S]` bool: whether all the steps that count were there."""
        return self.memory[f"{self.name}_steps"][here] >= self.skipped + self.steps


class Adam:
    """Adam (Kingma & Ba, 2015) on a `[T]` tensor: step counts and moments of absent tasks stay as they are.

    Args:
        memory: where the moments are kept.
        name: of the tensor there that it moves.
        learning_rate: its step.
        decay: added to the gradient times the value, as torch's Adam does.
    """

    def __init__(self, memory: dict[str, Tensor], name: str, learning_rate: float, decay: float = 0.0) -> None:
        self.memory, self.name, self.rate, self.decay = memory, name, learning_rate, decay
        for part in ("moment", "variance", "steps"):
            memory[f"{name}_{part}"] = torch.zeros_like(memory[name])

    def step(self, gradient: Tensor, here: Tensor) -> None:
        """Move the entries `here` against the gradient `[S]`."""
        value = self.memory[self.name]
        moment, variance, steps = (self.memory[f"{self.name}_{part}"] for part in ("moment", "variance", "steps"))
        gradient = gradient + self.decay * value[here]
        steps[here] += 1.0
        moment[here] = 0.9 * moment[here] + 0.1 * gradient
        variance[here] = 0.999 * variance[here] + 0.001 * gradient.square()
        first, second = 1.0 - 0.9 ** steps[here], 1.0 - 0.999 ** steps[here]
        value[here] -= self.rate * (moment[here] / first) / ((variance[here] / second).sqrt() + 1e-8)
