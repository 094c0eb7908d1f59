"""The reference writes the input out and multiplies it, in float64."""

import math

import pytest
import torch

from polyrank.nn.embeddings import _survey
from polyrank.nn.experts import Level
from polyrank.nn.inputs import Inputs, Narrow
from polyrank.nn.kernels.blocks import BLOCK, STEP

SIZES = [3, 5, 9, 20, 2, 4, 11]
BATCH = 130


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """`threads(n)`; afterwards as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def ids_of(usual, rows=BATCH, sizes=SIZES):
    """Random ids; with `usual` values: columns of 2 nearly always, a constant, two halves, four quarters."""
    ids = torch.stack([torch.randint(0, size, (rows,)) for size in sizes], dim=1)
    if usual:
        ids[:, 1] = torch.where(torch.rand(rows) < 0.8, 2, ids[:, 1])
        ids[:, 3] = 19
        ids[:, 4] = torch.arange(rows) % 2
        ids[:, 5] = torch.arange(rows) % 4
    return ids.int()


def narrow_of(ids, width, sizes=SIZES):
    begins = torch.tensor([0, *sizes]).cumsum(0)
    return _survey(torch.randn(int(begins[-1]), width), begins, ids)


def both(level, narrow, numbers):
    """Outputs and gradients by the kernels; and by float64 products of the input written out."""
    results = []
    for exact in (False, True):
        double = torch.float64 if exact else torch.float32
        tables = narrow.tables.to(double).clone().requires_grad_()
        wide = numbers.to(double).clone().requires_grad_()
        parts = {name: getattr(narrow, name) for name in ("begins", "ids", "counts", "usual", "places", "lengths")}
        level = level.to(double)
        level.zero_grad()
        inputs = [Inputs(wide, Narrow(tables, **parts))]
        torch.manual_seed(7)
        out, weights = level.plainly(inputs) if exact else level(inputs)
        torch.manual_seed(8)
        (out * torch.randn(out.shape).to(double)).sum().backward()
        gradients = [tables.grad, wide.grad, *(p.grad for p in level.parameters())]
        results.append([out.detach(), weights, *(g.clone() for g in gradients)])
    level.float()
    return results


def level_of(in_width, experts, width, *, gates=0, dropout=0.0):
    """One layer of experts; gates over all of them."""
    groups = [(experts, gates * experts)]
    level = Level(in_width, groups, [range(experts)] * gates, (width,), dropout=dropout)
    for parameter in level.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return level


def assert_same(found, expected, tolerance=2e-6):
    for one, other in zip(found, expected, strict=True):
        largest = max(1e-3, other.abs().max().item()) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=tolerance * largest)


class TestSurvey:
    def test_by_hand(self):
        # Column 0 is 1 in three of four rows; every value of column 1 stands in exactly a quarter: none is usual.
        ids = torch.tensor([[1, 0], [1, 2], [0, 3], [1, 1]], dtype=torch.int32)
        found = _survey(torch.zeros(6, 2), torch.tensor([0, 2, 6]), ids)
        assert found.counts.tolist() == [1, 3, 1, 1, 1, 1]
        assert found.usual.tolist() == [1, -1]
        assert found.lengths.tolist() == [STEP] * 4
        rows = (found.places // (4 * BLOCK)).tolist()
        spare = list(range(6, 6 + STEP))  # rows of zeros fill up a step
        assert rows == [
            [2, *spare[: STEP - 1]],
            [4, *spare[: STEP - 1]],
            [0, 5, *spare[: STEP - 2]],
            [3, *spare[: STEP - 1]],
        ]

    @pytest.mark.parametrize(("times", "usual"), [(5, -1), (6, 7)])
    def test_the_commonest_row_if_more_than_a_quarter_has_it(self, times, usual):
        ids = torch.tensor([7] * times + [0, 1, 2, 3, 4] * 3 + [5] * (5 - times), dtype=torch.int32)[:20, None]
        assert _survey(torch.zeros(8, 1), torch.tensor([0, 8]), ids).usual.tolist() == [usual]

    def test_what_is_usual_costs_nothing(self):
        found = _survey(torch.zeros(6, 1), torch.tensor([0, 4, 6]), torch.tensor([[3, 0]] * 5, dtype=torch.int32))
        assert found.usual.tolist() == [3, 4]
        assert found.lengths.tolist() == [0] * 5
        assert found.counts.tolist() == [0, 0, 0, 5, 5, 0]

    @pytest.mark.parametrize("columns", [1, STEP - 1, STEP, STEP + 1, 3 * STEP])
    def test_places_are_filled_up_to_whole_steps(self, columns):
        ids = torch.arange(4)[:, None].expand(4, columns).int()
        found = _survey(torch.zeros(4 * columns, 1), torch.arange(columns + 1) * 4, ids)
        assert found.usual.tolist() == [-1] * columns  # each of four is a quarter
        assert found.places.shape == (4, math.ceil(columns / STEP) * STEP)
        assert found.lengths.tolist() == [math.ceil(columns / STEP) * STEP] * 4
        for row in range(4):
            expected = [(4 * column + row) * 4 * BLOCK for column in range(columns)]
            assert found.places[row, :columns].tolist() == expected


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize("numbers", [0, 1, 7, 32, 33])  # more than 32 go through a product of their own
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_agrees_with_a_product(usual, numbers, dropout):
    narrow = narrow_of(ids_of(usual), 8)
    level = level_of(7 * 8 + numbers, 3, 32, gates=2, dropout=dropout)
    assert_same(*both(level, narrow, torch.randn(BATCH, numbers)))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 31, 32])
def test_agrees_at_every_width(width):
    narrow = narrow_of(ids_of(True), width)
    level = level_of(7 * width + 2, 2, 16, gates=1)
    assert_same(*both(level, narrow, torch.randn(BATCH, 2)))


@pytest.mark.parametrize(
    ("experts", "width", "gates"), [(1, 1, 0), (1, 5, 0), (2, 16, 1), (3, 7, 0), (5, 16, 3), (9, 48, 2)]
)
def test_outputs_need_be_no_multiple_of_sixteen(experts, width, gates):
    """1, 5, 34, 21, 95 and 450 outputs; the last are more blocks than groups of blocks."""
    narrow = narrow_of(ids_of(True), 4)
    level = level_of(7 * 4 + 3, experts, width, gates=gates, dropout=0.2)
    assert_same(*both(level, narrow, torch.randn(BATCH, 3)))


@pytest.mark.parametrize("rows", [1, 2, 3, 11, 12, 13])
def test_small_batches(rows):
    narrow = narrow_of(ids_of(False, rows), 4)
    assert_same(*both(level_of(7 * 4 + 3, 2, 16, gates=2), narrow, torch.randn(rows, 3)))


@pytest.mark.parametrize("columns", [1, STEP, STEP + 1])
def test_one_column_and_whole_steps_of_columns(columns):
    sizes = [4] * columns
    narrow = narrow_of(ids_of(False, sizes=sizes), 4, sizes)
    assert_same(*both(level_of(columns * 4 + 1, 2, 16, gates=1), narrow, torch.randn(BATCH, 1)))


def test_all_columns_constant():
    ids = torch.tensor([[2, 0, 8, 19, 1, 3, 5]] * BATCH, dtype=torch.int32)
    assert_same(*both(level_of(7 * 8 + 2, 2, 16, gates=1), narrow_of(ids, 8), torch.randn(BATCH, 2)))


def test_a_batch_of_thousands_keeps_its_precision():
    """A usual value's gradient is the batch's less the others': sums of thousands that nearly cancel."""
    narrow = narrow_of(ids_of(True, 5000), 8)
    assert_same(*both(level_of(7 * 8 + 3, 4, 16, gates=2), narrow, torch.randn(5000, 3)), tolerance=2e-5)


def test_rows_not_in_the_batch_have_no_gradient():
    ids = ids_of(False)
    ids[:, 2] = ids[:, 2].clamp(max=3)  # rows 4 … 8 of the third table
    narrow = narrow_of(ids, 8)
    found, _ = both(level_of(7 * 8, 2, 16, gates=1), narrow, torch.zeros(BATCH, 0))
    absent = torch.from_numpy(narrow.counts == 0)
    assert absent[8 + 4 : 8 + 9].all()
    assert not found[2][absent].any()
    assert found[2][~absent].any(dim=1).all()


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize("numbers", [3, 33])
def test_threads_change_no_bit(usual, numbers, threads):
    narrow, wide = narrow_of(ids_of(usual, 700), 8), torch.randn(700, numbers)
    level = level_of(7 * 8 + numbers, 8, 32, gates=2)
    results = []
    for count in (1, 2):
        threads(count)
        results.append(both(level, narrow, wide)[0])
    one, two = results
    places = [0, 1, 2, 4, 5] if numbers == 3 else [2]  # torch's own products may depend on threads
    assert all(torch.equal(one[at], two[at]) for at in places)


def test_numbers_need_not_be_contiguous():
    narrow = narrow_of(ids_of(False), 4)
    level = level_of(7 * 4 + 3, 2, 16, gates=1)
    numbers = torch.randn(3, BATCH).t()
    torch.testing.assert_close(level([Inputs(numbers, narrow)])[0], level.plainly([Inputs(numbers, narrow)])[0])


def test_nan_goes_through_the_relu():
    narrow = narrow_of(ids_of(False), 4)
    numbers = torch.zeros(BATCH, 1)
    numbers[5] = math.nan
    out, _ = level_of(7 * 4 + 1, 2, 16)([Inputs(numbers, narrow)])
    assert out[:, 5].isnan().all()
    assert not out[:, :5].isnan().any()
    assert not out[:, 6:].isnan().any()
