import torch

from polyrank.models.esmm import ESMM, ESMMConfig
from polyrank.nn.inputs import Inputs


def test_each_task_has_its_own_network_on_the_same_input():
    """ReLU((1, −1)·x + .5) and ReLU((2, 3)·x + 1) at x = (1, 2) and (3, 1): 0 and 2.5, 9 and 10."""
    model = ESMM(2, 2, ESMMConfig(widths=(1,)))
    group = model.networks.groups[0]
    with torch.no_grad():
        group.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 3.0]]))
        group.bias.copy_(torch.tensor([0.5, 1.0]))
    found = model(Inputs(torch.tensor([[1.0, 2.0], [3.0, 1.0]])))
    torch.testing.assert_close(found, torch.tensor([[[0.0], [2.5]], [[9.0], [10.0]]]))


def test_the_papers_sizes():
    assert ESMMConfig().widths == (360, 200, 80)
    assert ESMM(18, 2, ESMMConfig()).out_width == 80


def test_nothing_but_the_input_is_shared():
    model = ESMM(3, 2, ESMMConfig(widths=(4, 2)))
    x = torch.randn(5, 3, requires_grad=True)
    model(Inputs(x))[0].sum().backward()
    group = model.networks.groups[0]
    assert not group.weight.grad[:, 4:].any()
    assert not group.deeper.layers[0].weight.grad[1].any()
    assert group.weight.grad[:, :4].any()
    assert model.gates(Inputs(x)) == []
