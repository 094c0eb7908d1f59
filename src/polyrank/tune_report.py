"""The page of a search: what was found, judged on test data; how the trials went; what each setting did."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyrank.charts.fronts import Point, front_figure
from polyrank.charts.search import (
    evaluations_figure,
    importance_figure,
    parallel_trials_figure,
    progress_figure,
    slice_figure,
)
from polyrank.page import METRICS, check_document, drawn, render
from polyrank.plots import ACCENT, INK, REFERENCE, Panel, Stroke


def tune_html(search: Mapping[str, Any]) -> str:
    """The page of a search.

    Args:
        search: The parsed `tune.json`, format 1. `trials` and `objectives` must be there; a section whose numbers are
            missing is left out.

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: another format, or trials or objectives without names.
    """
    check_document(search, "tune.json", ("trials", "objectives"))
    trials, space, tasks = search["trials"], search.get("space") or {}, search.get("tasks") or []
    names = [objective["name"] for objective in search["objectives"]]
    titles = [title_of(objective) for objective in search["objectives"]]
    states = [trial["state"] for trial in trials]
    return render(
        "tune.html",
        search={**search, "space": space, "tasks": tasks},
        titles=titles,
        counts={state: states.count(state) for state in ("complete", "pruned", "fail")},
        judged=_judged(search),
        metrics={
            task["name"]: METRICS.get(task.get("metric"), task.get("metric")) for task in search.get("tasks") or []
        },
        front=_front(search, titles),
        progress=drawn(Panel(title, "", progress_figure(trials, i)) for i, title in enumerate(titles)),
        evaluations=drawn([Panel("While they trained", "dotted: pruned", evaluations_figure(trials))]),
        parallel=drawn(
            Panel(f"Settings and {title}", "the darker, the better", parallel_trials_figure(trials, space, names, i))
            for i, title in enumerate(titles[:1])
        ),
        importance=drawn(
            Panel(title, "", importance_figure((search.get("importance") or {}).get(name) or {}))
            for name, title in zip(names, titles, strict=True)
        ),
        slices=drawn(
            Panel(key, title if len(titles) > 1 else "", slice_figure(trials, span, key, i))
            for key, span in space.items()
            for i, title in enumerate(titles)
        ),
    )


def title_of(objective: Mapping[str, Any]) -> str:
    """`like (AUC)`, or `mean over tasks`, which has no metric of its own."""
    metric, name = str(objective.get("metric") or ""), str(objective["name"])
    return f"{name} ({METRICS.get(metric, metric)})" if metric else f"{name} over tasks"


def _front(search: Mapping[str, Any], titles: Sequence[str]) -> list[Panel]:
    """The Pareto picture of complete trials, the front numbered, the config as it was among them.

    A search tries poor settings too, beside which the front would be a single point: trials below the lower quartile of
    an objective are left out, and counted.
    """
    chosen, baseline = search.get("chosen") or [], search.get("baseline")
    complete = [trial for trial in search["trials"] if trial["state"] == "complete" and trial.get("values")]
    floors = [sorted(column)[len(column) // 4] for column in zip(*(t["values"] for t in complete), strict=True)]
    points, left_out = [], 0
    for trial in complete:
        number, values = trial["number"], trial["values"]
        if number in chosen:
            points.append(Point(f"trial {number}", values, "front", Stroke(ACCENT, ""), str(number)))
        elif number == baseline:
            points.append(Point(f"trial {number}, the config", values, "reference", Stroke(INK, ""), "config"))
        elif any(value < floor for value, floor in zip(values, floors, strict=True)):
            left_out += 1
        else:
            points.append(Point(f"trial {number}", values, "dominated", Stroke(REFERENCE, "")))
    note = "on validation data" + (f"; {left_out} of the poorest left out" if left_out else "")
    return drawn([Panel("What each trial got", note, front_figure(points, titles))])


def _judged(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the test table: the config as it was, then the chosen trials."""
    test, against = search.get("test") or {}, search.get("against_config") or {}
    chosen, baseline = search.get("chosen") or [], search.get("baseline")
    by_number = {trial["number"]: trial for trial in search["trials"]}
    shown = dict.fromkeys([*([] if baseline is None else [baseline]), *chosen])
    return [
        {
            "number": number,
            "config": number == baseline,
            "chosen": number in chosen,
            "values": (by_number.get(number) or {}).get("values") or [],
            "share": (search.get("shares") or {}).get(str(number)),
            "test": test[str(number)],
            "against": against.get(str(number)) or {},
        }
        for number in shown
        if str(number) in test
    ]
