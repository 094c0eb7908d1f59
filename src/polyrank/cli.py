"""The command line: arguments → one verb; prints; exit codes (0 done, 1 failed, 2 wrong usage or bad input)."""

import json
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from polyrank.allocator import keep_memory
from polyrank.errors import Interrupted, PolyrankError
from polyrank.fuse_cli import calibrate, fuse_app
from polyrank.options import (
    Config,
    Data,
    Resume,
    RunDirectory,
    Sets,
    check_config,
    command_line,
    delta_of,
    out_console,
    plain_table,
    print_title,
    text_of,
    verdict_of,
)
from polyrank.progress import Terminal
from polyrank.rl_cli import ope, print_truth, rl
from polyrank.simulate_cli import simulate_app

_AFTERWARDS = "nothing half-written was left behind; a command that takes --resume goes on by it from what is done"


class _Commands(TyperGroup):
    """Turns ctrl-C into an error of ours before Typer sees it: what that makes of it differs between versions."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("the command was interrupted", mend=_AFTERWARDS) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Multi-task recommendation ranking: train the tasks together, and see who paid for whose gain.

    Start with [bold]polyrank demo[/]: it compares shared models with single-task ones on built-in data and ends with a
    report. With your own logs: [bold]polyrank data infer LOG.parquet --out schema.toml[/], edit the schema, write a
    config of a few lines, then [bold]polyrank compare CONFIG --out DIR[/].""",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data: propose a schema, draw a profile.")
app.add_typer(data_app, name="data")
app.add_typer(simulate_app, name="simulate")
app.add_typer(fuse_app, name="fuse")
app.command()(calibrate)
fuse_app.command()(rl)
app.command()(ope)


def _show_version(asked: bool) -> None:
    if asked:
        out_console.print(f"polyrank {version('polyrank')}", markup=False)
        raise typer.Exit


@app.callback()
def polyrank(
    version_: Annotated[
        bool, typer.Option("--version", metavar="", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Options that need no command; the help text is that of `app`."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to write runs, seesaw.json and report.html.")] = Path("runs/demo"),
    set_: Sets = None,
    resume: Resume = False,
) -> None:
    """The tour: shared models against single-task ones on built-in data; then a policy from simulated sessions.

    Act one is the seesaw study, with its report. Act two logs sessions of a
    simulated feed, learns fusion weights that follow the user from that log
    alone, and tells what they are worth against the best static weights and
    an oracle, which only a simulator knows. --set rl.method=batchrl_mtf and
    the like are for act two, all others for act one.
    """
    from polyrank import experiment
    from polyrank.rl_demo import policy_demo

    one, two = ([each for each in set_ or [] if each.startswith("rl.") == second] for second in (False, True))
    study = experiment.demo(out, one, resume=resume, command=command_line(), progress=Terminal())
    _print_study(study, out)
    out_console.print()
    print_truth(policy_demo(out / "sessions", two, resume=resume, progress=Terminal()), out / "sessions")


@app.command()
def compare(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where to write runs, seesaw.json and report.html.")],
    set_: Sets = None,
    resume: Resume = False,
) -> None:
    """The seesaw study: every architecture × balancer × seed against single-task models and LightGBM.

    The config's section compare says what is compared: architectures,
    balancers, seeds. Models are paired with single-task ones by seed, and
    judged on test data that selected nothing: a verdict per task.
    """
    check_config(config, set_)
    from polyrank import experiment

    study = experiment.compare(config, set_ or [], out, resume=resume, command=command_line(), progress=Terminal())
    _print_study(study, out)


@app.command()
def tune(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where to write trials, tune.json, report.html and best.toml.")],
    set_: Sets = None,
    trials: Annotated[
        int, typer.Option(metavar="N", min=0, help="How many trials there shall be in the end; 0: tune.trials.")
    ] = 0,
    resume: Resume = False,
) -> None:
    """Search for loss weights and other settings on validation data; report the best, or the front, on test data.

    The config's section tune says what is maximised and what may vary:

        objectives = ["click", "like"]      # two or more: their Pareto front
        space.balance.static.weights.like = { low = 0.1, high = 10.0, log = true }
        space.train.learning_rate = { low = 3e-4, high = 1e-2, log = true }
        space.model.architecture = { choices = ["mmoe", "ple"] }

    Without a space: the tasks' loss weights, the learning rate, and the
    embeddings' dropout. The first trial is the config as it is. Ctrl-C keeps
    all trials; resumed, the search goes on, also with the trial that was cut
    off, and with --trials 80 one of 50 is made longer.
    """
    check_config(config, set_)
    from polyrank import experiment

    found = experiment.tune(
        config, set_ or [], out, trials=trials, resume=resume, command=command_line(), progress=Terminal()
    )
    _print_search(found, out)


@app.command()
def train(
    config: Config,
    out: Annotated[Path, typer.Option(help="The run directory to make.")],
    set_: Sets = None,
    resume: Resume = False,
    warm_start: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Add the schema's further tasks to the model of this finished run: its vocabularies, embeddings, "
            "experts and towers are taken over.",
        ),
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze", metavar="", help="With --warm-start: train the new tasks alone; the old ones keep every bit."
        ),
    ] = False,
) -> None:
    """Train one ranker; its best checkpoint, history, metrics and report.html are in the run directory."""
    sets = list(set_ or [])
    if warm_start is not None:
        sets.append(f"train.warm_start={json.dumps(str(warm_start.absolute()), ensure_ascii=False)}")
    if freeze:
        sets.append("train.freeze=shared")
    check_config(config, sets)
    from polyrank import experiment

    document = experiment.train(config, sets, out, resume=resume, progress=Terminal())
    _print_metrics(document)
    out_console.print(f"\nrun: {out}\nreport: {(out / 'report.html').resolve()}", markup=False, soft_wrap=True)


@app.command()
def evaluate(
    run: RunDirectory,
    data: Annotated[
        str,
        typer.Option(help="Labelled data: a Parquet, CSV or Feather file, a directory, a glob, builtin:census/test."),
    ],
    out: Annotated[Path | None, typer.Option(help="Also write the metrics to this JSON file.")] = None,
) -> None:
    """Measure a run on labelled data, each task on its own rows."""
    from polyrank import experiment

    _print_metrics(experiment.evaluate(run, data, out, progress=Terminal()))


@app.command()
def score(
    run: RunDirectory,
    data: Annotated[
        str, typer.Option(help="A file, directory or glob with the run's features; labels are not needed.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="The Parquet file to write, in input order: p_<task>, and joint_<task> with given."),
    ],
) -> None:
    """Predict every row, in input order."""
    from polyrank import experiment

    rows = experiment.score(run, data, out, progress=Terminal())
    out_console.print(f"{rows:,} rows scored: {out}", markup=False, soft_wrap=True)


@data_app.command()
def infer(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="The schema file to write; printed where not given.")] = None,
) -> None:
    """Propose a commented schema.toml for your logs; read it, edit it."""
    from polyrank import experiment

    text = experiment.infer(data, out, progress=Terminal())
    if out is None:
        sys.stdout.write(text)
    else:
        advice = f"Read it, correct it, then: polyrank data profile {data} --schema {out}"
        out_console.print(f"schema: {out}\n{advice}", markup=False, soft_wrap=True)


@data_app.command()
def profile(
    data: Data,
    schema: Annotated[str, typer.Option(help="The schema file; inferred where not given.")] = "",
    valid: Annotated[
        str | None, typer.Option(help="Validation data: shows which values training has not seen.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("profile.html"),
) -> None:
    """Draw a page: label funnel, missing labels, correlations, cardinalities, unseen values, leaks."""
    from polyrank import experiment

    found = experiment.make_profile(data, schema, valid, out, progress=Terminal())
    for warning in found["warnings"]:
        out_console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    out_console.print(f"profile: {out}", markup=False, soft_wrap=True)


def main() -> None:
    """Run a command; a user's mistake gives one message and no traceback."""
    errors = Console(stderr=True, highlight=False)
    keep_memory()
    try:
        app()
    except PolyrankError as error:
        errors.print("[bold red]error:[/] ", end="")
        errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001  # the last resort: a bug of ours, or of a library's
        errors.print(traceback.format_exc(), markup=False)
        errors.print("[bold red]error:[/] this is a bug in polyrank; please report it with the lines above")
        sys.exit(1)


def _print_metrics(document: dict[str, Any]) -> None:
    print_title(f"{document['data']}: {document['rows']:,} rows")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for task in document["tasks"]:
        table.add_column(escape(task), justify="right", overflow="fold")
    joint = {f"{task}, joint": metrics for task, metrics in document.get("joint", {}).items()}
    columns = [*document["tasks"].values(), *joint.values()]
    for task in joint:
        table.add_column(escape(task), justify="right", overflow="fold")
    for name in dict.fromkeys(key for metrics in columns for key in metrics):
        table.add_row(name, *(text_of(metrics.get(name)) for metrics in columns))
    out_console.print(table)


def _print_study(study: dict[str, Any], out: Path) -> None:
    for task in study["tasks"]:
        name, metric = task["name"], task["metric"].upper()
        table = plain_table(f"[bold]{escape(name)}[/]")
        table.add_column("model", overflow="fold")  # where the terminal is narrow, names break and not numbers
        for heading in (f"test {metric}", "Δ single-task", "verdict", "Δ LightGBM"):
            table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
        for reference, found in study["references"].items():
            table.add_row(reference, _spread(found[name]), "", "", "", style="dim")
        for model in study["models"]:
            found = model["tasks"][name]
            single, boosted = found["delta"]["single_task"], found["delta"].get("lightgbm")
            above = "" if boosted is None or boosted["mean"] is None else f"{boosted['mean']:+.4f}"
            table.add_row(model["name"], _spread(found), delta_of(single), verdict_of(single), above)
        out_console.print(table)
        out_console.print()
    costs = plain_table()
    for heading in ("cost", "parameters", "train seconds", "peak memory", "model size"):
        costs.add_column(heading, justify="left" if heading == "cost" else "right")
    references = {"single_task": "single-task, all", "lightgbm": "LightGBM, all"}
    rows = [(references[name], cost) for name, cost in study["costs"].items()]
    for name, cost in [*rows, *((model["name"], model["cost"]) for model in study["models"])]:
        parameters = f"{cost['parameters']:,}" if "parameters" in cost else "–"
        memory, size = cost["peak_memory_bytes"] / 2**20, cost["model_bytes"] / 2**20
        costs.add_row(name, parameters, f"{cost['train_seconds']:.1f}", f"{memory:,.0f} MiB", f"{size:.2f} MiB")
    out_console.print(costs)
    out_console.print()
    for note in study["notes"]:
        out_console.print(f"[dim]note: {note}[/]", soft_wrap=True)
    out_console.print(f"\nreport: {(out / 'report.html').resolve()}", markup=False, soft_wrap=True)


def _print_search(found: dict[str, Any], out: Path) -> None:
    table = plain_table()
    table.add_column("trial")
    for task in found["tasks"]:
        for heading in (f"{task['name']}, test {task['metric'].upper()}", "Δ config"):
            table.add_column(escape(heading), justify="right")
    baseline = found["baseline"]
    for number in dict.fromkeys([*([] if baseline is None else [baseline]), *found["chosen"]]):
        cells = []
        for task in found["tasks"]:
            gap = found["against_config"].get(str(number), {}).get(task["name"])
            cells += [text_of(found["test"][str(number)][task["name"]][task["metric"]]), delta_of(gap)]
        table.add_row(f"{number}, the config" if number == baseline else str(number), *cells)
    out_console.print(table)
    out_console.print()
    if len(found["objectives"]) == 1:
        out_console.print(f"best config: {(out / 'best.toml').resolve()}", markup=False, soft_wrap=True)
    out_console.print(f"report: {(out / 'report.html').resolve()}", markup=False, soft_wrap=True)


def _spread(found: dict[str, Any]) -> str:
    std = "" if found["std"] is None else f" ± {found['std']:.4f}"
    return f"{text_of(found['mean'])}{std}"


if __name__ == "__main__":
    main()
