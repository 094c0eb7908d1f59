"""One gate for all tasks: by hand."""

import math

import pytest
import torch

from polyrank.models.omoe import OMoE, OMoEConfig
from polyrank.nn.experts import SHARED
from polyrank.nn.inputs import InputColumns, Inputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_golden():
    # x = 1: experts give 2 and 4, the gate (¼, ¾): 3½ for every task
    model = OMoE(1, 3, OMoEConfig(experts=2, widths=(1,)))
    with torch.no_grad():
        model.level.groups[0].weight.copy_(torch.tensor([[2.0, 4.0, 0.0, math.log(3)]]))
    x = Inputs(torch.ones(1, 1))
    torch.testing.assert_close(model(x), torch.full((3, 1, 1), 3.5))
    (gate,) = model.gates(x)
    torch.testing.assert_close(gate.weights, torch.tensor([[0.25, 0.75]]))
    assert (gate.level, gate.owner, gate.experts) == (1, SHARED, ((SHARED, 0), (SHARED, 1)))


@pytest.mark.parametrize("tasks", [1, 4])
def test_nothing_but_towers_grows_with_the_tasks(tasks):
    model = OMoE(10, tasks, OMoEConfig(experts=4, widths=(8, 5)))
    assert sum(p.numel() for p in model.parameters()) == 4 * (10 * 8 + 8 + 8 * 5 + 5) + 10 * 4


def test_the_gate_may_read_one_feature_alone():
    columns = InputColumns({"user": (0, 1), "scene": (2,)}, [(0, 1, 2)])
    model = OMoE(3, 2, OMoEConfig(experts=2, widths=(16,), gate_features=("scene",)), columns)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(Inputs(torch.randn(8, 3))).square().sum().backward()
    optimizer.step()
    x = torch.randn(5, 3)
    other = torch.cat([torch.randn(5, 2), x[:, 2:]], dim=1)
    assert torch.equal(model.gates(Inputs(x))[0].weights, model.gates(Inputs(other))[0].weights)
    assert len(model.gates(Inputs(x))[0].weights[:, 0].unique()) == 5
