import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyrank.data import loader as loader_module
from polyrank.data.encoders import Encoded
from polyrank.data.loader import Batch, Loader, as_batch
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.store import EncodedData, _map

NAN = np.nan
SCHEMA = Schema((Feature("a", "id"),), (Task("y", "binary"), Task("z", "regression", given="y")))


def _data(rows: int, weights: bool = False) -> EncodedData:
    """Row i holds i in its ids, its scaled number, its second label and its weight, so that torn rows show."""
    row = np.arange(rows)
    y = np.array([1, 0, NAN])[row % 3]
    z = np.where(row % 5 == 0, NAN, row)
    return EncodedData(
        row[:, None].astype(np.int32),
        row[:, None].astype(np.float32),
        np.stack([y, z], axis=1).astype(np.float32),
        np.stack([row, row], axis=1).astype(np.float32) if weights else np.zeros((rows, 0), np.float32),
        np.zeros(0, np.int64),
        (),
    )


def _rows(batches: list[Batch]) -> list[int]:
    return [row for batch in batches for row in batch.ids[:, 0].tolist()]


def _same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(getattr(one, part), getattr(two, part)) for part in ("ids", "dense", "labels", "where"))


SIZES = st.tuples(st.integers(1, 120), st.integers(1, 40), st.integers(1, 30), st.integers(1, 60))


@given(SIZES, st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_visits_every_row_once(sizes: tuple[int, int, int, int], seed: int, epoch: int) -> None:
    rows, batch_size, block, window = sizes
    loader = Loader(SCHEMA, _data(rows), batch_size, seed, block_rows=block, window_rows=window)

    batches = list(loader.epoch(epoch))

    assert sorted(_rows(batches)) == list(range(rows))
    assert len(batches) == loader.batches_in(epoch)
    assert max(batch.rows for batch in batches) <= batch_size
    for batch in batches:
        row = batch.ids[:, 0]
        assert torch.equal(batch.dense[:, 0], row.float())
        assert torch.equal(batch.where[:, 0], row % 3 != 2)
        assert torch.equal(batch.where[:, 1], (row % 3 == 0) & (row % 5 != 0))
        assert torch.equal(batch.labels[:, 1], torch.where(batch.where[:, 1], row.float(), 0.0))
        assert torch.isfinite(batch.labels).all()


@given(SIZES, st.integers(0, 50))
def test_a_resumed_epoch_goes_on_identically(sizes: tuple[int, int, int, int], start: int) -> None:
    rows, batch_size, block, window = sizes
    loader = Loader(SCHEMA, _data(rows), batch_size, 5, block_rows=block, window_rows=window)
    whole = list(loader.epoch(2))

    rest = list(loader.epoch(2, start))

    assert len(rest) == max(0, len(whole) - start)
    assert all(_same(one, two) for one, two in zip(whole[start:], rest, strict=True))


@given(SIZES)
def test_in_order_keeps_the_order(sizes: tuple[int, int, int, int]) -> None:
    rows, batch_size, block, window = sizes
    loader = Loader(SCHEMA, _data(rows), batch_size, block_rows=block, window_rows=window)

    assert _rows(list(loader.in_order())) == list(range(rows))


@given(SIZES, st.integers(0, 60))
def test_batches_are_rows_of_the_whole(sizes: tuple[int, int, int, int], start: int) -> None:
    """The plain path: all rows as one batch, blocks and rows permuted with the generators of (seed, epoch, stream)."""
    rows, batch_size, block, window = sizes
    data = _data(rows, weights=True)
    whole = as_batch(data, SCHEMA)
    starts = np.random.default_rng([9, 3, 0]).permutation(np.arange(0, rows, block))
    size = max(1, window // block)
    expected = []
    for index in range(-(-len(starts) // size)):
        blocks = starts[index * size : (index + 1) * size]
        within = np.concatenate([np.arange(first, min(first + block, rows)) for first in blocks])
        order = within[np.random.default_rng([9, 3, index + 1]).permutation(len(within))]
        expected += [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

    found = list(Loader(SCHEMA, data, batch_size, 9, block_rows=block, window_rows=window).epoch(3, start))

    assert len(found) == len(expected[start:])
    for batch, order in zip(found, expected[start:], strict=True):
        assert _same(batch, whole.mapped(lambda part, order=order: part[order]))
        assert batch.weights is not None
        assert whole.weights is not None
        assert torch.equal(batch.weights, whole.weights[order])
        assert all(part.is_contiguous() for part in (batch.ids, batch.dense, batch.labels, batch.where, batch.weights))


@pytest.mark.parametrize("tasks", [(), ("z",), ("z", "y")])
def test_windows_are_row_major(tasks: tuple[str, ...]) -> None:
    """A gather from any other would first copy all of the window, for each batch."""
    loader = Loader(SCHEMA, _data(50, weights=True), 50, tasks=tasks)
    whole = as_batch(loader.data, SCHEMA, loader.task_positions)

    assert whole.weights is not None
    assert all(part.is_contiguous() for part in (whole.ids, whole.labels, whole.where, whole.weights))


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    loader = Loader(SCHEMA, _data(1000), 10, block_rows=10, window_rows=200)
    for batches in (loader.epoch(0), loader.in_order()):
        with batches:
            next(batches)
        next(iter(loader.epoch(0)))

    for thread in threading.enumerate():
        if thread.name == "polyrank-prefetch":
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("rows", "run_bytes", "depth", "run"),
    [
        (100, 2**21, 2, 1),
        (1000, 2**21, 6, 3),  # of a window of many a sixteenth, in whole batches of 10; half of it is a run
        (2000, 2**21, 12, 6),
        (2000, 4 * 160, 12, 4),  # a row is 4 + 4 + 8 bytes
        (2000, 0, 12, 1),
        (4100, 2**21, 24, 12),  # of the only window two runs, a sixteenth at most
        (4100, 4 * 160, 8, 4),
        (4100, 160 - 1, 2, 1),  # two batches at least
    ],
)
def test_a_share_of_a_window_waits_as_batches(
    monkeypatch: pytest.MonkeyPatch, rows: int, run_bytes: int, depth: int, run: int
) -> None:
    monkeypatch.setattr(loader_module, "_RUN_BYTES", run_bytes)
    loader = Loader(SCHEMA, _data(4096), 10, block_rows=100, window_rows=rows)
    with loader.epoch(0) as batches:
        assert batches._shared.depth == depth
        assert batches._shared.enough == depth - run


@pytest.mark.parametrize(("window", "depth", "run"), [(1600, 24, 12), (480, 10, 5), (320, 6, 3)])
def test_runs_leave_batches_as_they_are(window: int, depth: int, run: int) -> None:
    """Windows end within runs, with a shorter batch; an epoch can be taken up anywhere in a run."""
    loader = Loader(SCHEMA, _data(1590), 3 if window < 1600 else 4, 7, block_rows=32, window_rows=window)
    expected = [
        batch
        for index, (blocks, rows) in enumerate(loader._windows(1))
        for batch in loader._window(blocks, loader._generator(1, index + 1).permutation(rows))
    ]

    for start in [*range(2 * depth + 2), len(expected) - 1, len(expected), len(expected) + 1]:
        with loader.epoch(1, start) as batches:
            assert (batches._shared.depth, batches._shared.enough) == (depth, depth - run)
            found = list(batches)
        assert len(found) == len(expected[start:])
        assert all(_same(one, two) for one, two in zip(found, expected[start:], strict=True))


def test_parts_of_a_batch_are_its_rows() -> None:
    batch = as_batch(_data(10, weights=True), SCHEMA)

    parts = list(batch.parts(4))

    assert [part.rows for part in parts] == [4, 4, 2]
    assert _rows(parts) == list(range(10))
    assert all(part.weights is not None for part in parts)
    assert parts[1].labels.data_ptr() == batch.labels[4:].data_ptr()
    assert [part.weights for part in as_batch(_data(3), SCHEMA).parts(3)] == [None]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int, batch_size: int = 7) -> list[int]:
        return _rows(list(Loader(SCHEMA, _data(200), batch_size, seed, block_rows=16, window_rows=64).epoch(epoch)))

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) == order(1, 1, batch_size=1)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_blocks_and_windows_are_both_shuffled() -> None:
    order = np.array(_rows(list(Loader(SCHEMA, _data(1000), 100, block_rows=10, window_rows=200).epoch(0))))
    first = order[:200]

    assert len(np.unique(first // 10)) == 20  # a window holds whole blocks …
    assert len(np.unique(first // 200)) > 2  # … from all over the data …
    assert np.abs(np.diff(first)).mean() > 100  # … and its rows are mixed


def test_windows_are_not_shuffled_alike() -> None:
    order = np.array(_rows(list(Loader(SCHEMA, _data(400), 100, block_rows=100, window_rows=100).epoch(0))))

    within = {tuple((window % 100).tolist()) for window in order.reshape(4, 100)}
    assert len(within) == 4


@pytest.mark.parametrize(
    ("window_rows", "window_bytes", "blocks"),
    [
        (512, 10**9, 16),
        (512, 24 * 96, 3),  # a row is 4 + 4 + 8 + 8 bytes: id, number, labels, weights
        (512, 24 * 96 - 1, 2),  # whole blocks
        (512, 1, 1),  # a block at least
        (10**9, 10**9, 32),
    ],
)
def test_a_window_is_bounded_in_rows_and_in_bytes(window_rows: int, window_bytes: int, blocks: int) -> None:
    data = _data(1024, weights=True)
    loader = Loader(SCHEMA, data, 7, block_rows=32, window_rows=window_rows, window_bytes=window_bytes)

    windows = [rows for _, rows in loader._windows(0)]

    assert set(windows[:-1]) <= {32 * blocks}
    assert len(windows) == -(-32 // blocks)
    order = _rows(list(loader.epoch(0)))
    assert sorted(order) == list(range(1024))
    # The order is that of the places, whatever stands there.
    reversed_ = replace(data, ids=data.ids[::-1].copy())
    assert _rows(list(replace(loader, data=reversed_).epoch(0))) == [1023 - row for row in order]


def test_only_wide_rows_make_smaller_windows() -> None:
    rows = 400_000
    wide = replace(_data(rows), ids=np.broadcast_to(np.zeros(200, np.int32), (rows, 200)))

    narrow_windows, wide_windows = ([n for _, n in Loader(SCHEMA, d, 1024)._windows(0)] for d in (_data(rows), wide))

    assert narrow_windows == [rows]
    assert max(wide_windows) == 15 * 8_192  # 96 MiB hold 123,361 rows of 816 bytes


def test_a_window_has_gone_before_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[weakref.ref[Batch]] = []
    make, read = loader_module.as_batch, Loader._read

    def watched(rows: Encoded, schema: Schema, tasks: list[int]) -> Batch:
        batch = make(rows, schema, tasks)
        windows.append(weakref.ref(batch))
        return batch

    def checked(self: Loader, blocks: list[tuple[int, int]]) -> Encoded:
        assert all(window() is None for window in windows)
        return read(self, blocks)

    monkeypatch.setattr(loader_module, "as_batch", watched)
    monkeypatch.setattr(Loader, "_read", checked)
    held = list(Loader(SCHEMA, _data(100), 10, block_rows=10, window_rows=30).epoch(0))

    assert len(windows) == 4
    # Batches are copies: who keeps one keeps no window.
    assert all(batch.ids.untyped_storage().nbytes() == 4 * batch.rows for batch in held)


def test_mapped_pages_are_let_go_block_by_block() -> None:
    releases: list[int] = []

    class Traced(EncodedData):
        def release(self) -> None:
            releases.append(1)

    data = _data(100)
    traced = Traced(data.ids, data.dense, data.labels, data.weights, data.groups, ())

    list(Loader(SCHEMA, traced, 10, block_rows=10, window_rows=30).epoch(0))
    assert len(releases) == 10
    list(Loader(SCHEMA, traced, 25).in_order())
    assert len(releases) == 14


def test_data_that_fits_a_window_is_shuffled_whole() -> None:
    order = np.array(_rows(list(Loader(SCHEMA, _data(5000), 5000).epoch(0))))

    # For a random permutation the rank correlation with the order is about ±1/√5000 = 0.014.
    assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.06


def test_one_row_and_a_batch_larger_than_the_data() -> None:
    (only,) = Loader(SCHEMA, _data(1), 512).epoch(0)
    (whole,) = Loader(SCHEMA, _data(9), 512).epoch(0)

    assert (only.rows, whole.rows) == (1, 9)


def test_weights_go_along() -> None:
    for batch in Loader(SCHEMA, _data(20, weights=True), 7).epoch(0):
        assert batch.weights is not None
        assert torch.equal(batch.weights[:, 1], batch.ids[:, 0].float())
    assert next(Loader(SCHEMA, _data(20), 7).epoch(0)).weights is None


def test_a_row_of_weight_0_is_out_of_its_own_task_and_keeps_its_label_for_others() -> None:
    labels = np.array([[1, 3], [1, 4], [0, 5]], np.float32)
    weights = np.array([[0, 1], [1, 0], [2, 1]], np.float32)
    ids, none = np.ones((3, 1), np.int32), np.zeros((3, 0), np.float32)

    batch = as_batch(Encoded(ids, none, labels, weights, np.zeros(0, np.int64)), SCHEMA)

    assert batch.where.tolist() == [[False, True], [True, False], [True, False]]
    assert batch.labels.tolist() == [[0, 3], [1, 0], [0, 0]]


def test_some_tasks_only_keep_their_sample_space() -> None:
    loader = Loader(SCHEMA, _data(30, weights=True), 30, tasks=("z",))

    (batch,) = loader.in_order()

    row = batch.ids[:, 0]
    assert batch.labels.shape == (30, 1)
    assert torch.equal(batch.where[:, 0], (row % 3 == 0) & (row % 5 != 0))
    assert batch.weights is not None
    assert batch.weights.shape == (30, 1)


def test_rows_without_labels_are_in_no_sample_space() -> None:
    none = np.zeros((2, 0), np.float32)
    batch = as_batch(Encoded(np.ones((2, 1), np.int32), none, none, none, np.zeros(0, np.int64)), SCHEMA)

    assert batch.where.tolist() == [[False, False]] * 2
    assert batch.labels.tolist() == [[0, 0]] * 2
    assert batch.weights is None


@pytest.mark.parametrize("weights", [False, True])
def test_a_read_only_mapping_becomes_a_batch_of_its_own(tmp_path: Path, weights: bool) -> None:
    data = _data(10, weights)
    arrays = {}
    for part in ("ids", "dense", "labels", "weights", "groups"):
        np.save(tmp_path / f"{part}.npy", getattr(data, part))
        array = getattr(data, part)
        mapped = _map(tmp_path / f"{part}.npy", array.shape, array.dtype)
        assert mapped is not None
        arrays[part] = mapped[0]
    stored = EncodedData(**arrays, maps=())

    as_batch(stored, SCHEMA).ids.add_(1)  # a write to the file itself would end the process

    assert stored.ids[:, 0].tolist() == list(range(10))
    assert _same(as_batch(stored, SCHEMA), as_batch(data, SCHEMA))
    assert _rows(list(Loader(SCHEMA, stored, 4, block_rows=2, window_rows=4).in_order())) == list(range(10))
