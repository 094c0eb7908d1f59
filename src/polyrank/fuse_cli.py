"""`polyrank fuse …` and `polyrank calibrate`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from polyrank.options import (
    Config,
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

fuse_app = typer.Typer(no_args_is_help=True, help="From several predictions to one ranking: search, learn, attach.")


def calibrate(
    run: RunDirectory,
    method: Annotated[
        str, typer.Option(help="isotonic, platt, temperature, beta; none corrects down-sampling alone.")
    ] = "isotonic",
    negative_rate: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=SHARE", help="The share of its negatives that training kept. May be repeated."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Fit on this data; the run's validation data where not given.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Show it on this data; the run's test data where not given.")] = None,
) -> None:
    """Make predictions mean what they say: fitted on validation data, applied by score and fuse from then on."""
    from polyrank import experiment

    document = experiment.calibrate(run, _method(method), _rates(negative_rate or []), data, test, progress=Terminal())
    _print_calibration(document)
    out_console.print(f"\nreport: {(run / 'calibration.html').resolve()}", markup=False, soft_wrap=True)


@fuse_app.command()
def search(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where to write fusion.json, the trials and report.html.")],
    set_: Sets = None,
    resume: Resume = False,
) -> None:
    """Search the weights of a formula: chosen on validation data, reported on test data.

    The config's section fusion says what is fused, and what is wanted of a list:

        run = "runs/ple"                    # a finished run; calibrate it first
        formula = "log_sum"                 # ple, weighted_sum, product_plus,
                                            # ensemble_sort, ecommerce, or your own
        request = ["user_id", "day"]        # rows of one list; else the group
        negative = ["hate"]                 # tasks that speak against a candidate
        current = "click * like^0.2"        # the formula in production
        reward.weights = { click = 1.0, like = 5.0 }
        search.trials = 300

    A formula of your own has parameters: "click * like^w", and
    parameters.w = { value = 1.0, low = 0.1, high = 10.0 }. Ctrl-C keeps all
    trials; resumed, the search goes on.
    """
    check_config(config, set_)
    from polyrank import experiment

    found = experiment.fuse_search(config, set_ or [], out, resume=resume, command=command_line(), progress=Terminal())
    _print_fusion(found)
    advice = f"report: {(out / 'report.html').resolve()}\nattach it: polyrank fuse attach {found['run']} {out}"
    out_console.print(f"\n{advice}", markup=False, soft_wrap=True)


@fuse_app.command()
def learn(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where to write the rankers, learned.json and report.html.")],
    set_: Sets = None,
    resume: Resume = False,
) -> None:
    """Train rankers over the predictions: trained and chosen on validation data, reported on test data.

    Beside what fuse search reads, the config's section fusion says:

        reward.weights = { click = 1.0, like = 5.0 }    # what they learn
        learn.rankers = ["lambdarank", "monotone", "listwise"]
        learn.context = ["video_seconds"]               # columns they may use
        learn.against = "runs/fused"                    # a search to beat

    Rankers that are trained are kept; resumed, only the others are.
    """
    check_config(config, set_)
    from polyrank import experiment

    found = experiment.fuse_learn(config, set_ or [], out, resume=resume, command=command_line(), progress=Terminal())
    _print_fusion({"judged": found, "reference": found["reference"], "formulas": {}, "notes": found["notes"]})
    advice = f"report: {(out / 'report.html').resolve()}\nattach it: polyrank fuse attach {found['run']} {out}"
    out_console.print(f"\n{advice}", markup=False, soft_wrap=True)


@fuse_app.command()
def attach(
    run: RunDirectory,
    fusion: Annotated[str, typer.Argument(help="A directory of fuse search or learn, or a formula in quotes.")],
    request: Annotated[
        list[str] | None, typer.Option(help="A column that names a request, where ranks matter. May be repeated.")
    ] = None,
) -> None:
    """Make a fusion the score of polyrank score RUN."""
    from polyrank import experiment

    attached = experiment.fuse_attach(run, fusion, request or [])
    made = attached.fusion
    reads = f"the predictions of {', '.join(made.heads)}"
    if made.context:
        reads += f"; the columns {', '.join(made.context)} of the data"
    if made.within_request:
        reads += f"; rows of one {', '.join(attached.request)} together"
    lines = [f"score: {made if made.kind == 'formula' else made.kind}", f"it reads {reads}"]
    lines.append(f"next: polyrank score {run} --data DATA --out scores.parquet")
    out_console.print("\n".join(lines), markup=False, soft_wrap=True)


def _method(name: str) -> Any:
    from polyrank.config import nearest
    from polyrank.errors import ConfigError
    from polyrank.fusion.calibration import METHODS

    if name not in (*METHODS, "none"):
        raise ConfigError("--method must be known", received=name, mend=nearest(name, [*METHODS, "none"]))
    return name


def _rates(assignments: list[str]) -> dict[str, float]:
    from polyrank.errors import ConfigError

    rates = {}
    for assignment in assignments:
        task, _, text = assignment.partition("=")
        try:
            rates[task] = float(text)
        except ValueError:
            raise ConfigError(
                "--negative-rate takes TASK=SHARE", received=assignment, mend="for instance --negative-rate click=0.1"
            ) from None
    return rates


def _print_calibration(document: dict[str, Any]) -> None:
    for part, found in document["shown"].items():
        print_title(f"{found['data']}, {'other rows' if part == 'judged' else 'the rows it was fitted on'}")
        table = plain_table()
        for heading in ("task", "rows", "ECE before", "after", "AUC before", "after"):
            table.add_column(heading, justify="left" if heading == "task" else "right")
        for task, entry in found["tasks"].items():
            numbers = [entry[when][key] for key in ("ece", "auc") for when in ("before", "after")]
            table.add_row(escape(task), f"{entry['rows']:,}", *("–" if n is None else f"{n:.5f}" for n in numbers))
        out_console.print(table)


def _print_fusion(document: dict[str, Any]) -> None:
    judged = document["judged"]
    print_title(f"on test rows, Δ against the {document['reference']}")
    table = plain_table()
    for heading in ("order", "composite", "Δ", "verdict", "reward NDCG", "MTF-GAUC"):
        table.add_column(
            heading, justify="left" if heading in ("order", "verdict") else "right", no_wrap=heading == "Δ"
        )
    for ranking in judged["rankings"]:
        value, ndcg, mtf = (
            text_of(ranking["metrics"].get(metric, {}).get(of, {}).get("value"))
            for metric, of in (("composite", "gauc"), ("ndcg", "reward"), ("mtf_gauc", "reward"))
        )
        delta, style = ranking["against"].get("composite", {}).get("gauc"), "dim" if ranking["corner"] else ""
        table.add_row(escape(ranking["name"]), value, delta_of(delta), verdict_of(delta), ndcg, mtf, style=style)
    out_console.print(table)
    out_console.print()
    for name, text in document["formulas"].items():
        out_console.print(f"{name}: {text}", markup=False, soft_wrap=True)
    for note in document["notes"]:
        out_console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
