"""Independent pieces of work, each in a process of its own: side by side, with progress and its own peak memory."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from polyrank.errors import Interrupted, PolyrankError, RunFailed
from polyrank.progress import Bar, Progress, Sent

_CONTEXT = multiprocessing.get_context("spawn")
_PATIENCE = 60.0  # seconds a job that was told to end has for saving


@dataclass(frozen=True)
class Job:
    """One piece: `work(*arguments, progress)` at the top level of a module, and the label its bars get."""

    label: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_all(jobs: Sequence[Job], workers: int, progress: Progress) -> list[Any]:
    """Run every job in a fresh process, at most `workers` at a time; what they return, in the jobs' order.

    A fresh process gives memory back when it ends and makes its peak memory its own.

    Raises:
        PolyrankError: the first job's error; the jobs beside it were told to save and end.
        Interrupted: ctrl-C or SIGTERM; the jobs were told to save and end.
    """
    results: dict[int, Any] = {}
    running: dict[Connection, _Running] = {}
    waiting = list(enumerate(jobs))
    failure: PolyrankError | None = None
    with _interruptible(), progress.bar("all runs", len(jobs), unit="runs") as whole:
        try:
            while failure is None and (running or waiting):
                while waiting and len(running) < workers:
                    index, job = waiting.pop(0)
                    started = _Running(index, job)
                    running[started.connection] = started
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    done = running[connection].read(progress)
                    if done is None:
                        continue
                    del running[connection]
                    if isinstance(done.error, PolyrankError):
                        failure = failure or done.error
                    else:
                        results[done.index] = done.value
                        whole.advance(1)
        except KeyboardInterrupt:
            raise Interrupted(
                "the study was interrupted",
                mend="finished runs are kept: the same command with --resume goes on from there",
            ) from None
        finally:
            _stop(list(running.values()))
    if failure is not None:
        raise failure
    return [results[index] for index in range(len(jobs))]


def peak_memory() -> int:
    """The largest resident size this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: that starts from the parent's size at the moment of the fork.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass(frozen=True)
class _Done:
    index: int
    value: Any
    error: PolyrankError | None


class _Running:
    """A job's process and what it has open."""

    def __init__(self, index: int, job: Job) -> None:
        self.index, self.job = index, job
        self.connection, theirs = _CONTEXT.Pipe(duplex=False)
        self.process: SpawnProcess = _CONTEXT.Process(target=_child, args=(theirs, job.work, job.arguments))
        self.process.start()
        theirs.close()
        self.bars = ExitStack()
        self.bar: Bar | None = None

    def read(self, progress: Progress) -> _Done | None:
        """Take one message; what the job came to, if it has ended."""
        try:
            kind, *rest = self.connection.recv()
        except (EOFError, OSError):  # killed between two messages, or in the middle of one
            self.process.join()
            code = self.process.exitcode
            error = RunFailed(
                f"{self.job.label} ended without a result", received=f"exit code {code}", mend="is memory full?"
            )
            return self.end(None, error)
        if kind == "result":
            return self.end(rest[0], None)
        if kind == "error":
            return self.end(None, rest[0])
        if kind == "open":
            self.bar = self.bars.enter_context(progress.bar(f"{self.job.label}: {rest[0]}", *rest[1:]))
        elif kind == "advance" and self.bar is not None:
            self.bar.advance(*rest)
        elif kind == "close":
            self.bars.close()
        elif kind == "say":
            progress.say(f"{self.job.label}: {rest[0]}")
        return None

    def end(self, value: Any, error: PolyrankError | None) -> _Done:
        """Wait for the process to be gone, and close what is open."""
        self.bars.close()
        self.process.join()
        self.connection.close()
        return _Done(self.index, value, error)


def _stop(running: Sequence[_Running]) -> None:
    """Ask all to save and end, and wait for them; whoever does not is killed."""
    try:
        for one in running:
            one.process.terminate()
        deadline = time.monotonic() + _PATIENCE
        talking = {one.connection for one in running}
        while talking and time.monotonic() < deadline:
            # What they still say is heard by nobody, but who waits for a listener cannot end.
            for connection in wait(talking, timeout=1.0):
                assert isinstance(connection, Connection)
                try:
                    connection.recv()
                except (EOFError, OSError):
                    talking.remove(connection)
    finally:
        for one in running:
            one.process.kill()
            one.end(None, None)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, do what ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _child(connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The process's whole life: work, send what it came to."""

    def send(message: tuple[Any, ...]) -> None:
        try:
            connection.send(message)
        except BrokenPipeError:  # nobody listens any more: save and end, as if told to
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        send(("result", work(*arguments, Sent(send))))
    except PolyrankError as error:
        send(("error", error))
    except KeyboardInterrupt:
        send(("error", Interrupted("the run was interrupted")))
    except Exception as error:  # noqa: BLE001  # whatever it was, the parent must hear of it
        send(("error", RunFailed(f"{type(error).__name__}: {error}", received=traceback.format_exc())))
