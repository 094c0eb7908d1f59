"""The references are the plain-torch twins, which tests/nn/test_embeddings.py checks by hand."""

import types

import numpy as np
import pytest
import torch

from polyrank.nn import embeddings as module
from polyrank.nn.embeddings import Columns, Embeddings, Touched, look_up_plainly, sum_rows_plainly
from polyrank.nn.kernels import rows as kernels
from polyrank.training import optimizers
from polyrank.training.optimizers import LazyAdam, RowwiseAdagrad

# Two singles that share the table of a bag, another bag, a table of one row; rows of the merged table follow this.
COLUMNS = Columns(
    starts=[0, 1, 4, 5, 6, 8],
    stops=[1, 4, 5, 6, 8, 9],
    bags=[False, True, False, False, True, False],
    names=["video", "video", "video", "user", "tags", "one"],
    tables={"video": 50, "user": 3000, "tags": 7, "one": 1},
)
SIZES = [50, 50, 50, 50, 50, 3000, 7, 7, 1]
WIDTHS = [1, 2, 3, 7, 8, 16, 17, 64, 128]
KINDS = ["mixed", "all alike", "zeros", "ends"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """`threads(n)`; afterwards as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def ids_of(kind, rows=70):
    sizes = torch.tensor(SIZES)
    if kind == "mixed":
        ids = (torch.rand(rows, 9) * sizes).int()
        ids[::3, 1:4] = 0  # empty bags
        return ids
    if kind == "all alike":
        return (sizes // 2).int().expand(rows, 9)
    if kind == "zeros":
        return torch.zeros(rows, 9, dtype=torch.int32)
    ids = torch.zeros(rows, 9, dtype=torch.int32)
    ids[rows // 2 :] = (sizes - 1).int()
    return ids


def looked_up(embeddings, ids, numbers):
    """By the kernel: the input and the bags' shares."""
    return module._look_up(embeddings.table, ids, embeddings.whole, numbers)


def summed(embeddings, ids, shares, gradient):
    """By the kernel: every part's rows, in increasing order, and their sums."""
    taken = types.SimpleNamespace(ids=ids, shares=shares)
    touched = module._sum_rows(taken, embeddings.whole, gradient, embeddings.width)
    rows, sums = compact(touched)
    order = rows.argsort()
    return rows[order], sums[order], touched


def compact(touched):
    spans = [slice(s, s + c) for s, c in zip(touched.starts.tolist(), touched.counts.tolist(), strict=True)]
    return torch.cat([touched.rows[span] for span in spans]), torch.cat([touched.sums[span] for span in spans])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_looking_up_and_summing_agree_with_plain_torch(width, kind, count, threads):
    threads(count)
    embeddings, ids = Embeddings(COLUMNS, width), ids_of(kind)
    numbers = torch.randn(len(ids), 3)
    found, shares = looked_up(embeddings, ids, numbers)
    expected, expected_shares = look_up_plainly(embeddings.table, ids, embeddings.whole, numbers)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(shares, expected_shares)
    gradient = torch.randn_like(found)
    rows, sums, touched = summed(embeddings, ids, shares, gradient)
    reference = sum_rows_plainly(ids, embeddings.whole, expected_shares, gradient, width)
    assert len(touched.counts) == count
    assert torch.equal(rows, reference.rows)
    torch.testing.assert_close(sums, reference.sums, rtol=1e-6, atol=1e-5)
    if kind == "zeros":  # bags are empty: only the four singles' first rows, two of which are one row
        assert len(rows) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 8, 17])
def test_threads_change_no_bit(kind, width, threads):
    embeddings, ids = Embeddings(COLUMNS, width), ids_of(kind, 500)
    gradient = torch.randn(500, 6 * width + 2)
    results = []
    for count in (1, 2):
        threads(count)
        found, shares = looked_up(embeddings, ids, torch.ones(500, 2))
        results.append((found, shares, *summed(embeddings, ids, shares, gradient)[:2]))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
def test_every_row_is_in_one_part(parts):
    embeddings, ids = Embeddings(COLUMNS, 3), ids_of("mixed", 300).numpy()
    plan = embeddings.whole
    _, shares = look_up_plainly(embeddings.table, torch.from_numpy(ids), plan, torch.zeros(300, 0))
    gradient = torch.randn(300, 18)
    count = 300 * 9
    rows, sums = np.full(count, -1, np.int64), np.empty((count, 3), np.float32)
    starts, counts = np.empty(parts, np.int64), np.empty(parts, np.int64)
    kernels.sum_rows(
        ids, plan.columns.numpy(), plan.offsets.numpy(), plan.singles, plan.bag_starts.numpy(), shares.numpy(),
        gradient.numpy(), 3, parts, rows, sums, starts, counts,
    )  # fmt: skip
    touched = Touched(*(torch.from_numpy(a) for a in (rows, sums, starts, counts)))
    found, totals = compact(touched)
    reference = sum_rows_plainly(torch.from_numpy(ids), plan, shares, gradient, 3)
    order = found.argsort()
    assert torch.equal(found[order], reference.rows)
    torch.testing.assert_close(totals[order], reference.sums, rtol=1e-6, atol=1e-5)
    assert (starts[1:] >= (starts + counts)[:-1]).all()


def test_a_batch_of_one_row_and_of_none():
    embeddings = Embeddings(COLUMNS, 4)
    for rows in (0, 1):
        ids = ids_of("mixed", rows)
        found, shares = looked_up(embeddings, ids, torch.zeros(rows, 1))
        assert torch.equal(found, look_up_plainly(embeddings.table, ids, embeddings.whole, torch.zeros(rows, 1))[0])
        assert len(summed(embeddings, ids, shares, torch.ones(rows, 25))[0]) <= 9 * rows


def test_only_the_embeddings_part_of_the_gradient_counts():
    embeddings, ids = Embeddings(COLUMNS, 4), ids_of("mixed")
    _, shares = looked_up(embeddings, ids, torch.zeros(70, 0))
    gradient = torch.randn(70, 24)
    rows, sums, _ = summed(embeddings, ids, shares, gradient)
    numbers = torch.full((70, 5), 1e9)
    wider, same, _ = summed(embeddings, ids, shares, torch.cat([gradient, numbers], dim=1))
    assert torch.equal(rows, wider)
    assert torch.equal(sums, same)
    _, expanded, _ = summed(embeddings, ids, shares, gradient[:1].expand(70, -1))  # as `out.sum().backward()` gives it
    _, written, _ = summed(embeddings, ids, shares, gradient[:1].repeat(70, 1))
    assert torch.equal(expanded, written)


def test_rows_whose_numbers_share_their_low_bits_are_told_apart():
    """The hash's slots come from low bits: rows that are multiples of a large power of two all meet in one."""
    rows = 2**20
    embeddings = Embeddings(Columns([0], [1], [False], ["video"], {"video": rows}), 1)
    ids = (torch.arange(256).repeat(2) * 4096).int()[:, None]
    shares = torch.zeros(512, 0)
    found, sums, _ = summed(embeddings, ids, shares, torch.arange(512.0)[:, None])
    assert found.tolist() == [4096 * i for i in range(256)]
    assert sums[:, 0].tolist() == [256.0 + 2 * i for i in range(256)]


EXACT = (0.875, 1 - 2**-11)  # numbers of float32


def optimized(kind, plainly, width, steps, monkeypatch, count=1, betas=EXACT):
    """A table after so many steps of random batches, its state, and the table before."""
    torch.manual_seed(5)
    torch.set_num_threads(count)
    embeddings = Embeddings(COLUMNS, width)
    optimizer = LazyAdam(embeddings, betas=betas) if kind == "adam" else RowwiseAdagrad(embeddings)
    before = embeddings.table.clone()
    generator = torch.Generator().manual_seed(6)
    with monkeypatch.context() as patch:
        if plainly:
            patch.setattr(optimizers, "kernels", None)
            patch.setattr(module, "kernels", None)
        for step in range(steps):
            ids = (torch.rand(20, 9, generator=generator) ** 2 * torch.tensor(SIZES)).int()
            ids[:, 5] = ids[:, 5] // 2  # half of the users never come
            out = embeddings(ids, torch.zeros(20, 0), written=True).wide
            out.backward(torch.randn(out.shape, generator=generator) * 10 ** (step % 5 - 3))
            optimizer.step(0.01)
    untouched = torch.zeros(len(before), dtype=torch.bool)
    start = int(embeddings.whole.offsets[embeddings.whole.columns.tolist().index(5)])
    untouched[start + 1500 : start + 3000] = True
    assert torch.equal(embeddings.table[untouched], before[untouched])
    return embeddings.table, optimizer.state_dict(), before


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_step_agrees_with_plain_torch(kind, width, monkeypatch):
    found, state, before = optimized(kind, False, width, 3, monkeypatch)
    expected, other, _ = optimized(kind, True, width, 3, monkeypatch)
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    for key, value in state.items():
        torch.testing.assert_close(value, other[key], rtol=2e-6, atol=1e-12)


def test_a_step_of_adam_agrees_with_plain_torch_at_its_usual_betas(monkeypatch):
    _, state, _ = optimized("adam", False, 8, 3, monkeypatch, betas=(0.9, 0.999))
    _, other, _ = optimized("adam", True, 8, 3, monkeypatch, betas=(0.9, 0.999))
    torch.testing.assert_close(state["variance"], other["variance"], rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
@pytest.mark.parametrize("width", [3, 16])
def test_a_thousand_steps_stay_together(kind, width, monkeypatch):
    found, _, before = optimized(kind, False, width, 1000, monkeypatch, betas=(0.9, 0.999))
    expected, _, _ = optimized(kind, True, width, 1000, monkeypatch, betas=(0.9, 0.999))
    assert (found - before).abs().max() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_threads_change_no_bit_of_a_step(kind, monkeypatch, threads):
    one, state, _ = optimized(kind, False, 5, 30, monkeypatch)
    two, other, _ = optimized(kind, False, 5, 30, monkeypatch, count=2)
    threads(1)
    assert torch.equal(one, two)
    for key in state:
        assert torch.equal(torch.as_tensor(state[key]), torch.as_tensor(other[key]))


@pytest.mark.parametrize("width", [17, pytest.param(64, marks=pytest.mark.slow)])  # bytes, numbers beyond 2³¹
def test_a_table_that_int32_cannot_address(width):
    """Its pages exist once they are touched: it needs addresses (2.3 GB; 8.6 GB for the wide one), not memory."""
    rows = 2**25 + 8
    table, moment, variance = (torch.from_numpy(np.zeros((rows, width), np.float32)) for _ in range(3))
    accumulator = torch.from_numpy(np.zeros(rows, np.float32))
    ids = torch.tensor([[rows - 1], [2**25], [2**25 + 1], [0]], dtype=torch.int32)
    table[ids[:, 0].long()] = torch.tensor([4.0, 5.0, 6.0, 7.0])[:, None]
    plan = module._Plan(Columns([0], [1], [False], ["video"], {"video": rows}), [0], {"video": 0})
    found, shares = module._look_up(table, ids, plan, torch.zeros(4, 0))
    assert found[:, width - 1].tolist() == [4.0, 5.0, 6.0, 7.0]
    touched = module._sum_rows(types.SimpleNamespace(ids=ids, shares=shares), plan, torch.ones(4, width), width)
    assert sorted(compact(touched)[0].tolist()) == [0, 2**25, 2**25 + 1, rows - 1]
    what = [t.numpy() for t in (touched.rows, touched.sums, touched.starts, touched.counts)]
    kernels.adagrad(table.numpy(), accumulator.numpy(), *what, np.float32(1.0), np.float32(0.0))
    assert table[ids[:, 0].long(), width - 1].tolist() == [3.0, 4.0, 5.0, 6.0]
    # The first step of Adam is the rate, here 2 · (1 − ½) over 1 − ½, and √(1 − ¾) in the denominator.
    numbers = (np.float32(value) for value in (0.5, 0.75, 0.25, 1.0 / 0.5, 0.5, 0.0))
    kernels.adam(table.numpy(), moment.numpy(), variance.numpy(), *what, *numbers)
    assert table[ids[:, 0].long(), 0].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert not table[[1, 2**25 - 1, 2**25 + 2]].any()
