"""What all loss weighting shares; the methods have their own files."""

import pytest
import torch

from polyrank.balancing.weighting import LEAST, LossWeighting, positive, scaled
from polyrank.errors import TrainingDiverged


class ByNumber(LossWeighting):
    scale = "tasks"

    def weigh(self, losses, here, step):
        self.seen = losses.tolist(), here.tolist()
        return here.double() + 1.0


def test_only_tasks_with_rows_are_weighed(jacobian_step):
    balancer = ByNumber(["a", "b", "c"])
    step = jacobian_step([1.0, 2.0, 4.0], [[1.0], [1.0], [1.0]], [True, False, True])
    assert balancer.backward(step).tolist() == [0.5, 0.0, 1.5]
    assert balancer.seen == ([1.0, 4.0], [0, 2])
    assert step.pulled.tolist() == [0.5, 0.0, 1.5]  # own parameters too
    assert step.pushed.tolist() == [1.0, 1.0, 1.0]


def test_scaling():
    weights = torch.tensor([1.0, 3.0])
    assert scaled(weights, "tasks").tolist() == [0.5, 1.5]
    assert scaled(weights, "paper").tolist() == [1.0, 3.0]
    assert scaled(torch.tensor([-1.0, 0.5]), "tasks").tolist() == [-1.0, 0.5]  # a sum below 0 has no such scale


def test_losses_that_may_be_divided_by():
    here = torch.tensor([0, 2])
    assert positive(torch.tensor([0.0, 3.0]), "gls", ["a", "b", "c"], here).tolist() == pytest.approx([LEAST, 3.0])
    with pytest.raises(TrainingDiverged, match="a negative loss of c"):
        positive(torch.tensor([1.0, -3.0]), "gls", ["a", "b", "c"], here)
