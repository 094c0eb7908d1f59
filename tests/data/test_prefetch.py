import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from polyrank.data.prefetch import Prefetched, prefetched

PATIENCE = 10.0


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "polyrank-prefetch"]


def _gone() -> bool:
    """Whether every prefetching thread ends, and soon."""
    for thread in _threads():
        thread.join(PATIENCE)
    return not _threads()


def _wait_for(condition: object) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.001)


class _Counting:
    """0, 1, 2, … without end; knows how far it was asked, whether it was closed, and by whom."""

    def __init__(self) -> None:
        self.made = 0
        self.closed_by = ""

    def items(self) -> Iterator[int]:
        try:
            while True:
                self.made += 1
                yield self.made - 1
        finally:
            self.closed_by = threading.current_thread().name


@pytest.mark.parametrize(("depth", "run"), [(1, 1), (2, 1), (2, 2), (7, 1), (7, 3), (7, 7), (1000, 1), (1000, 400)])
def test_all_items_in_order_and_then_the_end(depth: int, run: int) -> None:
    items = prefetched(iter(range(500)), depth, run)

    assert list(items) == list(range(500))
    assert list(items) == []
    assert _gone()


def test_items_are_made_elsewhere() -> None:
    with prefetched(threading.current_thread() for _ in range(3)) as makers:
        assert {thread.name for thread in makers} == {"polyrank-prefetch"}


def test_any_iterable_and_none_at_all() -> None:
    assert list(prefetched([1, 2])) == [1, 2]
    assert list(prefetched([])) == []
    assert list(prefetched([None, None])) == [None, None]


def test_at_least_one_item_ahead() -> None:
    with pytest.raises(ValueError, match="depth must be 1 or more, not 0"):
        prefetched([1], 0)


@pytest.mark.parametrize("run", [0, 4])
def test_a_run_is_of_items_ahead(run: int) -> None:
    with pytest.raises(ValueError, match=f"run must be from 1 to depth, which is 3, not {run}"):
        prefetched([1], 3, run)


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_comes_where_its_item_would_have(error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise error

    made = prefetched(items(), 10)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)) as raised:
        next(made)

    assert raised.value is error
    assert "items" in [entry.name for entry in raised.traceback]  # where it happened is not lost
    assert list(made) == []
    assert _gone()


def test_an_error_while_closing_a_generator_is_not_lost_either() -> None:
    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("on the way out")

    with pytest.raises(ValueError, match="on the way out"):
        list(prefetched(items()))
    with prefetched(items()) as made:  # nobody listens any more
        assert next(made) == 1
    assert _gone()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_items_are_ahead(depth: int) -> None:
    counting = _Counting()
    with prefetched(counting.items(), depth) as made:
        for taken in range(20):
            _wait_for(lambda taken=taken: counting.made == taken + depth)
            time.sleep(0.002)
            assert counting.made == taken + depth
            assert next(made) == taken


@pytest.mark.parametrize(("depth", "run"), [(2, 2), (5, 2), (6, 6)])
def test_the_thread_goes_on_when_a_run_is_missing(depth: int, run: int) -> None:
    counting = _Counting()
    with prefetched(counting.items(), depth, run) as made:
        for taken in range(20):
            ahead = depth + taken // run * run
            left = depth - taken % run  # all that was made is there, and the thread waits
            _wait_for(lambda ahead=ahead, left=left: (counting.made, len(made._shared.made)) == (ahead, left))
            time.sleep(0.002)
            assert counting.made == ahead
            assert next(made) == taken


def test_what_was_taken_is_not_held() -> None:
    class Item:
        pass

    with prefetched((Item() for _ in range(50)), 3, 2) as made:
        for _ in range(40):
            item = next(made)
            reference = weakref.ref(item)
            del item
            _wait_for(lambda reference=reference: reference() is None)


def test_closed_early() -> None:
    counting = _Counting()
    with prefetched(counting.items()) as made:
        assert next(made) == 0

    assert not _threads()
    assert counting.closed_by == "polyrank-prefetch"
    assert list(made) == []
    made.close()


def test_an_error_of_the_consumer() -> None:
    counting = _Counting()

    def consume() -> None:
        with prefetched(counting.items()) as made:
            for item in made:
                if item == 3:
                    raise RuntimeError("consumer")

    with pytest.raises(RuntimeError, match="consumer"):
        consume()

    assert not _threads()
    assert counting.closed_by


def test_a_loop_that_breaks_without_closing() -> None:
    for item in prefetched(_Counting().items()):
        if item == 3:
            break

    del item
    assert _gone()


def test_forgotten_in_a_cycle() -> None:
    class Holder:
        def __init__(self) -> None:
            self.me, self.items = self, prefetched(_Counting().items())

    holder = Holder()
    assert next(holder.items) == 0
    del holder
    gc.collect()

    assert _gone()


def test_closing_waits_for_the_item_in_the_making() -> None:
    begun, done = threading.Event(), []

    def items() -> Iterator[int]:
        begun.set()
        time.sleep(0.05)
        done.append(1)
        yield 1

    made = prefetched(items())
    begun.wait(PATIENCE)
    made.close()

    assert done == [1]


def test_a_chain() -> None:
    inner = prefetched(range(100))
    outer: Prefetched[int] = prefetched(item * 2 for item in inner)
    assert [next(outer) for _ in range(50)] == list(range(0, 100, 2))
    outer.close()
    inner.close()

    assert not _threads()


def test_waiting_is_counted_where_the_producer_is_slow() -> None:
    def slow() -> Iterator[int]:
        for item in range(5):
            time.sleep(0.02)
            yield item

    with prefetched(slow()) as made:
        assert list(made) == list(range(5))
        assert 0.05 < made.waited < 5


def test_a_slow_consumer_does_not_wait() -> None:
    counting = _Counting()
    with prefetched(counting.items()) as made:
        for _ in range(5):
            _wait_for(lambda: len(made._shared.made) == 2)
            next(made)
        assert made.waited == 0.0


@pytest.mark.parametrize(
    "end",
    [
        "",
        "raise SystemExit(0)",
        "next(made)",
        "made = iter(made)",
        "import gc; gc.disable(); cycle = [made]; cycle.append(cycle)",
    ],
)
def test_an_interpreter_that_exits_in_the_middle(end: str) -> None:
    code = f"""
import itertools, time
from polyrank.data.prefetch import prefetched
made = prefetched((time.sleep(0.01) or i for i in itertools.count()), 2)
assert next(made) == 0
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_while_waiting() -> None:
    code = """
import os, signal, threading, time
from polyrank.data.prefetch import prefetched
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
def items():
    yield 1
    time.sleep(2)
    yield 2
try:
    for item in prefetched(items()):
        pass
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
