import torch

from polyrank.nn.ensemble import EnsembleConfig, Members


def test_each_member_scales_the_same_rows():
    members = Members((1, 1), EnsembleConfig(2))
    with torch.no_grad():
        members.scale.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.5]]))
    x = torch.tensor([[1.0, 1.0], [3.0, 4.0]])
    assert members(x).tolist() == [[1.0, -1.0], [3.0, -4.0], [2.0, 0.5], [6.0, 2.0]]


def test_a_layer_behind_it_is_batch_ensemble():
    # w = (3, 4), x = (1, 1), r = (1, −1): x scaled, times w = −1; with s = 2 and b = ½ in the member's tower −1.5
    members = Members((1, 1), EnsembleConfig(1))
    with torch.no_grad():
        members.scale.copy_(torch.tensor([[1.0, -1.0]]))
    hidden = members(torch.ones(1, 2)) @ torch.tensor([[3.0], [4.0]])
    assert (2.0 * hidden + 0.5).item() == -1.5


def test_scalings_start_alike_within_a_feature_only():
    torch.manual_seed(0)
    scale = Members((2, 3), EnsembleConfig(4)).scale
    assert (scale[:, 0] == scale[:, 1]).all()
    assert (scale[:, 2:] == scale[:, 2:3]).all()
    assert len(scale.unique()) == 8
