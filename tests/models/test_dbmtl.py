import pytest
import torch

from polyrank.models.dbmtl import DBMTL, DBMTLConfig
from polyrank.nn.inputs import Inputs

SMALL = DBMTLConfig(widths=(1,), task_widths=(1,), relation_widths=(1,))


def set_to(parameter, *values):
    with torch.no_grad():
        parameter.copy_(torch.tensor(values).view_as(parameter))


def test_a_child_reads_its_own_features_and_its_parents():
    """x = 2: b = 3·2 = 6; h = (6, 12 − 10); r_1 = 6; r_2 = ReLU(5·2 − 1·6 + 1) = 5."""
    model = DBMTL(1, 2, SMALL)
    set_to(model.bottom.groups[0].weight, 3.0)
    set_to(model.networks.layers[0].weight, 1.0, 2.0)
    set_to(model.networks.layers[0].bias, 0.0, -10.0)
    set_to(model.relations[0].layers[0].weight, 5.0, -1.0)
    set_to(model.relations[0].layers[0].bias, 1.0)
    torch.testing.assert_close(model(Inputs(torch.tensor([[2.0]]))).flatten(), torch.tensor([6.0, 5.0]))


def test_a_grandchild_reads_what_its_parent_became():
    """All weights 1, x = 1: h = 1 each; r_1 = 1, r_2 = 1 + 1, r_3 = 1 + 2, whatever the order of the tasks."""
    model = DBMTL(1, 3, SMALL, parents=(2, -1, 1))
    for name, parameter in model.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    assert model(Inputs(torch.ones(1, 1))).flatten().tolist() == [3.0, 1.0, 2.0]


def test_without_a_tree_the_order_is_the_chain():
    assert DBMTL(1, 3, SMALL).parents == [-1, 0, 1]
    assert DBMTL(1, 3, SMALL, parents=(-1, -1, -1)).parents == [-1, 0, 1]
    assert DBMTL(1, 3, SMALL, parents=(-1, 0, 0)).parents == [-1, 0, 0]


def test_gradients_flow_into_the_parents_features():
    torch.manual_seed(0)
    model = DBMTL(3, 2, DBMTLConfig(widths=(8,), task_widths=(8,), relation_widths=(8,)))
    model(Inputs(torch.randn(6, 3)))[1].sum().backward()
    assert model.networks.layers[0].weight.grad[0].any()


def test_roots_and_children_must_be_equally_wide():
    with pytest.raises(ValueError, match=r"equal the last of task_widths\. Received: 4 and 1"):
        DBMTL(1, 2, DBMTLConfig(widths=(1,), task_widths=(1,), relation_widths=(4,)))
