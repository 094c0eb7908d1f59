"""What stands in the architecture's input, part by part; the battery over options is in tests/contracts."""

import pytest
import torch

from polyrank.data.layout import Field, Layout
from polyrank.nn.embeddings import Embeddings
from polyrank.nn.ensemble import EnsembleConfig
from polyrank.nn.features import FeatureConfig, FeatureSide, spread
from polyrank.nn.gating import FeatureGateConfig
from polyrank.nn.numeric import NumberConfig
from polyrank.nn.sequences import SequenceConfig

LAYOUT = Layout(
    (
        Field("user", "id", 0, 1, "user"),
        Field("tags", "tags", 1, 3, "tags"),
        Field("history", "sequence", 3, 6, "video"),
        Field("age", "number", 6, 7, "age", dense=0),
        Field("video", "id", 7, 8, "video"),
        Field("other", "sequence", 8, 10, "other"),
    ),
    {"user": 5, "tags": 4, "video": 6, "age": 4, "other": 7},
    {"age": (-1.0, 0.0, 1.0)},
)
WIDTH, TASKS = 2, 3
IDS = torch.tensor([[1, 2, 0, 5, 3, 0, 2, 4, 6, 1], [2, 0, 0, 0, 0, 0, 0, 1, 0, 0]], dtype=torch.int32)
NUMBERS = torch.tensor([[0.5], [0.0]])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(layout=LAYOUT, **options):
    config = FeatureConfig(**options)
    embeddings = Embeddings(spread(layout, config), WIDTH, first_order=TASKS if config.first_order else 0)
    return embeddings, FeatureSide(layout, embeddings.order, WIDTH, TASKS, config)


def read(embeddings, side, ids=IDS):
    x, first_order = side(embeddings(ids, NUMBERS[: len(ids)], written=side.active), ids)
    return x.written(), first_order


def rows_of(embeddings, name, ids):
    """The table rows of a feature's ids; narrow features' tables come first, in the layout's order."""
    start = {"user": 0, "age": 5, "tags": 9, "video": 13, "other": 19}[name]
    return embeddings.table[start + torch.tensor(ids)]


def test_with_nothing_on_the_input_passes_untouched():
    embeddings, side = made()
    assert not side.active
    x = embeddings(IDS, NUMBERS)
    assert side(x, IDS) == (x, None)
    assert side.out_width == x.written().shape[1] == 6 * WIDTH + 1


def test_a_sequence_is_read_with_its_candidate_and_others_stay_means():
    embeddings, side = made(sequence=SequenceConfig("din"))
    for parameter in side.parameters():
        torch.nn.init.normal_(parameter)
    x, _ = read(embeddings, side)
    assert x.shape == (2, side.out_width)
    candidate, places = rows_of(embeddings, "video", [4]), rows_of(embeddings, "video", [5, 3])
    attended = side.readers[0](candidate, places.unsqueeze(0), torch.ones(1, 2, dtype=torch.bool))[0]
    parts = [
        rows_of(embeddings, "user", [1])[0], rows_of(embeddings, "age", [2])[0], candidate[0],
        rows_of(embeddings, "tags", [2])[0], attended, rows_of(embeddings, "other", [6, 1]).mean(dim=0), NUMBERS[0],
    ]  # fmt: skip
    torch.testing.assert_close(x[0], torch.cat(parts))
    assert not x[1, 3 * WIDTH : 6 * WIDTH].any()  # an empty bag, an empty history and an empty sequence


def test_only_rows_that_the_batch_has_receive_a_gradient():
    embeddings, side = made(sequence=SequenceConfig("din"), first_order=True)
    x, first_order = read(embeddings, side)
    (x.sum() + first_order.sum()).backward()
    rows = sorted(row for part in embeddings.touched() for row in part.rows[: int(part.counts.sum())].tolist())
    videos, others = {13 + v for v in (4, 5, 3, 1)}, {19 + v for v in (6, 1)}  # no row of padding, 13 or 19
    assert rows == sorted({1, 2} | {5 + 2, 5} | {9 + 2} | videos | others)


@pytest.mark.parametrize("pooling", ["mean", "din"])
def test_first_order_terms_are_sums_of_weights_and_means_over_bags(pooling):
    embeddings, side = made(sequence=SequenceConfig(pooling), first_order=True)
    assert not embeddings.table[:, WIDTH:].any()
    assert not read(embeddings, side)[1].any()
    torch.nn.init.normal_(embeddings.table)
    _, first_order = read(embeddings, side)
    single = [("user", [1]), ("age", [2]), ("video", [4]), ("tags", [2]), ("video", [5, 3]), ("other", [6, 1])]
    expected = sum(rows_of(embeddings, name, ids)[:, WIDTH:].mean(dim=0) for name, ids in single)
    torch.testing.assert_close(first_order[0], expected)


def test_encoded_numbers_take_the_place_of_scaled_ones():
    embeddings, side = made(number=NumberConfig("piecewise", width=3))
    x, _ = read(embeddings, side)
    torch.testing.assert_close(x[:, -3:], side.encoding(NUMBERS)[:, 0])
    assert torch.equal(side.encoding.encode(NUMBERS), torch.tensor([[[1.0, 0.5]], [[1.0, 0.0]]]))
    assert side.out_width == x.shape[1] == 6 * WIDTH + 3


def test_members_see_scaled_copies_and_first_order_terms_alike():
    embeddings, side = made(ensemble=EnsembleConfig(2), first_order=True)
    torch.nn.init.normal_(embeddings.table)
    x, first_order = read(embeddings, side)
    plain, _ = made(first_order=True)
    plain.table.data.copy_(embeddings.table)
    unscaled = plain(IDS, NUMBERS, written=True).written()
    kept = unscaled[:, :-1].view(2, 6, -1)[:, :, :WIDTH].flatten(1)
    both = torch.cat([kept, NUMBERS], dim=1)
    torch.testing.assert_close(x, torch.cat([both * side.members.scale[0], both * side.members.scale[1]]))
    assert torch.equal(first_order[:2], first_order[2:])


def test_gates_know_each_feature():
    _, side = made(feature_gate=FeatureGateConfig(on=True))
    assert side.gate.spread.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]


def test_what_has_nothing_to_work_on_is_refused():
    bare = Layout((Field("user", "id", 0, 1, "user"),), {"user": 5})
    with pytest.raises(ValueError, match="needs a sequence that shares the embeddings of a feature"):
        made(bare, sequence=SequenceConfig("din"))
    with pytest.raises(ValueError, match="needs a number feature"):
        made(bare, number=NumberConfig("periodic"))
