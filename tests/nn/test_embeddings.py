"""The references are torch's Embedding and EmbeddingBag, and dense sums."""

import pytest
import torch
from torch import nn

from polyrank.nn.embeddings import Columns, Embeddings, sum_by_row

WIDTH = 4
# Two single features, two bags; `history` reads the table of `video`, and comes between the singles.
COLUMNS = Columns(
    starts=[0, 1, 4, 5],
    stops=[1, 4, 5, 7],
    bags=[False, True, False, True],
    names=["video", "video", "user", "tags"],
    tables={"video": 6, "user": 5, "tags": 3},
)
OFFSETS = {"video": 0, "user": 6, "tags": 11}
IDS = torch.tensor(
    [
        # video, history × 3, user, tags × 2
        [5, 0, 2, 5, 0, 2, 2],
        [0, 3, 0, 3, 4, 0, 0],
        [2, 0, 0, 0, 0, 1, 0],
        [5, 1, 4, 2, 3, 0, 2],
    ],
    dtype=torch.int32,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def reference(table, ids):
    """Torch's own lookups, and the dense gradient of the table through them."""
    weight = table.detach().clone().requires_grad_()
    parts = {
        "video": nn.functional.embedding(ids[:, 0].long(), weight),
        "user": nn.functional.embedding(ids[:, 4].long() + OFFSETS["user"], weight),
    }
    for name, columns, first in (("history", slice(1, 4), "video"), ("tags", slice(5, 7), "tags")):
        size = COLUMNS.tables[first]
        part = weight[OFFSETS[first] : OFFSETS[first] + size]
        parts[name] = nn.functional.embedding_bag(ids[:, columns].long(), part, mode="mean", padding_idx=0)
    return weight, torch.cat([parts["video"], parts["user"], parts["history"], parts["tags"]], dim=1)


def dense_gradient(embeddings):
    """What `taken` says, as if the table were a leaf."""
    gradient = torch.zeros_like(embeddings.table)
    for places, rows in embeddings.taken:
        gradient.index_add_(0, places, rows.grad)
    return gradient


class TestLookup:
    def test_agrees_with_torch_in_values_and_gradients(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        weight, expected = reference(embeddings.table, IDS)
        found = embeddings(IDS)
        assert embeddings.out_width == found.shape[1] == 4 * WIDTH
        torch.testing.assert_close(found, expected)
        toward = torch.randn_like(found)
        (found * toward).sum().backward()
        (expected * toward).sum().backward()
        torch.testing.assert_close(dense_gradient(embeddings), weight.grad)

    @pytest.mark.parametrize("bag", [False, True])
    def test_features_of_one_sort_alone(self, bag):
        columns = Columns([0], [2 if bag else 1], [bag], ["video"], {"video": 6})
        embeddings = Embeddings(columns, WIDTH)
        ids = torch.tensor([[5, 1], [2, 0]])[:, : 2 if bag else 1]
        found = embeddings(ids)
        expected = embeddings.table[torch.tensor([5, 2])]
        if bag:
            expected = torch.stack([(embeddings.table[5] + embeddings.table[1]) / 2, embeddings.table[2]])
        torch.testing.assert_close(found, expected)

    def test_first_and_last_row_of_each_table(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        with torch.no_grad():
            embeddings.table.copy_(torch.arange(14.0)[:, None].expand(14, WIDTH))
        ids = torch.zeros(2, 7, dtype=torch.int32)
        ids[1, 0], ids[1, 4] = 5, 4
        ids[1, 5] = 2
        found = embeddings(ids).view(2, 4, WIDTH)[:, :, 0]
        # Singles first (video, user), then bags; id 0 is a row of a single feature, and padding in a bag.
        assert found.tolist() == [[0.0, 6.0, 0.0, 0.0], [5.0, 10.0, 0.0, 13.0]]

    def test_single_features_use_row_0(self):
        embeddings = Embeddings(Columns([0], [1], [False], ["video"], {"video": 3}), WIDTH)
        embeddings(torch.zeros(2, 1, dtype=torch.int32)).sum().backward()
        assert dense_gradient(embeddings)[0].tolist() == [2.0] * WIDTH

    @pytest.mark.parametrize("padding", ["front", "middle", "end"])
    def test_padding_stands_anywhere(self, padding):
        row = {"front": [0, 2, 3], "middle": [2, 0, 3], "end": [2, 3, 0]}[padding]
        embeddings = Embeddings(Columns([0], [3], [True], ["video"], {"video": 6}), WIDTH)
        expected = (embeddings.table[2] + embeddings.table[3]) / 2
        torch.testing.assert_close(embeddings(torch.tensor([row]))[0], expected)

    @pytest.mark.parametrize("rows", [1, 3])
    def test_batches_of_empty_bags_give_zeros_and_zero_gradient(self, rows):
        embeddings = Embeddings(Columns([0], [2], [True], ["tags"], {"tags": 3}), WIDTH)
        found = embeddings(torch.zeros(rows, 2, dtype=torch.int32))
        assert found.shape == (rows, WIDTH)
        assert not found.any()
        found.sum().backward()
        assert not dense_gradient(embeddings).any()

    def test_repeated_ids_in_a_bag_count_twice(self):
        embeddings = Embeddings(Columns([0], [3], [True], ["tags"], {"tags": 4}), WIDTH)
        expected = (2 * embeddings.table[2] + embeddings.table[1]) / 3
        torch.testing.assert_close(embeddings(torch.tensor([[2, 1, 2]]))[0], expected)

    def test_shared_tables_are_one(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        ids = IDS[:1].clone()
        ids[0, :4] = torch.tensor([4, 4, 0, 0])
        found = embeddings(ids).view(4, WIDTH)
        assert torch.equal(found[0], found[2])
        assert embeddings.table.shape == (6 + 5 + 3, WIDTH)

    def test_ids_beyond_float32_are_told_apart(self):
        rows = 2**24 + 2
        embeddings = Embeddings(Columns([0], [1], [False], ["video"], {"video": rows}), 1)
        with torch.no_grad():
            embeddings.table[-2:] = torch.tensor([[7.0], [9.0]])
        assert embeddings(torch.tensor([[2**24], [2**24 + 1]], dtype=torch.int32)).tolist() == [[7.0], [9.0]]

    def test_only_training_takes_rows(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        embeddings(IDS)
        assert sum(len(places) for places, _ in embeddings.taken) == 2 * 4 + 7 + 4
        with torch.no_grad():
            embeddings(IDS)
        assert embeddings.taken == []
        assert not embeddings.table.requires_grad
        assert embeddings.table.grad is None

    def test_starts_as_wide_as_asked(self):
        columns = Columns([0], [1], [False], ["video"], {"video": 5000})
        assert Embeddings(columns, 8, std=0.3).table.std().item() == pytest.approx(0.3, rel=0.03)

    def test_the_layout_is_no_part_of_the_state(self):
        assert list(Embeddings(COLUMNS, WIDTH).state_dict()) == ["table"]


class TestSumByRow:
    @pytest.mark.parametrize("rows", [10, 100_000])  # a dense sum, or sorted places
    @pytest.mark.parametrize("repeats", [1, 5])
    def test_agrees_with_a_dense_sum(self, rows, repeats):
        places = torch.randint(0, rows, (40,)).repeat(repeats)
        places[0], places[1] = 0, rows - 1
        gradients = torch.randn(len(places), 3)
        found, sums = sum_by_row(places, gradients, rows)
        expected = torch.zeros(rows, 3).index_add_(0, places, gradients)
        assert torch.equal(found, places.unique())
        torch.testing.assert_close(sums, expected[found])

    def test_both_paths_give_the_same_numbers(self):
        places = torch.randint(0, 50, (60,))
        gradients = torch.randn(60, 3)
        dense, sparse = sum_by_row(places, gradients, 50), sum_by_row(places, gradients, 241)
        assert torch.equal(dense[0], sparse[0])
        assert torch.equal(dense[1], sparse[1])

    def test_by_hand(self):
        places = torch.tensor([7, 2, 7])
        for rows in (8, 1000):
            found, sums = sum_by_row(places, torch.tensor([[1.0], [2.0], [4.0]]), rows)
            assert (found.tolist(), sums.tolist()) == ([2, 7], [[2.0], [5.0]])

    def test_a_touched_row_with_zero_gradient_stays_touched(self):
        for rows in (4, 1000):
            found, sums = sum_by_row(torch.tensor([3, 1]), torch.tensor([[0.0], [1.0]]), rows)
            assert (found.tolist(), sums.tolist()) == ([1, 3], [[1.0], [0.0]])
