import io
import re

import pytest
from rich.console import Console

from polyrank.progress import Event, Sent, Silent, Terminal, Within


def test_a_file_gets_plain_lines_and_one_for_each_note() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, width=40))

    with terminal.bar("fitting", 10) as outer:
        outer.advance(2)
        outer.advance(3, "loss 0.1")
        with terminal.bar("logs/day[1].parquet", None) as inner:
            inner.advance(1)
        terminal.say("warning: [x] leaks into a very long line that stays one line")

    lines = out.getvalue().splitlines()
    assert lines[0] == "fitting"
    assert re.fullmatch(r"fitting: 5 of 10 rows, [\d,]+ rows/s, loss 0\.1", lines[1])
    assert lines[2:] == ["logs/day[1].parquet", "warning: [x] leaks into a very long line that stays one line"]


def test_few_long_units_tell_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    with Terminal(Console(file=out, width=40)).bar("trials", 10, unit="trials") as bar:
        bar.advance(2)  # were there before
        clock[0] += 120
        bar.advance(2, "best 0.9")
        bar.advance(6, "best 0.9")

    assert out.getvalue().splitlines()[1:] == [
        "trials: 4 of 10 trials, 0:06:00 left, best 0.9",
        "trials: 10 of 10 trials, 0:00:00 left, best 0.9",
    ]


def test_a_file_is_told_something_at_least_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    with Terminal(Console(file=out, width=40)).bar("evolving", 100, unit="generations") as bar:
        for _ in range(25):
            clock[0] += 1
            bar.advance(1)

    assert out.getvalue().splitlines()[1:] == [
        "evolving: 11 of 100 generations, 0:01:38 left",
        "evolving: 22 of 100 generations, 0:01:22 left",
    ]


def test_a_terminal_shows_bars_and_clears_them() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, width=100, force_terminal=True))

    for label in ("first", "day[1].csv"):  # a terminal can be used again after its bars have closed
        with terminal.bar(label, 10) as bar:
            bar.advance(4, "loss [0.1]")
            with terminal.bar("inner", None) as inner:
                inner.advance(1)
    assert all(text in out.getvalue() for text in ("first", "day[1].csv", "inner", "loss [0.1]", "40%"))
    with pytest.raises(KeyError), terminal.bar("broken", 10):
        raise KeyError
    assert terminal._bars.tasks == []
    assert not terminal._bars.live.is_started


def test_sent_events_are_plain_and_in_order() -> None:
    events: list[Event] = []
    sent = Sent(events.append)

    with sent.bar("train", 8) as bar:
        bar.advance(3, "auc 0.7")
        sent.say("line")

    assert events == [("open", "train", 8, "rows"), ("advance", 3, "auc 0.7"), ("say", "line"), ("close",)]
    assert all(type(part) in (str, int) for event in events for part in event)


def test_sent_bar_closes_when_the_work_fails() -> None:
    events: list[Event] = []

    with pytest.raises(ValueError, match="work"), Sent(events.append).bar("train", None):
        raise ValueError("work")

    assert events == [("open", "train", None, "rows"), ("close",)]


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent().bar("train", 1) as bar:
        bar.advance(1, "x")
    Silent().say("line")

    assert capsys.readouterr() == ("", "")


def test_work_in_parts_counts_on_one_bar():
    said = []

    class Recorder(Silent):
        def advance(self, rows, note=""):
            said.append(rows)

        def say(self, text):
            said.append(text)

    whole = Recorder()
    inner = Within(whole, whole)
    with inner.bar("a part", 3) as bar:
        bar.advance(2)
    inner.say("note")
    assert said == [2, "note"]
