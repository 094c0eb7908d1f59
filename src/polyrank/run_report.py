"""The page of one training: how well each task does, how it got there, and what the balancer did meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyrank.charts.history import balance_panels, lines_figure
from polyrank.page import METRICS, check_document, drawn, number_text, render
from polyrank.plots import Panel, display_name


def run_html(run: Mapping[str, Any]) -> str:
    """The page of a run.

    Args:
        run: `format` 1; `tasks`, a list with each task's `name` and `metric`; and as far as known `title`, `created`,
            `command`, `architecture`, `balancer`, `metric` (what the best checkpoint was chosen by), `metrics` (what
            `metrics.json` holds) and `history` (see `polyrank.training.history.read_history`).

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: another format, or tasks without names.
    """
    check_document(run, "run", ("tasks",))
    tasks = [task["name"] for task in run["tasks"]]
    history = run.get("history") or {}
    measured = (run.get("metrics") or {}).get("tasks") or {}
    known = {key for found in measured.values() for key, value in (found or {}).items() if value is not None}
    return render(
        "run.html",
        run=run,
        architecture=display_name(str(run.get("architecture") or "")),
        columns={key: name for key, name in METRICS.items() if key in known},
        curves=_curve_panels(history, run["tasks"]),
        balance=balance_panels(history.get("balance") or {}, tasks),
        best=_best(history),
    )


def _curve_panels(history: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Validation metric and training loss of every task; the dotted line is the kept checkpoint."""
    rows, best = history.get("rows") or [], _best(history)
    panels = []
    for task in tasks:
        name, metric = task["name"], str(task.get("metric") or "metric")
        for part, note in (
            ("valid", f"{METRICS.get(metric, metric)} on validation data"),
            ("train_loss", "training loss"),
        ):
            values = (history.get(part) or {}).get(name) or []
            figure = lines_figure(rows, {name: values}, best=None if best is None else best["rows"])
            panels.append(Panel(name, note, figure.update_layout(showlegend=False)))
    return drawn(panels)


def _best(history: Mapping[str, Any]) -> dict[str, Any] | None:
    """The evaluation at which the kept checkpoint was written: the last of those that were the best so far."""
    kept = [index for index, best in enumerate(history.get("best") or []) if best]
    if not kept:
        return None
    found = {key: (history.get(key) or [])[kept[-1]] for key in ("rows", "step", "metric")}
    return found | {"text": number_text(found["metric"])}
