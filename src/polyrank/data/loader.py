"""Encoded data → batches. Blocks are shuffled, and rows within a window; any place in an epoch can be found again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from polyrank.data.layout import Encoded
from polyrank.data.prefetch import Prefetched, prefetched
from polyrank.data.schema import Schema
from polyrank.data.store import EncodedData
from polyrank.data.tree import joint_labels

BLOCK_ROWS = 8_192
WINDOW_ROWS = 524_288
WINDOW_BYTES = 96 * 2**20

_AHEAD = 16  # the share of a window, 1 / 16, that waits as batches while the next window is read
_RUN_BYTES = 2 * 2**20  # of batches that the thread makes at a time

Blocks = list[tuple[int, int]]  # the first row of each, and one past its last


@dataclass(frozen=True)
class Batch:
    """Rows as tensors that obey a schema. B rows, F id columns, D scaled numbers, T tasks.

    Attributes:
        ids: `[B, F]` int32.
        dense: `[B, D]` float32.
        labels: `[B, T]` float32; 0 wherever `where` is False, so that no NaN enters a loss.
        where: `[B, T]` bool: the row is in the task's sample space and its label is present.
        weights: `[B, T]` float32, or None where no task has row weights.
        joint: `[B, T]` float32: did the task's event and those of all its ancestors happen, −1 where that is not
            defined (see `polyrank.data.tree`); None where no task of the schema has a parent.
    """

    ids: Tensor
    dense: Tensor
    labels: Tensor
    where: Tensor
    weights: Tensor | None = None
    joint: Tensor | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.ids)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch of what a function makes of each tensor."""
        parts = (getattr(self, part.name) for part in fields(self))
        return Batch(*(None if part is None else function(part) for part in parts))  # type: ignore[arg-type]

    def parts(self, rows: int) -> Iterator["Batch"]:
        """The batch in parts of so many rows, in order; views, not copies."""
        for first in range(0, self.rows, rows):
            yield self.mapped(itemgetter(slice(first, first + rows)))


def as_batch(rows: Encoded | EncodedData, schema: Schema, tasks: Sequence[int] | None = None) -> Batch:
    """Encoded rows as one batch.

    Args:
        rows: with labels of all the schema's tasks, or of none (scoring): then no row is in any sample space.
        schema: the schema.
        tasks: positions of the tasks to keep; sample spaces still follow all of them.
    """
    labels = rows.labels
    if labels.shape[1] == 0:
        labels = np.full((len(rows.ids), len(schema.tasks)), np.nan, np.float32)
    weights = rows.weights
    where = schema.sample_spaces(labels, weights)
    tree = any(task.given for task in schema.tasks)
    joint = joint_labels(schema, labels) if tree else labels
    if tasks is not None:
        labels, where, joint = labels[:, tasks], where[:, tasks], joint[:, tasks]
        weights = weights[:, tasks] if weights.shape[1] else weights
    return Batch(
        _tensor(rows.ids),
        _tensor(rows.dense),
        _tensor(np.where(where, labels, np.float32(0))),
        _tensor(where),
        _tensor(weights) if weights.shape[1] else None,
        _tensor(np.nan_to_num(joint, nan=-1.0)) if tree else None,
    )


@dataclass(frozen=True)
class Loader:
    """Batches of an encoded matrix, made ahead in a thread.

    A shuffled epoch visits blocks of `block_rows` contiguous rows in random order, reads as many as a window holds, and
    shuffles rows within the window: disk reads stay long, memory stays bounded, and data that fits one window is
    shuffled whole. A window holds `window_rows` rows, or fewer where rows are so wide that they would take more than
    `window_bytes`, but never less than a block. The order depends on (seed, epoch) and the data's shape alone. Each
    window ends with a shorter batch.

    There is one window at a time: its last sixteenth (less a run: the thread makes batches in runs, of `_RUN_BYTES` and
    half a sixteenth at most) has been taken out as batches when it goes, and while these are trained on, the next one
    is read. Of the only window no more than two runs wait, or two batches.
    """

    schema: Schema
    data: EncodedData
    batch_size: int
    seed: int = 0
    tasks: tuple[str, ...] = ()
    block_rows: int = BLOCK_ROWS
    window_rows: int = WINDOW_ROWS
    window_bytes: int = WINDOW_BYTES

    @property
    def task_positions(self) -> list[int]:
        """Where the tasks of its batches stand in the schema (all, if `tasks` is empty)."""
        return [self.schema.task_names.index(name) for name in self.tasks or self.schema.task_names]

    def batches_in(self, epoch: int) -> int:
        """Batches in a shuffled epoch (it may vary by one a window: the short last block falls where it falls)."""
        return sum(-(-rows // self.batch_size) for _, rows in self._windows(epoch))

    def epoch(self, number: int, start: int = 0) -> Prefetched[Batch]:
        """Shuffled batches of epoch `number` from batch `start` on: those that an epoch begun at 0 gives there."""
        windows = self._windows(number)
        ahead = windows[0][1] // (_AHEAD * self.batch_size)
        run = max(1, min(ahead // 2, _RUN_BYTES // (self.batch_size * self._row_bytes)))
        depth = max(2, ahead if len(windows) > 1 else 2 * run)
        return prefetched(self._shuffled(windows, number, start), depth, run)

    def in_order(self) -> Prefetched[Batch]:
        """All rows in file order, in batches."""
        ends = range(self.batch_size, self.data.rows + self.batch_size, self.batch_size)
        places = ((end - self.batch_size, min(end, self.data.rows)) for end in ends)
        return prefetched(as_batch(self._read([place]), self.schema, self.task_positions) for place in places)

    def _shuffled(self, windows: list[tuple[Blocks, int]], epoch: int, start: int) -> Iterator[Batch]:
        for index, (blocks, rows) in enumerate(windows):
            batches = -(-rows // self.batch_size)
            if start < batches:
                order = self._generator(epoch, index + 1).permutation(rows)
                yield from self._window(blocks, order[start * self.batch_size :])
            start = max(0, start - batches)

    def _window(self, blocks: Blocks, order: np.ndarray) -> Iterator[Batch]:
        """A window's rows in this order; the window goes when its last batch has gone, before the next one is read."""
        window = as_batch(self._read(blocks), self.schema, self.task_positions)
        for first in range(0, len(order), self.batch_size):
            yield window.mapped(partial(_gather, order[first : first + self.batch_size]))

    def _windows(self, epoch: int) -> list[tuple[Blocks, int]]:
        """The windows of an epoch: the (first, end) rows of each one's blocks, and how many rows they hold."""
        starts = np.arange(0, self.data.rows, self.block_rows)
        shuffled = self._generator(epoch, 0).permutation(starts).tolist()
        blocks = [(first, min(first + self.block_rows, self.data.rows)) for first in shuffled]
        size = max(1, min(self.window_rows, self.window_bytes // self._row_bytes) // self.block_rows)
        windows = [blocks[i : i + size] for i in range(0, len(blocks), size)]
        return [(window, sum(end - first for first, end in window)) for window in windows]

    @property
    def _row_bytes(self) -> int:
        return sum(array.itemsize * array.shape[1] for array in self._parts().values())

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, stream])

    def _parts(self) -> dict[str, np.ndarray]:
        """What a batch is made of; the groups stay where they are."""
        return {part.name: getattr(self.data, part.name) for part in fields(Encoded) if part.name != "groups"}

    def _read(self, blocks: Blocks) -> Encoded:
        """Copy blocks out of the mapping, letting the mapped pages of each go before the next is read."""
        rows = sum(end - first for first, end in blocks)
        parts = self._parts()
        window = {name: np.empty((rows, *array.shape[1:]), array.dtype) for name, array in parts.items()}
        place = 0
        for first, end in blocks:
            for name, array in parts.items():
                window[name][place : place + end - first] = array[first:end]
            place += end - first
            self.data.release()
        return Encoded(**window, groups=np.zeros(0, np.int64))


def _gather(rows: np.ndarray, part: Tensor) -> Tensor:
    """`part[rows]`; unlike a fancy index it lets other threads run, and unlike torch's it wakes none to help."""
    array = part.numpy()
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    array.take(rows, axis=0, out=taken, mode="clip")  # any mode but "clip" would buffer
    return torch.from_numpy(taken)


def _tensor(array: np.ndarray) -> Tensor:
    """An array as a tensor, row-major; copied where it is not, and a read-only mapping, which torch cannot hold."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
