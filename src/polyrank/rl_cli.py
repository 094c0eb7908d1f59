"""`polyrank fuse rl` and `polyrank ope`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from polyrank.options import Config, Resume, Sets, check_config, command_line, out_console
from polyrank.progress import Terminal

_COLOURS = {"gain": "green", "loss": "red", "tie": ""}
_VERDICTS = {"proven": "[bold green]proven[/]", "unproven": "[bold]not proven[/]", "unsafe": "[bold red]unsafe[/]"}


def rl(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where to write policy/, rl.json and report.html.")],
    set_: Sets = None,
    resume: Resume = False,
) -> None:
    """Learn fusion weights that follow the state from a session log, and prove them on sessions set aside.

    The config's section [bold]rl[/] names the log and the method; no other
    section is needed, so that an empty file and --set will do:

        --set rl.log=sessions.parquet --set rl.method=batchrl_mtf

    A log is a Parquet file of session_id, step, state, action,
    behavior_log_density, reward, done, and any signal_<name>: [bold]rl.reward[/]
    may make the reward of signals. A method's own knobs stand in
    [bold]rl.<method>[/]. The policy is estimated beside its matched static formula.
    """
    check_config(config, set_)
    from polyrank import rl_experiment

    found = rl_experiment.fuse_rl(config, set_ or [], out, resume=resume, command=command_line(), progress=Terminal())
    print_policy(found)
    advice = f"policy: {out / 'policy'}\nreport: {(out / 'report.html').resolve()}"
    out_console.print(f"\n{advice}", markup=False, soft_wrap=True)


def ope(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="A directory of polyrank fuse rl, or its policy/.")],
    log: Annotated[Path, typer.Argument(metavar="LOG", help="A session log (Parquet) that did not teach the policy.")],
    out: Annotated[Path | None, typer.Option(help="Also write ope.json and report.html into this directory.")] = None,
    users: Annotated[str, typer.Option(metavar="SIGNAL", help="The signal that names a session's user.")] = "",
    cohort: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Tell lifts apart by state:<number> or signal:<name>. May be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the estimators, e.g. gamma=0.9, steps=2000."),
    ] = None,
) -> None:
    """What would this policy have earned? Every estimator that applies, with intervals, or why it has no answer.

    Of a step's reward: kernel IS, SNIS, DR and the direct method. Of a
    session's return: PDIS, WIS, weighted PDIS, weighted DR, FQE, and FQE with
    a penalty for what the log does not show. Beside it stands its matched
    static formula. The reward and γ are those that the policy was learned with.
    """
    from polyrank import rl_experiment

    found = rl_experiment.ope(
        policy,
        log,
        set_ or [],
        out,
        users=users,
        cohorts=cohort or [],
        command=command_line(),
        progress=Terminal(),
    )
    print_policy(found)
    if out is not None:
        out_console.print(f"\nreport: {(out / 'report.html').resolve()}", markup=False, soft_wrap=True)


def print_policy(document: dict[str, Any]) -> None:
    """The estimates and the checks of a policy."""
    from polyrank.charts.policy import TITLES
    from polyrank.fusion.compared import unit_of

    estimates = document["estimates"]
    (name, found), (static, its) = estimates["policies"].items()
    for unit in ("session", "step"):
        rows = {key: entry for key, entry in found.items() if unit_of(key) == unit}
        what = "return of a session" if unit == "session" else "reward of a step"
        own = estimates["log"][unit]
        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
        for heading in (what, name, static, "Δ static", "Δ log", "effective"):
            first = heading == what
            table.add_column(heading, justify="left" if first else "right", no_wrap=first)
        table.add_row("the log", _two(own), style="dim")
        for key, entry in rows.items():
            lifts = [_two(estimates["lifts"][name][other].get(key), signed=True) for other in (static, "log")]
            effective = "" if entry["effective"] is None else f"{entry['effective']:,.0f}"
            table.add_row(TITLES[key], _two(entry), _two(its.get(key)), *lifts, effective)
        if rows:
            out_console.print(table)
            out_console.print()
    refusals: dict[str, list[str]] = {}
    for key, entry in found.items():
        if entry["refusal"]:
            refusals.setdefault(entry["refusal"], []).append(TITLES[key])
    for refusal, names in refusals.items():
        out_console.print(f"[dim]refused: {', '.join(names)}: {escape(refusal)}[/]", soft_wrap=True)
    for check in document["checks"]:
        mark = "[green]✓[/]" if check["passed"] else "[red]✗[/]" if check["unsafe"] else "[dim]–[/]"
        out_console.print(f"{mark} {check['name']}: {escape(check['text'])}", soft_wrap=True)
    for note in document["notes"]:
        out_console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    out_console.print(f"verdict: {_VERDICTS[document['verdict']]}")


def print_truth(document: dict[str, Any], out: Path) -> None:
    """What the policy of the demo is really worth."""
    logged, judged = document["log"]["sessions"], document["sessions"]
    what = f"a simulated feed, mode {document['mode']}: {document['method']} learned from {logged:,} logged sessions"
    out_console.print(what, style="bold", soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for heading in (f"true return of a session, over {judged:,}", "mean", "gain over best static"):
        table.add_column(heading, justify="left" if "true" in heading else "right")
    table.add_row("the log, while it explored", f"{document['log']['mean']:.3f}", "", style="dim")
    for name, entry in document["values"].items():
        gain = f"{entry['gain']:+.3f} \\[{entry['low']:+.3f}, {entry['high']:+.3f}]" if "gain" in entry else ""
        table.add_row(name, f"{entry['mean']:.3f}", gain)
    out_console.print(table)
    share = document["captured"]
    if share is not None:
        out_console.print(f"captured: {share:.0%} of what the oracle gains over the best static weights")
    out_console.print(f"from the log alone, without the simulator: {_VERDICTS[document['verdict']]}")
    again = f"polyrank fuse rl {out / 'rl.toml'} --out DIR"
    report = (out / "policy/report.html").resolve()
    out_console.print(f"\nreport: {report}\nagain, with another method: {again} --set rl.method=…", soft_wrap=True)


def _two(entry: dict[str, Any] | None, *, signed: bool = False) -> str:
    """A number and, below it, its interval."""
    number = (entry or {}).get("mean" if signed else "value")
    if entry is None or number is None:
        return "refused" if entry and entry.get("refusal") else "–"
    sign = "+" if signed else ""
    text = f"{number:{sign}.4g}\n[dim]\\[{entry['low']:{sign}.4g}, {entry['high']:{sign}.4g}][/]"
    colour = _COLOURS.get(entry.get("verdict") or "", "")
    return f"[{colour}]{text}[/]" if colour else text
