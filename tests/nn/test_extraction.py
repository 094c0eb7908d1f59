"""One level by hand, and its names; the equations over several levels are in tests/models/test_ple.py."""

import math

import pytest
import torch

from polyrank.nn.experts import SHARED
from polyrank.nn.extraction import FirstExtraction, LaterExtraction, LevelShape, LevelWeights, States


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def first(shared_gate, *, tasks=2, specific=1, shared=1, widths=(1,)):
    return FirstExtraction(1, LevelShape(tasks, specific, shared, widths), shared_gate=shared_gate)


class TestCombine:
    def test_by_hand(self):
        # Two tasks, one own expert each (2 and 6), one shared expert (4).
        own = torch.tensor([[[[2.0]], [[6.0]]]])
        shared = torch.tensor([[[4.0]]])
        # Task 0 gives (¼, ¾) to (own, shared), task 1 (½, ½); the shared gate (¼, ¼, ½) to (own 0, own 1, shared).
        logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]])
        over_all = torch.tensor([[0.0, 0.0, math.log(2)]])
        states, weights = first(shared_gate=True).combine(own, shared, logits, over_all)
        torch.testing.assert_close(states.tasks, torch.tensor([[[3.5], [5.0]]]))
        torch.testing.assert_close(states.shared, torch.tensor([[4.0]]))
        torch.testing.assert_close(weights.tasks, torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]))
        torch.testing.assert_close(weights.shared, torch.tensor([[0.25, 0.25, 0.5]]))

    def test_without_a_shared_gate_nothing_shared_is_handed_on(self):
        states, weights = first(shared_gate=False)(torch.randn(3, 1))
        assert states.shared is None
        assert weights.shared is None

    def test_equal_experts_come_out_as_they_are(self):
        level = first(shared_gate=True, specific=2, shared=3)
        output = torch.randn(4, 1)
        own, shared = output.view(4, 1, 1, 1).expand(4, 2, 2, 1), output.view(4, 1, 1).expand(4, 3, 1)
        states, _ = level.combine(own, shared, torch.randn(4, 2, 5), torch.randn(4, 7))
        torch.testing.assert_close(states.tasks, output.view(4, 1, 1).expand(4, 2, 1))
        torch.testing.assert_close(states.shared, output)


class TestLevels:
    def test_first_level_by_hand(self):
        # x = 1: own experts 2 and 6, shared 4; gate logits as their columns of the one weight matrix.
        level = first(shared_gate=True)
        columns = [2.0, 6.0, 4.0, 0.0, math.log(3), 0.0, 0.0, 0.0, 0.0, math.log(2)]
        with torch.no_grad():
            level.group.weight.copy_(torch.tensor(columns).view(1, 1, 10))
        states, _ = level(torch.ones(1, 1))
        torch.testing.assert_close(states.tasks, torch.tensor([[[3.5], [5.0]]]))
        torch.testing.assert_close(states.shared, torch.tensor([[4.0]]))

    def test_later_level_by_hand(self):
        # Own experts double x_t, the shared one triples x_s; every gate is uniform.
        level = LaterExtraction(1, LevelShape(2, 1, 1, (1,)), shared_gate=True)
        with torch.no_grad():
            level.own.weight.copy_(torch.tensor([2.0, 0.0, 0.0]).expand(2, 1, 3))
            level.common.weight.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]).view(1, 1, 4))
        states, _ = level(States(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[2.0]])))
        # Own 2 and 10, shared 6: (2 + 6)/2, (10 + 6)/2 and (2 + 10 + 6)/3.
        torch.testing.assert_close(states.tasks, torch.tensor([[[4.0], [8.0]]]))
        torch.testing.assert_close(states.shared, torch.tensor([[6.0]]))

    def test_gates_of_a_later_level_read_the_states_below(self):
        level = LaterExtraction(1, LevelShape(2, 1, 1, (1,)), shared_gate=False)
        with torch.no_grad():
            level.own.weight.copy_(torch.tensor([0.0, 0.0, math.log(3)]).expand(2, 1, 3))
        _, weights = level(States(torch.tensor([[[1.0], [0.0]]]), torch.tensor([[9.0]])))
        torch.testing.assert_close(weights.tasks, torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]))

    def test_a_later_level_needs_the_shared_state(self):
        level = LaterExtraction(1, LevelShape(2, 1, 1, (1,)), shared_gate=False)
        with pytest.raises(AssertionError, match="shared state"):
            level(States(torch.ones(1, 2, 1), None))


def test_gates_are_named_after_the_experts_they_see():
    level = first(shared_gate=True, tasks=2, specific=2, shared=1)
    tasks, shared = torch.rand(3, 2, 3), torch.rand(3, 5)
    gates = level.named(4, LevelWeights(tasks, shared))
    assert [(gate.level, gate.owner) for gate in gates] == [(4, 0), (4, 1), (4, SHARED)]
    assert gates[0].experts == ((0, 0), (0, 1), (SHARED, 0))
    assert gates[1].experts == ((1, 0), (1, 1), (SHARED, 0))
    assert gates[2].experts == ((0, 0), (0, 1), (1, 0), (1, 1), (SHARED, 0))
    assert torch.equal(gates[1].weights, tasks[:, 1])
    assert torch.equal(gates[2].weights, shared)
    assert len(level.named(4, LevelWeights(tasks, None))) == 2
