"""What comes between the steps of a training: signals that ask it to stop, and a word where a step takes long."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from polyrank.progress import Progress


@contextmanager
def said_if_slow(progress: Progress, message: str, seconds: float = 2.0) -> Iterator[None]:
    """Say `message` if what is done inside takes longer than `seconds`."""
    timer = threading.Timer(seconds, progress.say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second SIGINT stops at once."""
    requests: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are someone else's
        before = {}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
