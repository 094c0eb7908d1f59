"""Items made ahead in a background thread, while whoever asked for them works on the ones before."""

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Prefetched(Iterator[T], Generic[T]):
    """The items of an iterable, in order, made by a thread of its own.

    An error of the iterable is raised where its item would have come. The thread ends with the items, at an error, when
    this is closed (best: use it as a context manager) and when nobody holds it any more; never later than the item that
    it is working on.

    Args:
        items: iterated, and closed if it is a generator, in the thread. It should spend its time where Python's global
            lock is released: in reading, Arrow and numpy.
        depth: how many items may be ahead of the consumer, the one in the making included.
        run: how many of these the consumer must have taken before a thread that had made them all goes on. Where
            items are small a thread that wakes for each costs the consumer more than the items do: it takes a
            processor from the threads of a parallel operation, which then wait for one another.
    """

    def __init__(self, items: Iterable[T], depth: int = 2, run: int = 1) -> None:
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, not {depth}")
        if not 1 <= run <= depth:
            raise ValueError(f"run must be from 1 to depth, which is {depth}, not {run}")
        self._shared: _Shared[T] = _Shared(depth, run)
        self._thread = threading.Thread(
            target=_produce, args=(self._shared, iter(items)), name="polyrank-prefetch", daemon=True
        )
        # The thread knows what is shared and not this object, so that this one can go while the thread lives.
        weakref.finalize(self, self._shared.close).atexit = False
        _THREADS[self._thread] = self._shared
        self._thread.start()

    @property
    def waited(self) -> float:
        """Seconds that the consumer has spent waiting for items."""
        return self._shared.waited

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self._shared.get()

    def close(self) -> None:
        """Let go of what has been made, and wait for the thread to end."""
        self._shared.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def prefetched(items: Iterable[T], depth: int = 2, run: int = 1) -> Prefetched[T]:
    """`items`, made ahead: see `Prefetched`."""
    return Prefetched(items, depth, run)


class _Shared(Generic[T]):
    """What consumer and thread share: a bounded queue, how it ended, and who no longer cares."""

    def __init__(self, depth: int, run: int) -> None:
        self.depth, self.enough = depth, depth - run
        self.made: deque[T] = deque()
        self.changed = threading.Condition()
        self.ended = self.closed = False
        self.error: BaseException | None = None
        self.waited = 0.0

    def room(self) -> bool:
        """Wait until one more item may be made, when all were made until a run is missing; False: nobody wants any."""
        with self.changed:
            if len(self.made) == self.depth:
                self.changed.wait_for(lambda: self.closed or len(self.made) <= self.enough)
            return not self.closed

    def put(self, item: T) -> None:
        with self.changed:
            if not self.closed:
                self.made.append(item)
                if len(self.made) == 1:  # who takes waits only where there was none
                    self.changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def get(self) -> T:
        with self.changed:
            if not (self.made or self.ended or self.closed):
                began = time.perf_counter()
                try:
                    self.changed.wait_for(lambda: bool(self.made or self.ended or self.closed))
                finally:
                    self.waited += time.perf_counter() - began
            if self.made:
                item = self.made.popleft()
                if len(self.made) == self.enough:
                    self.changed.notify_all()
                return item
            error, self.error = self.error, None
        try:
            raise error or StopIteration
        finally:
            del error  # an error whose traceback holds this frame must not be held by this frame

    def close(self) -> None:
        with self.changed:
            self.closed, self.error = True, None
            self.made.clear()
            self.changed.notify_all()


def _produce(shared: _Shared[T], items: Iterator[T]) -> None:
    """The thread: one item after the other while there is room."""
    try:
        try:
            while shared.room():
                try:
                    item = next(items)
                except StopIteration:
                    break
                shared.put(item)
                del item  # the consumer's alone from now on: what it drops is freed
        finally:
            if isinstance(items, Generator):
                items.close()
        shared.end(None)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the consumer raises it
        shared.end(error)
    _THREADS.pop(threading.current_thread(), None)


_THREADS: dict[threading.Thread, _Shared[Any]] = {}


@atexit.register
def _end_all() -> None:
    """A thread inside Arrow or numpy when the interpreter is taken down would take it down harder."""
    threads = list(_THREADS.items())
    for _, shared in threads:
        shared.close()
    for thread, _ in threads:
        thread.join()
