"""Who owns what, read off small levels by hand."""

import torch

from polyrank.nn.experts import SHARED, Level, TaskNetworks
from polyrank.nn.extraction import LevelShape, first_level, later_level
from polyrank.nn.layers import StackedLinear
from polyrank.nn.ownership import NONE, expert_owners, of_networks, of_stack, owned_slices, reading

SHAPE = LevelShape(2, 1, 2, (3, 4))


class Levels:
    """An architecture that says what its levels are."""

    def __init__(self, *levels):
        self.levels = lambda: levels


def test_experts_that_one_tasks_gates_see_are_its_own():
    assert expert_owners(Level(5, [(3, 6)], [range(3)] * 2, (4,)), (0, 1)) == [SHARED] * 3
    assert expert_owners(first_level(5, SHAPE, shared_gate=False), (0, 1)) == [0, 1, SHARED, SHARED]
    assert expert_owners(first_level(5, SHAPE, shared_gate=True), (0, 1, SHARED)) == [SHARED] * 4
    assert expert_owners(Level(5, [(1, 0)], [], (4,)), ()) == [SHARED]


def test_a_tasks_gate_logits_are_its_own_in_mmoe():
    level = Level(5, [(3, 6)], [range(3)] * 2, (2, 4))
    ((parameter, owners),) = owned_slices(Levels((level, (0, 1))))
    assert parameter is level.groups[0].weight
    assert owners.tolist() == [SHARED] * 6 + [0] * 3 + [1] * 3


def test_a_cgc_level_has_columns_biases_and_layers_of_single_tasks():
    level = first_level(5, SHAPE, shared_gate=False)
    found = {id(parameter): owners.tolist() for parameter, owners in owned_slices(Levels((level, (0, 1))))}
    (group,) = level.groups
    hidden = [0] * 3 + [1] * 3 + [SHARED] * 6
    assert found[id(group.weight)] == hidden + [0] * 3 + [1] * 3
    assert found[id(group.bias)] == hidden
    assert found[id(group.deeper.layers[0].weight)] == [[[0]], [[1]], [[SHARED]], [[SHARED]]]
    assert found[id(group.deeper.layers[0].bias)] == [[[0]], [[1]], [[SHARED]], [[SHARED]]]
    assert len(found) == 4


def test_groups_of_a_later_level_belong_to_their_task():
    level = later_level(5, SHAPE, shared_gate=False)
    found = {
        id(parameter): set(owners.flatten().tolist()) for parameter, owners in owned_slices(Levels((level, (0, 1))))
    }
    for task, group in enumerate(level.groups[:2]):
        assert all(found[id(parameter)] == {task} for parameter in group.parameters())
    assert not any(id(parameter) in found for parameter in level.groups[2].parameters())


def test_without_a_word_everything_is_shared():
    assert owned_slices(torch.nn.Linear(2, 3)) == []
    assert owned_slices(Levels((Level(5, [(1, 0)], [], (4,)), ()))) == []


def test_what_an_architecture_says_itself():
    class Said(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.networks, self.mixed = TaskNetworks(5, 2, (3, 4)), StackedLinear(3, 4, 6)

        def owned(self):
            return [*of_networks(self.networks, 2), *of_stack(self.mixed, [SHARED, 1, 0])]

    said = Said()
    found = {id(parameter): owners for parameter, owners in owned_slices(said)}
    assert found[id(said.mixed.weight)].tolist() == [[[SHARED]], [[1]], [[0]]]
    assert found[id(said.networks.first.groups[0].weight)].tolist() == [0] * 3 + [1] * 3
    assert found[id(said.networks.later[0].layers[0].bias)].tolist() == [[[0]], [[1]]]
    assert len(found) == len(list(said.parameters()))


def test_owners_broadcast_against_their_parameters():
    style = LevelShape(2, 1, 2, (3, 4, 4), layer_norm=True, residual=True)
    for parameter, owners in owned_slices(Levels((first_level(5, style, shared_gate=False), (0, 1)))):
        assert torch.broadcast_shapes(parameter.shape, owners.shape) == parameter.shape


def test_where_each_task_reads_the_shared_experts():
    level = first_level(5, SHAPE, shared_gate=False)  # gates: [own, shared, shared] each
    assert reading([(level, (0, 1))], 2).tolist() == [[1, 2], [4, 5]]
    mmoe = Level(5, [(3, 6)], [range(3)] * 2, (4,))
    assert reading([(mmoe, (0, 1))], 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    partly = Level(5, [(3, 4)], [[0, 1], [1, 2]], (4,))
    assert reading([(partly, (0, 1))], 2).tolist() == [[1], [2]]
    three = Level(5, [(3, 5)], [[0, 1], [1, 2], [0]], (4,))
    assert reading([(three, (0, 1, 2))], 3).tolist() == [[0, 1], [NONE, 2], [4, NONE]]


def test_all_tasks_may_read_the_output_itself():
    assert reading([(Level(5, [(1, 0)], [], (4,)), ())], 3).shape == (3, 0)
    assert reading([(Level(5, [(2, 2)], [[0, 1]], (4,)), (SHARED,))], 3).shape == (3, 0)


def test_tasks_without_common_experts_read_nothing_in_common():
    assert reading([], 2) is None
    assert reading([(Level(5, [(2, 2)], [[0], [1]], (4,)), (0, 1))], 2) is None
