import math

import pytest
import torch

from polyrank.fusion.listwise_nets import ListwiseConfig, ListwiseNet, RivalryNet

NETS = [ListwiseNet, RivalryNet]
HEADS, CONTEXT = 2, 1


def net_of(kind, context=CONTEXT, seed=0, **knobs):
    torch.manual_seed(seed)
    return kind(HEADS, context, ListwiseConfig(width=8, attention_heads=2, **knobs)).double().eval()


def inputs(candidates=5, requests=1, context=CONTEXT):
    x = torch.randn(requests, candidates, 2 * HEADS + context, dtype=torch.float64)
    return x, torch.ones(requests, candidates, dtype=torch.bool)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("context", [0, 1])
def test_padding_and_the_order_of_candidates_change_nothing(kind, context):
    net = net_of(kind, context)
    x, whole = inputs(context=context)
    alone = net(x, whole)
    wider = torch.cat((x, torch.full((1, 2, x.shape[2]), 1e3, dtype=torch.float64)), dim=1)
    present = torch.tensor([[True] * 5 + [False] * 2])
    torch.testing.assert_close(net(wider, present)[:, :5], alone)
    torch.testing.assert_close(net(x.flip(1), whole), alone.flip(1))


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("column", [0, 2 * HEADS])  # a head's value, and the context
def test_candidates_look_at_one_another(kind, column):
    net = net_of(kind)
    x, present = inputs()
    before = net(x, present)[0, 0].item()
    x[0, 3, column] += 5
    assert net(x, present)[0, 0].item() != pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("kind", NETS)
def test_every_parameter_learns(kind):
    net = net_of(kind)
    net(*inputs(6, 20)).square().sum().backward()
    assert all((parameter.grad != 0).any() for parameter in net.parameters())


def test_the_share_that_surpasses_by_hand():
    t = torch.tensor([[[0.0], [math.log(3)], [7.0]]])
    present = torch.tensor([[True, True, False]])
    # σ(ln 3) = 3/4: candidate 1 surpasses candidate 0 by three quarters; padding surpasses nobody.
    torch.testing.assert_close(RivalryNet.surpassed(t, present)[0, :2, 0], torch.tensor([0.75, 0.25]))
    whole = torch.ones(1, 3, dtype=torch.bool)
    assert RivalryNet.surpassed(t * 1e3, whole)[0, :, 0].tolist() == pytest.approx([1.0, 0.5, 0.0])  # a rank
    assert RivalryNet.surpassed(t[:, :1], whole[:, :1]).item() == 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("context", [0, 1])
def test_no_parameters_let_a_candidate_lose_a_place_by_a_higher_head(seed, context):
    net = net_of(RivalryNet, context)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        x, present = inputs(6, 40, context)
        before = net(x, present)
        for column in range(2 * HEADS):
            raised = x.clone()
            raised[:, 0, column] += 2 * torch.rand(40, dtype=torch.float64)
            moved = net(raised, present) - before
            assert (moved[:, 0] >= -1e-9).all()
            assert (moved[:, 1:] <= 1e-9).all()


def test_it_begins_near_equal_weights():
    net = net_of(RivalryNet)
    with torch.no_grad():
        net.out.zero_()
    x, present = inputs()
    torch.testing.assert_close(net(x, present), x[..., :HEADS].sum(dim=2))
