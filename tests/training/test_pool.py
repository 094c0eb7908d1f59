import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from polyrank.errors import DataError, Interrupted, RunFailed
from polyrank.progress import Bar, Progress, Silent
from polyrank.training import pool
from polyrank.training.pool import Job, peak_memory, run_all

# ------------------------------------------------------------------------------------------- what the children do


def square(number: int, seconds: float, progress: Progress) -> tuple[int, int]:
    time.sleep(seconds)
    return os.getpid(), number**2


def report(progress: Progress) -> None:
    with progress.bar("reading", 10) as bar:
        bar.advance(4)
        bar.advance(6, "loss 0.1")
    progress.say("half")
    with progress.bar("training", None):
        pass


def mistake(progress: Progress) -> None:
    raise DataError("labels must be labels", received="a cat", mend="give labels")


def mistake_after(path: Path, progress: Progress) -> None:
    while not path.exists():
        time.sleep(0.01)
    mistake(progress)


def accident(progress: Progress) -> None:
    raise ZeroDivisionError("the number was 0")


def unpicklable(progress: Progress) -> Callable[[], None]:
    return lambda: None


def die(progress: Progress) -> None:
    progress.say("alive")
    os.kill(os.getpid(), signal.SIGKILL)


def die_halfway_through_a_message(progress: Progress) -> None:
    (connection,) = (cell.cell_contents for cell in progress._send.__closure__)  # type: ignore[attr-defined]
    connection._send(b"\0\0\1\0abc")  # says 256 bytes follow; 3 do
    os.kill(os.getpid(), signal.SIGKILL)


def touch(path: Path, seconds: float, progress: Progress) -> None:
    time.sleep(seconds)
    path.touch()


def interrupt(progress: Progress) -> None:
    raise KeyboardInterrupt


def sleep(progress: Progress) -> None:
    progress.say("asleep")
    time.sleep(600)


def save_when_told(path: Path, progress: Progress) -> None:
    """As a training does on SIGTERM: it saves; and before, it says more than a pipe can hold."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    progress.say("asleep")
    while not told:
        time.sleep(0.01)
    progress.say("!" * 2**20)
    path.touch()


def save_when_unheard(path: Path, progress: Progress) -> None:
    """As a training does that reports as it goes, and saves on SIGTERM."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    while not told:
        progress.say("asleep")
        time.sleep(0.01)
    path.touch()


def never_end(progress: Progress) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    progress.say("asleep")
    time.sleep(600)


def hold(mebibytes: int, progress: Progress) -> int:
    held = bytes(range(256)) * (mebibytes * 2**12)
    del held
    return peak_memory()


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """This module under a name that a fresh process can import, too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module(Path(__file__).stem)


class Recorded(Progress, Bar):
    """Keeps what it is told; `stop_at` raises KeyboardInterrupt as ctrl-C does."""

    def __init__(self, stop_at: str = "") -> None:
        self.events: list[tuple[Any, ...]] = []
        self._stop_at = stop_at

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
        self.events.append(("open", label, total))
        yield self
        self.events.append(("close", label))

    def advance(self, rows: int, note: str = "") -> None:
        self.events.append(("advance", rows, note))

    def say(self, text: str) -> None:
        self.events.append(("say", text))
        if self._stop_at and text.endswith(self._stop_at):
            raise KeyboardInterrupt


def test_results_come_in_the_jobs_order_however_many_workers(work: ModuleType) -> None:
    jobs = [Job(str(n), work.square, (n, 0.3 if n == 0 else 0.0)) for n in range(5)]

    found = run_all(jobs, 2, Silent())

    assert [value for _, value in found] == [0, 1, 4, 9, 16]
    processes = {process for process, _ in found}
    assert len(processes) == 5  # a fresh process each
    assert os.getpid() not in processes


def test_no_jobs() -> None:
    assert run_all([], 1, Silent()) == []


def test_progress_arrives_under_the_job_s_label(work: ModuleType) -> None:
    progress = Recorded()

    run_all([Job("ple-seed0", work.report, ())], 3, progress)

    assert progress.events == [
        ("open", "all runs", 1),
        ("open", "ple-seed0: reading", 10),
        ("advance", 4, ""),
        ("advance", 6, "loss 0.1"),
        ("close", "ple-seed0: reading"),
        ("say", "ple-seed0: half"),
        ("open", "ple-seed0: training", None),
        ("close", "ple-seed0: training"),
        ("advance", 1, ""),
        ("close", "all runs"),
    ]


def test_an_error_stops_the_others_lets_them_save_and_nothing_new_begins(work: ModuleType, tmp_path: Path) -> None:
    saved, after = tmp_path / "saved", tmp_path / "after"
    jobs = [
        Job("beside", work.save_when_told, (saved,)),
        Job("bad", work.mistake_after, (tmp_path / "begun",)),
        Job("next", work.touch, (after, 0.0)),
    ]

    class Begins(Recorded):
        def say(self, text: str) -> None:
            super().say(text)
            (tmp_path / "begun").touch()  # the bad one errs once the other is at work

    with pytest.raises(DataError, match=r"labels must be labels\n +received: a cat\n +to mend: +give labels") as caught:
        run_all(jobs, 2, Begins())

    assert caught.value.exit_code == 2
    assert saved.exists()
    assert not after.exists()
    assert multiprocessing.active_children() == []


def test_sigterm_is_as_ctrl_c(work: ModuleType, tmp_path: Path) -> None:
    saved = tmp_path / "saved"

    class Ends(Recorded):
        def say(self, text: str) -> None:
            super().say(text)
            os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler would

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="--resume"):
        run_all([Job("beside", work.save_when_told, (saved,))], 1, Ends())

    assert saved.exists()
    assert signal.getsignal(signal.SIGTERM) is before
    assert multiprocessing.active_children() == []


def test_a_job_whose_parent_is_gone_saves_and_ends(work: ModuleType, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(
        target=pool._child, args=(theirs, work.save_when_unheard, (saved,))
    )
    child.start()
    theirs.close()
    assert ours.recv() == ("say", "asleep")
    ours.close()
    child.join(timeout=30)

    assert saved.exists()
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accident", r"ZeroDivisionError: the number was 0\n +received: Traceback[\s\S]*in accident"),
        ("unpicklable", r"(?i)can't (get|pickle) local object"),
        ("die", r"the job ended without a result\n +received: exit code -9\n.*is memory full"),
        ("die_halfway_through_a_message", r"the job ended without a result\n +received: exit code -9"),
    ],
)
def test_what_nobody_expected_is_a_failed_run(work: ModuleType, name: str, message: str) -> None:
    with pytest.raises(RunFailed, match=message) as caught:
        run_all([Job("the job", getattr(work, name), ())], 1, Silent())

    assert caught.value.exit_code == 1
    assert multiprocessing.active_children() == []


def test_a_child_that_is_interrupted(work: ModuleType) -> None:
    with pytest.raises(Interrupted):
        run_all([Job("the job", work.interrupt, ())], 1, Silent())


def test_ctrl_c_lets_jobs_save_and_leaves_no_process_behind(
    work: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", 20.0)
    saved = tmp_path / "saved"
    jobs = [Job("saves", work.save_when_told, (saved,)), Job("sleeps", work.sleep, ()), Job("waits", work.sleep, ())]
    progress = Recorded(stop_at="saves: asleep")

    with pytest.raises(Interrupted, match="--resume"):
        run_all(jobs, 2, progress)

    assert saved.exists()
    assert multiprocessing.active_children() == []
    assert progress.events[-1] == ("say", "saves: asleep")


def test_who_does_not_end_is_killed(work: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", 0.1)

    with pytest.raises(Interrupted):
        run_all([Job("deaf", work.never_end, ())], 1, Recorded(stop_at="asleep"))

    assert multiprocessing.active_children() == []


def test_a_second_ctrl_c_kills_at_once(work: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "wait", _twice(pool.wait, impatient))

    with pytest.raises(KeyboardInterrupt):
        run_all([Job("deaf", work.never_end, ())], 1, Recorded(stop_at="asleep"))

    assert multiprocessing.active_children() == []


def _twice(first: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Call `first` where no time is given (while jobs run), `then` where one is (while they are told to end)."""
    return lambda connections, timeout=None: first(connections) if timeout is None else then()


def test_peak_memory_is_the_job_s_own(work: ModuleType) -> None:
    mine = bytes(range(256)) * (300 * 2**12)  # the parent holds 300 MiB

    light, heavy = run_all([Job("light", work.hold, (1,)), Job("heavy", work.hold, (200,))], 2, Silent())

    assert len(mine) == 300 * 2**20
    assert peak_memory() >= 300 * 2**20
    assert 200 * 2**20 <= heavy < 500 * 2**20
    assert 2**20 < light < heavy - 150 * 2**20
