"""Progress: what is being done, how fast, and how long it will still take."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars

# Events are plain tuples, so that they cross process borders:
# ("open", label, total, unit) · ("advance", rows, note) · ("close",) · ("say", text)
Event = tuple[str | int | None, ...]


_QUIET = 10.0  # seconds without a line after which there is one


class Bar(ABC):
    """One line of progress."""

    @abstractmethod
    def advance(self, rows: int, note: str = "") -> None:
        """Count `rows` more; `note` is a short word on the state (the loss, the metric)."""


class Progress(ABC):
    """Where work reports how far it is."""

    @abstractmethod
    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
        """A bar over `total` rows, or other units (None: not known)."""

    @abstractmethod
    def say(self, text: str) -> None:
        """A line that stays: a warning, a result."""


class Silent(Progress, Bar):
    """Reports nothing: for the library and the tests."""

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
        """A bar that nobody sees."""
        yield self

    def advance(self, rows: int, note: str = "") -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class Within(Progress):
    """Counts all that reports to it on one bar: work in parts, with one time left."""

    def __init__(self, bar: Bar, progress: Progress) -> None:
        self._bar, self._progress = bar, progress

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
        """The one bar, whatever is asked for."""
        yield self._bar

    def say(self, text: str) -> None:
        """Pass the line on."""
        self._progress.say(text)


class Terminal(Progress):
    """Bars on a terminal with rows/s and time left; plain lines where the output is a file."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = RichBars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}", style="cyan"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
            transient=True,
        )
        self._open = 0

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
        """A bar on the screen for as long as the block lasts; without a terminal, a line now and one with each note."""
        if not self.console.is_terminal:
            self.say(label)
            yield _Lines(self, label, total, unit)
            return
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(label, total=total, unit=unit, speed="", note="")
        try:
            yield _TerminalBar(self._bars, task)
        finally:
            self._bars.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class _TerminalBar(Bar):
    def __init__(self, bars: RichBars, task: int) -> None:
        self._bars, self._task = bars, task

    def advance(self, rows: int, note: str = "") -> None:
        state = next(t for t in self._bars.tasks if t.id == self._task)
        unit = state.fields["unit"]
        speed = f"{state.speed:,.0f} {unit}/s" if state.speed and unit == "rows" else ""
        self._bars.update(state.id, advance=rows, speed=speed, note=note or state.fields["note"])


class _Lines(Bar):
    """For log files: a line whenever there is something to note, and where there long was not."""

    def __init__(self, progress: Progress, label: str, total: int | None, unit: str) -> None:
        self._progress, self._label, self._unit = progress, label, unit
        self._total, self._end = "" if total is None else f" of {total:,}", total
        self._done, self._before = 0, -1
        self._began = self._said = time.monotonic()

    def advance(self, rows: int, note: str = "") -> None:
        self._done += rows
        if self._before < 0:
            self._before = self._done  # what comes first was done before: a resumed training says where it stands
        now = time.monotonic()
        if note or now - self._said > _QUIET:
            self._said = now
            speed = (self._done - self._before) / max(now - self._began, 1e-9)
            pace = f"{speed:,.0f} rows/s"
            if self._unit != "rows":  # few and long ones
                pace = "" if self._end is None or not speed else f"{_clock((self._end - self._done) / speed)} left"
            done = ", ".join(part for part in (f"{self._done:,}{self._total} {self._unit}", pace, note) if part)
            self._progress.say(f"{self._label}: {done}")


def _clock(seconds: float) -> str:
    """`0:03:20`."""
    return str(timedelta(seconds=round(seconds)))


class Sent(Progress, Bar):
    """Sends events to another process, which shows them."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
        """A bar in the process that listens."""
        self._send(("open", label, total, unit))
        try:
            yield self
        finally:
            self._send(("close",))

    def advance(self, rows: int, note: str = "") -> None:
        """Send the count on."""
        self._send(("advance", rows, note))

    def say(self, text: str) -> None:
        """Send the line on."""
        self._send(("say", text))
