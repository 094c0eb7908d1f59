"""One level by hand, and its names; the equations over several levels are in tests/models/test_ple.py."""

import math

import pytest
import torch

from polyrank.nn.experts import SHARED
from polyrank.nn.extraction import LevelShape, first_level, later_level
from polyrank.nn.inputs import Inputs

SMALLEST = LevelShape(tasks=2, specific=1, shared=1, widths=(1,))
WIDE = LevelShape(tasks=2, specific=1, shared=1, widths=(16,))
both_widths = pytest.mark.parametrize("shape", [SMALLEST, WIDE])  # kernels take multiples of sixteen alone


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def columns(experts, logits, shape):
    """A weight `[1, M·H + K]` whose experts give the same number in all H outputs."""
    (width,) = shape.widths
    return torch.tensor([value for value in experts for _ in range(width)] + logits)[None]


def alike(values, shape):
    """`[I, B]` numbers as `[I, B, H]`."""
    return torch.tensor(values).unsqueeze(2).expand(-1, -1, *shape.widths)


class TestFirstLevel:
    @both_widths
    def test_by_hand(self, shape):
        # x = 1. Two tasks, one own expert each (2 and 6), one shared expert (4).
        # Task 0 gives (¼, ¾) to (own, shared), task 1 (½, ½); the shared gate (¼, ¼, ½) to (own 0, own 1, shared).
        level = first_level(1, shape, shared_gate=True)
        logits = [0.0, math.log(3), 0.0, 0.0, 0.0, 0.0, math.log(2)]
        with torch.no_grad():
            level.groups[0].weight.copy_(columns([2.0, 6.0, 4.0], logits, shape))
        states, weights = level([Inputs(torch.ones(1, 1))])
        torch.testing.assert_close(states, alike([[3.5], [5.0], [4.0]], shape))
        torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75, 0.5, 0.5, 0.25, 0.25, 0.5]]))

    def test_without_a_shared_gate_nothing_shared_is_handed_on(self):
        states, weights = first_level(1, SMALLEST, shared_gate=False)([Inputs(torch.randn(3, 1))])
        assert states.shape == (2, 3, 1)
        assert weights.shape == (3, 4)

    @pytest.mark.parametrize("width", [1, 16])
    def test_equal_experts_come_out_as_they_are(self, width):
        shape = LevelShape(tasks=2, specific=2, shared=3, widths=(width,))
        level = first_level(1, shape, shared_gate=True)
        with torch.no_grad():
            level.groups[0].weight.normal_()
            level.groups[0].weight[:, : 7 * width] = 1.0
        x = torch.rand(4, 1)
        states, _ = level([Inputs(x)])
        torch.testing.assert_close(states, x.expand(3, 4, width))


class TestLaterLevel:
    @both_widths
    def test_by_hand(self, shape):
        # Own experts double x_t, the shared one triples x_s; every gate is uniform.
        level = later_level(1, shape, shared_gate=True)
        with torch.no_grad():
            for own in level.groups[:2]:
                own.weight.copy_(columns([2.0], [0.0, 0.0], shape))
            level.groups[2].weight.copy_(columns([3.0], [0.0, 0.0, 0.0], shape))
        states, _ = level(torch.tensor([[[1.0]], [[5.0]], [[2.0]]]))
        # Own 2 and 10, shared 6: (2 + 6)/2, (10 + 6)/2 and (2 + 10 + 6)/3.
        torch.testing.assert_close(states, alike([[4.0], [8.0], [6.0]], shape))

    @both_widths
    def test_gates_read_the_states_below(self, shape):
        level = later_level(1, shape, shared_gate=False)
        with torch.no_grad():
            for own in level.groups[:2]:
                own.weight.copy_(columns([0.0], [0.0, math.log(3)], shape))
        _, weights = level(torch.tensor([[[1.0]], [[0.0]], [[9.0]]]))
        torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75, 0.5, 0.5]]))

    def test_needs_the_shared_state(self):
        with pytest.raises(ValueError, match="zip"):
            later_level(1, SMALLEST, shared_gate=False).plainly(torch.ones(2, 1, 1))


@pytest.mark.parametrize("shared_gate", [True, False])
def test_gates_are_named_after_the_experts_they_see(shared_gate):
    shape = LevelShape(tasks=2, specific=2, shared=1, widths=(1,))
    weights = torch.rand(3, 11 if shared_gate else 6)
    gates = shape.named(4, weights)
    owners = [(4, 0), (4, 1), (4, SHARED)]
    assert [(gate.level, gate.owner) for gate in gates] == (owners if shared_gate else owners[:2])
    assert gates[0].experts == ((0, 0), (0, 1), (SHARED, 0))
    assert gates[1].experts == ((1, 0), (1, 1), (SHARED, 0))
    assert torch.equal(gates[0].weights, weights[:, :3])
    assert torch.equal(gates[1].weights, weights[:, 3:6])
    if shared_gate:
        assert gates[2].experts == ((0, 0), (0, 1), (1, 0), (1, 1), (SHARED, 0))
        assert torch.equal(gates[2].weights, weights[:, 6:])


def test_names_and_numbers_are_of_the_same_experts():
    """`named` says who, the level's gates say which number: own experts task after task, then the shared ones."""
    shape = LevelShape(tasks=3, specific=2, shared=2, widths=(4,))
    order = [(task, number) for task in range(3) for number in range(2)] + [(SHARED, 0), (SHARED, 1)]
    for level in (first_level(5, shape, shared_gate=True), later_level(5, shape, shared_gate=True)):
        _, weights = level.plainly([Inputs(torch.randn(2, 5))] * len(level.groups))
        named = shape.named(1, weights)
        assert [[order[expert] for expert in gate] for gate in level.gates] == [list(gate.experts) for gate in named]
