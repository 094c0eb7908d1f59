import pytest
import torch

from polyrank.nn.sequences import SequenceConfig, SequenceTransformer, TargetAttention

WIDTH, LENGTH = 4, 3
CASES = [
    (TargetAttention, SequenceConfig("din", units=(5, 3))),
    (TargetAttention, SequenceConfig("din", units=(5,), softmax=True)),
    (SequenceTransformer, SequenceConfig("transformer", heads=2, feedforward=8)),
]
every_reader = pytest.mark.parametrize(("kind", "config"), CASES, ids=["din", "din softmax", "transformer"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(kind, config, length=LENGTH):
    model = kind(WIDTH, config) if kind is TargetAttention else kind(WIDTH, length, config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def history(rows=5, length=LENGTH):
    """Values first, absent places zeros, as the encoded matrix has them; row 1 is empty."""
    lengths = torch.tensor([3, 0, 1, 2, 3])[:rows]
    present = torch.arange(length) < lengths.unsqueeze(1)
    return torch.randn(rows, WIDTH), torch.randn(rows, length, WIDTH) * present.unsqueeze(2), present


def by_hand(softmax):
    """W = 1, one hidden unit with weights (1, 2, 3, 4) on [v; e; v − e; v·e], bias −20, slope 1/2, output 2h + 1."""
    model = TargetAttention(1, SequenceConfig("din", units=(1,), softmax=softmax))
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
        model.first.bias.fill_(-20.0)
        model.slopes[0].fill_(0.5)
        model.deeper[0].weight.fill_(2.0)
        model.deeper[0].bias.fill_(1.0)
    target = torch.tensor([[2.0]])
    places = torch.tensor([[[1.0], [3.0], [0.0]]])
    return model, (target, places, torch.tensor([[True, True, False]]))


def test_din_is_what_the_paper_says():
    # v = 2. e = 1: 2 + 2 + 3 + 8 − 20 = −5 → −2.5 → −4. e = 3: 2 + 6 − 3 + 24 − 20 = 9 → 19.
    model, given = by_hand(softmax=False)
    assert model.weights(*given).tolist() == [[-4.0, 19.0, 0.0]]
    assert model(*given).item() == -4.0 * 1 + 19.0 * 3


def test_din_with_softmax_is_an_average_of_what_is_there():
    model, given = by_hand(softmax=True)
    with torch.no_grad():
        model.deeper[0].weight.fill_(0.2)  # outputs ½ and 2.8 instead of −4 and 19
    share = torch.sigmoid(torch.tensor(2.8 - 0.5)).item()
    assert model.weights(*given)[0].tolist() == pytest.approx([1 - share, share, 0.0], rel=1e-5)
    assert model(*given).item() == pytest.approx((1 - share) * 1 + share * 3)


@every_reader
def test_an_empty_history_is_zeros_and_trains(kind, config):
    model, (target, places, present) = made(kind, config), history()
    target.requires_grad_()
    out = model(target, places, present)
    assert out.shape == (5, WIDTH)
    assert out[1].tolist() == [0.0] * WIDTH
    assert all(row.any() for row in out[[0, 2, 3, 4]])
    out.sum().backward()
    assert torch.isfinite(target.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@every_reader
def test_a_batch_of_empty_histories(kind, config):
    target, places, present = history()
    out = made(kind, config)(target, places * 0, present & False)
    assert not out.any()


@every_reader
def test_what_stands_in_absent_places_changes_nothing(kind, config):
    model, (target, places, present) = made(kind, config), history()
    strange = torch.where(present.unsqueeze(2), places, 7.0)
    torch.testing.assert_close(model(target, strange, present), model(target, places, present))


@every_reader
def test_more_room_for_the_same_history_changes_nothing(kind, config):
    target, places, present = history()
    short = made(kind, config)
    long = made(kind, config, LENGTH + 2)
    state = short.state_dict()
    if kind is SequenceTransformer:  # ages 0 … L − 1, then the candidate
        ages = state["positions"]
        state["positions"] = torch.cat([ages[:-1], torch.randn(2, WIDTH), ages[-1:]])
    long.load_state_dict(state)
    room = torch.nn.functional.pad(places, (0, 0, 0, 2)), torch.nn.functional.pad(present, (0, 2))
    torch.testing.assert_close(long(target, *room), short(target, places, present))


@every_reader
def test_every_parameter_and_every_present_place_receives_a_gradient(kind, config):
    model, (target, places, present) = made(kind, config), history()
    places.requires_grad_()
    model(target, places, present).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters())
    assert places.grad.any(dim=2).equal(present)


def test_din_does_not_see_order_and_the_transformer_does():
    target, places, present = torch.randn(1, WIDTH), torch.randn(1, 3, WIDTH), torch.ones(1, 3, dtype=torch.bool)
    turned = places.flip(1)
    din, transformer = made(*CASES[0]), made(*CASES[2])
    torch.testing.assert_close(din(target, turned, present), din(target, places, present))
    difference = transformer(target, turned, present) - transformer(target, places, present)
    assert difference.abs().max() > 1e-3


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match=r"heads must divide embedding_width 4. Received: 3"):
        SequenceTransformer(4, 3, SequenceConfig("transformer", heads=3))
