"""What the commands share: arguments that several take, and numbers as they are printed."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Config = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="An experiment file (TOML): \\[data], \\[model], \\[train] …")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any key, e.g. --set train.seed=3. May be repeated."),
]
# Typer would write "<bool>" beside a flag; an empty metavar keeps it from that.
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Go on with what an earlier call left in the directory.")
]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A Parquet, CSV or Feather file, a directory, a glob, or builtin:census.")
]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="A directory that polyrank train made.")]

out_console = Console(highlight=False)


def check_config(path: Path, assignments: list[str] | None) -> None:
    """Say what is wrong with the file itself before torch is imported, which takes seconds."""
    from polyrank.config import override, read_toml

    override(read_toml(path), assignments or [])


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["polyrank", *sys.argv[1:]])


def print_title(text: str) -> None:
    """A line above a table. Not the table's own title: that would break where the table is narrower than a path."""
    out_console.print(text, style="italic", markup=False, soft_wrap=True)


def plain_table(title: str | None = None) -> Table:
    """A table of columns without lines; its title stands left."""
    return Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)


def verdict_of(delta: dict[str, Any] | None) -> str:
    """`gain`, `loss` or `tie` in its colour; empty where it was not measured."""
    colours, verdict = {"gain": "green", "loss": "red", "tie": "dim"}, (delta or {}).get("verdict")
    return f"[{colours[verdict]}]{verdict}[/]" if verdict else ""


def delta_of(delta: dict[str, Any] | None) -> str:
    """`+0.0012 [−0.0003, +0.0027]`; empty where it was not measured."""
    if delta is None or delta["mean"] is None:
        return ""
    interval = "" if delta["low"] is None else f" \\[{delta['low']:+.4f}, {delta['high']:+.4f}]"
    return f"{delta['mean']:+.4f}{interval}"


def text_of(value: Any) -> str:
    """A number, an interval, or a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return "–".join(f"{inner:,.0f}" if abs(inner) >= 1_000 else f"{inner:.3f}" for inner in value)
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4f}"
