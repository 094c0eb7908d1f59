"""The references are torch's Embedding and EmbeddingBag, and dense sums."""

import pytest
import torch
from torch import nn

from polyrank.nn.embeddings import NARROW_ROWS, Columns, Embeddings, look_up_plainly, sum_rows_plainly

WIDTH = 4
# Three single features, two bags; `history` reads the table of `video`, and comes between the singles. `user` and
# `place` have small tables of their own: their embeddings come first.
COLUMNS = Columns(
    starts=[0, 1, 4, 5, 7],
    stops=[1, 4, 5, 7, 8],
    bags=[False, True, False, True, False],
    names=["video", "video", "user", "tags", "place"],
    tables={"video": 6, "user": 5, "tags": 3, "place": 4},
)
OFFSETS = {"user": 0, "place": 5, "video": 9, "tags": 15}
ROWS = 18
IDS = torch.tensor(
    [
        # video, history × 3, user, tags × 2, place
        [5, 0, 2, 5, 0, 2, 2, 3],
        [0, 3, 0, 3, 4, 0, 0, 0],
        [2, 0, 0, 0, 0, 1, 0, 3],
        [5, 1, 4, 2, 3, 0, 2, 3],
        [1, 1, 1, 1, 0, 1, 1, 3],
    ],
    dtype=torch.int32,
)
NUMBERS = torch.tensor([[0.5, -1.0], [2.0, 0.0], [3.0, 1.0], [-0.5, 4.0], [0.0, 0.25]])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def single(rows, width=WIDTH, **options):
    """One single-valued feature."""
    return Embeddings(Columns([0], [1], [False], ["video"], {"video": rows}), width, **options)


def bag(rows, length, width=WIDTH):
    """One bag."""
    return Embeddings(Columns([0], [length], [True], ["video"], {"video": rows}), width)


def none(rows):
    """No numbers."""
    return torch.zeros(rows, 0)


def reference(table, ids, numbers):
    """Torch's own lookups, and the dense gradient of the table through them."""
    weight = table.detach().clone().requires_grad_()
    parts = [
        nn.functional.embedding(ids[:, column].long() + OFFSETS[name], weight)
        for name, column in (("user", 4), ("place", 7), ("video", 0))
    ]
    for columns, first in ((slice(1, 4), "video"), (slice(5, 7), "tags")):
        part = weight[OFFSETS[first] : OFFSETS[first] + COLUMNS.tables[first]]
        parts.append(nn.functional.embedding_bag(ids[:, columns].long(), part, mode="mean", padding_idx=0))
    return weight, torch.cat([*parts, numbers], dim=1)


def touched_of(embeddings):
    """(row, gradient) of what `touched` gives, each row as often as it is named."""
    found = []
    for touched in embeddings.touched():
        for start, count in zip(touched.starts.tolist(), touched.counts.tolist(), strict=True):
            rows = touched.rows[start : start + count].tolist()
            found += zip(rows, touched.sums[start : start + count].clone(), strict=True)
    return found


def dense_gradient(embeddings):
    """What `touched` says, as if the table were a leaf."""
    gradient = torch.zeros_like(embeddings.table)
    for row, sums in touched_of(embeddings):
        gradient[row] += sums
    return gradient


class TestLookup:
    @pytest.mark.parametrize("written", [False, True])
    def test_agrees_with_torch_in_values_and_gradients(self, written):
        embeddings = Embeddings(COLUMNS, WIDTH)
        weight, expected = reference(embeddings.table, IDS, NUMBERS)
        inputs = embeddings(IDS, NUMBERS, written=written)
        found = inputs.written()
        assert inputs.rows == 5
        assert embeddings.features * WIDTH + 2 == found.shape[1]
        torch.testing.assert_close(found, expected)
        toward = torch.randn_like(found)
        (found * toward).sum().backward()
        (expected * toward).sum().backward()
        torch.testing.assert_close(dense_gradient(embeddings), weight.grad)

    def test_rows_are_named_once(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        embeddings(IDS, NUMBERS).written().sum().backward()
        rows = [row for row, _ in touched_of(embeddings)]
        # user 0, 3, 4; place 0, 3; video 0 … 5 (0 and 1 … 5 alike: single or in the bag); tags 1, 2
        assert sorted(rows) == [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 16, 17]

    @pytest.mark.parametrize("is_bag", [False, True])
    def test_features_of_one_sort_alone(self, is_bag):
        embeddings = bag(6, 2) if is_bag else single(6)
        ids = torch.tensor([[5, 1], [2, 0]], dtype=torch.int32)[:, : 2 if is_bag else 1]
        found = embeddings(ids, none(2)).written()
        expected = embeddings.table[torch.tensor([5, 2])]
        if is_bag:
            expected = torch.stack([(embeddings.table[5] + embeddings.table[1]) / 2, embeddings.table[2]])
        torch.testing.assert_close(found, expected)

    def test_first_and_last_row_of_each_table(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        with torch.no_grad():
            embeddings.table.copy_(torch.arange(float(ROWS))[:, None].expand(ROWS, WIDTH))
        ids = torch.zeros(2, 8, dtype=torch.int32)
        ids[1, 0], ids[1, 4], ids[1, 7] = 5, 4, 3
        ids[1, 5] = 2
        found = embeddings(ids, none(2)).written().view(2, 5, WIDTH)[:, :, 0]
        # user, place, video, then the bags; id 0 is a row of a single feature, and padding in a bag.
        assert found.tolist() == [[0.0, 5.0, 9.0, 0.0, 0.0], [4.0, 8.0, 14.0, 0.0, 17.0]]

    @pytest.mark.parametrize("rows", [3, NARROW_ROWS + 1])
    def test_single_features_use_row_0(self, rows):
        embeddings = single(rows)
        embeddings(torch.zeros(4, 1, dtype=torch.int32), none(4)).written().sum().backward()
        assert dense_gradient(embeddings)[0].tolist() == [4.0] * WIDTH

    @pytest.mark.parametrize("padding", ["front", "middle", "end"])
    def test_padding_stands_anywhere(self, padding):
        row = {"front": [0, 2, 3], "middle": [2, 0, 3], "end": [2, 3, 0]}[padding]
        embeddings = bag(6, 3)
        expected = (embeddings.table[2] + embeddings.table[3]) / 2
        found = embeddings(torch.tensor([row], dtype=torch.int32), none(1)).written()
        torch.testing.assert_close(found[0], expected)

    @pytest.mark.parametrize("rows", [1, 3])
    def test_batches_of_empty_bags_give_zeros_and_touch_nothing(self, rows):
        embeddings = bag(3, 2)
        found = embeddings(torch.zeros(rows, 2, dtype=torch.int32), none(rows)).written()
        assert found.shape == (rows, WIDTH)
        assert not found.any()
        found.sum().backward()
        assert touched_of(embeddings) == []

    def test_repeated_ids_in_a_bag_count_twice(self):
        embeddings = bag(4, 3)
        expected = (2 * embeddings.table[2] + embeddings.table[1]) / 3
        found = embeddings(torch.tensor([[2, 1, 2]], dtype=torch.int32), none(1)).written()
        torch.testing.assert_close(found[0], expected)
        found.sum().backward()
        gradient = dense_gradient(embeddings)
        torch.testing.assert_close(gradient[:, 0], torch.tensor([0.0, 1 / 3, 2 / 3, 0.0]))

    def test_shared_tables_are_one(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        ids = IDS[:1].clone()
        ids[0, :4] = torch.tensor([4, 4, 0, 0])
        found = embeddings(ids, none(1)).written().view(5, WIDTH)
        assert torch.equal(found[2], found[3])
        assert embeddings.table.shape == (ROWS, WIDTH)

    def test_ids_beyond_float32_are_told_apart(self):
        rows = 2**24 + 2
        embeddings = single(rows, 1)
        with torch.no_grad():
            embeddings.table[-2:] = torch.tensor([[7.0], [9.0]])
        found = embeddings(torch.tensor([[2**24], [2**24 + 1]], dtype=torch.int32), none(2)).written()
        assert found.tolist() == [[7.0], [9.0]]
        (found * torch.tensor([[1.0], [2.0]])).sum().backward()
        assert sorted((row, sums.item()) for row, sums in touched_of(embeddings)) == [
            (2**24, 1.0),
            (2**24 + 1, 2.0),
        ]

    def test_the_table_is_no_leaf(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        embeddings(IDS, NUMBERS).written().sum().backward()
        assert not embeddings.table.requires_grad
        assert embeddings.table.grad is None

    def test_numbers_keep_their_own_gradient_out_of_the_rows(self):
        embeddings = single(6)
        found = embeddings(torch.tensor([[1]], dtype=torch.int32), torch.tensor([[3.0, 4.0]])).written()
        (found * torch.tensor([[1.0, 2.0, 3.0, 4.0, 50.0, 60.0]])).sum().backward()
        assert dense_gradient(embeddings)[1].tolist() == [1.0, 2.0, 3.0, 4.0]

    def test_starts_as_wide_as_asked(self):
        assert single(5000, 8, std=0.3).table.std().item() == pytest.approx(0.3, rel=0.03)

    def test_the_layout_is_no_part_of_the_state(self):
        assert list(Embeddings(COLUMNS, WIDTH).state_dict()) == ["table"]

    def test_ids_need_not_be_contiguous(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        expected = embeddings(IDS, NUMBERS).written()
        assert torch.equal(embeddings(IDS.t().contiguous().t(), NUMBERS).written(), expected)
        padded = torch.cat([IDS, IDS], dim=1)[:, :8]
        assert torch.equal(embeddings(padded, NUMBERS).written(), expected)


class TestTouched:
    def test_only_training_takes_rows(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        with torch.no_grad():
            embeddings(IDS, NUMBERS)
        with torch.inference_mode():
            embeddings(IDS, NUMBERS)
        assert embeddings.touched() == []

    def test_the_last_batch_counts(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        (embeddings(IDS, NUMBERS).written() * 100.0).sum().backward()
        (embeddings(IDS[:1], NUMBERS[:1]).written() * 2.0).sum().backward()
        gradient = dense_gradient(embeddings)
        assert gradient[OFFSETS["user"] + 0].tolist() == [2.0] * WIDTH
        assert gradient[OFFSETS["video"] + 5].tolist() == [2.0 + 1.0] * WIDTH  # and half of a bag
        assert gradient[OFFSETS["video"] + 1].tolist() == [0.0] * WIDTH

    def test_no_backward_no_rows(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        embeddings(IDS, NUMBERS)
        assert embeddings.touched() == []

    @pytest.mark.parametrize("evaluated", [True, False])
    def test_rows_are_given_once_or_forgotten(self, evaluated):
        embeddings = Embeddings(COLUMNS, WIDTH)
        embeddings(IDS, NUMBERS).written().sum().backward()
        if evaluated:
            with torch.no_grad():
                embeddings(IDS, NUMBERS)
        else:
            assert embeddings.touched()
        assert embeddings.touched() == []


class TestNarrow:
    """Which features are left as ids for the first layer."""

    @staticmethod
    def small(sizes, *, bags=None, names=None):
        count = len(sizes) if names is None else len(names)
        names = names or [f"f{i}" for i in range(count)]
        tables = dict(zip(dict.fromkeys(names), sizes, strict=True))
        columns = Columns(range(count), range(1, count + 1), bags or [False] * count, names, tables)
        return Embeddings(columns, 2)

    def test_single_values_with_small_tables_of_their_own(self):
        embeddings = self.small([5, NARROW_ROWS + 1, 7, 9], bags=[False, False, True, False])
        assert embeddings.narrow_columns.tolist() == [0, 3]
        assert embeddings.begins.tolist() == [0, 5, 14]
        assert embeddings.order == [0, 3, 1, 2]

    def test_not_those_that_share_a_table(self):
        assert self.small([5, 7], names=["a", "b", "a"]).narrow_columns.tolist() == [1]

    def test_the_smallest_as_many_as_fit(self):
        embeddings = self.small([NARROW_ROWS - 10, 8, 3, 2])
        assert embeddings.narrow_columns.tolist() == [1, 2, 3]
        assert self.small([NARROW_ROWS]).narrow_columns.tolist() == [0]
        assert self.small([NARROW_ROWS + 1]).narrow_columns.tolist() == []

    @pytest.mark.parametrize(("rows", "split"), [(1, False), (3, False), (4, True), (100, True)])
    def test_only_where_the_tables_are_smaller_than_the_batch(self, rows, split):
        embeddings = self.small([3, 4])
        inputs = embeddings(torch.zeros(rows, 2, dtype=torch.int32), none(rows))
        assert (inputs.narrow is not None) == split

    def test_never_where_the_input_must_be_written_out(self):
        embeddings = self.small([3, 4])
        assert embeddings(torch.zeros(50, 2, dtype=torch.int32), none(50), written=True).narrow is None

    def test_split_or_not_the_input_is_the_same(self):
        embeddings = Embeddings(COLUMNS, WIDTH)
        split = embeddings(IDS, NUMBERS)
        assert split.narrow is not None
        assert torch.equal(split.written(), embeddings(IDS, NUMBERS, written=True).written())
        rows = [embeddings(IDS[i : i + 1], NUMBERS[i : i + 1]) for i in range(5)]
        assert all(row.narrow is None for row in rows)
        assert torch.equal(torch.cat([row.written() for row in rows]), split.written())

    def test_an_update_is_seen_by_the_next_batch(self):
        embeddings = self.small([3, 4])
        ids = torch.randint(0, 3, (20, 2), dtype=torch.int32)
        embeddings(ids, none(20))
        with torch.no_grad():
            embeddings.table.add_(1.0)
        found = embeddings(ids, none(20)).written()
        expected = torch.cat([embeddings.table[ids[:, 0].long()], embeddings.table[3 + ids[:, 1].long()]], dim=1)
        assert torch.equal(found, expected)


class TestPlainly:
    """The kernels' references, themselves against a dense sum and by hand; kernels: tests/nn/kernels/test_rows.py."""

    @staticmethod
    def summed(embeddings, ids, gradient):
        plan = embeddings.whole
        _, shares = look_up_plainly(embeddings.table, ids, plan, none(len(ids)))
        touched = sum_rows_plainly(ids, plan, shares, gradient, embeddings.width)
        assert (touched.starts.tolist(), touched.counts.tolist()) == ([0], [len(touched.rows)])
        return touched

    @pytest.mark.parametrize("rows", [10, 100_000])
    @pytest.mark.parametrize("repeats", [1, 5])
    def test_agrees_with_a_dense_sum(self, rows, repeats):
        embeddings = single(rows, 3)
        ids = torch.randint(0, rows, (40, 1), dtype=torch.int32).repeat(repeats, 1)
        ids[0], ids[1] = 0, rows - 1
        gradient = torch.randn(len(ids), 3)
        touched = self.summed(embeddings, ids, gradient)
        expected = torch.zeros(rows, 3).index_add_(0, ids[:, 0].long(), gradient)
        assert torch.equal(touched.rows, ids.long().unique())
        torch.testing.assert_close(touched.sums, expected[touched.rows])

    @pytest.mark.parametrize("rows", [8, 1000])
    def test_by_hand(self, rows):
        embeddings = single(rows, 1)
        ids = torch.tensor([[7], [2], [7]], dtype=torch.int32)
        touched = self.summed(embeddings, ids, torch.tensor([[1.0], [2.0], [4.0]]))
        assert (touched.rows.tolist(), touched.sums.tolist()) == ([2, 7], [[2.0], [5.0]])

    def test_bags_by_hand(self):
        embeddings = bag(9, 3, 1)
        ids = torch.tensor([[7, 0, 2], [7, 7, 7], [0, 0, 0]], dtype=torch.int32)
        touched = self.summed(embeddings, ids, torch.tensor([[1.0], [2.0], [4.0]]))
        # Row 7: half of 1 and three thirds of 2; row 2: half of 1; the empty bag touches nothing.
        assert touched.rows.tolist() == [2, 7]
        assert touched.sums[:, 0].tolist() == pytest.approx([0.5, 2.5])

    def test_a_touched_row_with_zero_gradient_stays_touched(self):
        touched = self.summed(single(4, 1), torch.tensor([[3], [1]], dtype=torch.int32), torch.tensor([[0.0], [1.0]]))
        assert (touched.rows.tolist(), touched.sums.tolist()) == ([1, 3], [[1.0], [0.0]])
