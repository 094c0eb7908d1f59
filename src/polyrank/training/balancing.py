"""A balancer at work: steps made for it, second looks at a batch, and a record of what it did. T tasks, B rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyrank.balancing.balancer import Balancer
from polyrank.balancing.quality import accuracy, concordance
from polyrank.balancing.step import Quality
from polyrank.data.loader import Batch
from polyrank.errors import ConfigError
from polyrank.models.ranker import Ranker
from polyrank.training.balance_log import POINTS, BalanceLog
from polyrank.training.step import Junction, TrainingStep


class Balancing:
    """What stands between a ranker and its balancer.

    Args:
        ranker: what is trained.
        balancer: decides.
        tasks: the T names.
        steps: of an epoch: the record has about `POINTS` points for so many.
    """

    def __init__(self, ranker: Ranker, balancer: Balancer, tasks: Sequence[str], steps: int) -> None:
        self.ranker, self.balancer, self.tasks = ranker, balancer, list(tasks)
        self.junction = Junction(ranker, len(self.tasks))
        self.log = BalanceLog(tasks, math.ceil(steps / POINTS))
        self.weights = torch.ones(len(self.tasks), dtype=torch.float64)
        self._generator: Tensor | None = None

    def before(self) -> None:
        """Before a forward pass."""
        self._generator = torch.get_rng_state() if self.balancer.again else None

    def backward(self, losses: Tensor, present: Tensor, logits: Tensor, batch: Batch, number: int) -> None:
        """One balanced backward pass, and that of the architecture's penalty, which no balancer weighs.

        Args:
            losses: `[T]`, attached to the graph.
            present: `[T]` bool: the batch has a row for the task.
            logits: what they came from.
            batch: and its labels.
            number: of the step, from 1.
        """

        def quality(metric: Quality) -> Tensor:
            return self._quality(metric, logits.detach(), batch)

        penalty = self.ranker.penalty()
        step = TrainingStep(self.junction, losses, present, quality, keep=penalty is not None)
        self.weights = self.balancer.backward(step)
        if penalty is not None:
            torch.autograd.backward(penalty)
        if self.log.last and step.cheap and step.measured is None:
            step.gramian()
        self.log.add(number, step.losses, present, self.weights, step.measured)
        self.junction.clear()

    def after(self, losses: Callable[[], Tensor], present: Tensor) -> None:
        """After the update; `losses` runs the same batch again: `[T]`, with the dropout it had."""
        if self._generator is None:
            return
        now = torch.get_rng_state()
        torch.set_rng_state(self._generator)
        with torch.no_grad():
            again = losses()
        torch.set_rng_state(now)
        self.balancer.after(again, present)

    def by_task(self) -> dict[str, float]:
        """The last step's weights."""
        return dict(zip(self.tasks, self.weights.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The balancer's memory and the record's."""
        return {"balancer": self.balancer.state_dict(), "log": self.log.state_dict(), "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.balancer.load_state_dict(state["balancer"])
        self.log.load_state_dict(state["log"])
        self.weights = state["weights"].clone()

    def _quality(self, metric: Quality, logits: Tensor, batch: Batch) -> Tensor:
        predictions = self.ranker.values(logits, batch.ids)
        if metric == "auc":
            return concordance(predictions, batch.labels, batch.where)
        others = [name for name, kind in zip(self.tasks, self.ranker.kinds, strict=True) if kind != "binary"]
        if others:
            raise ConfigError(
                "accuracy is a metric of binary tasks", received=", ".join(others), mend="set the metric to auc"
            )
        return accuracy(predictions, batch.labels, batch.where)
