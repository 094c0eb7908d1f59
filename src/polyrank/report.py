"""Pages for people: a seesaw study, and a data profile, each as one self-contained HTML string."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from polyrank import plots
from polyrank.charts import profile as of_profile
from polyrank.charts.fronts import Point, front_figure, roles
from polyrank.charts.history import balance_panels
from polyrank.page import (
    METRICS,
    check_document,
    delta_text,
    drawn,
    listed,
    number_text,
    render,
    share_text,
    value_text,
)
from polyrank.plots import Panel

_REFERENCES: Final = {"single_task": "single-task models", "lightgbm": "LightGBM"}
_SAID: Final = {"gain": "helped {}", "loss": "hurt {}", "tie": "no difference for {}"}
_AGAINST: Final = {"gain": "better on {}", "loss": "worse on {}", "tie": "no difference for {}"}


@dataclass(frozen=True)
class Headline:
    """What one architecture did to the tasks: an outcome in a word or two, and a sentence."""

    name: str
    outcome: str
    verdict: str | None
    sentence: str
    badges: Sequence[tuple[str, str]]


def seesaw_html(study: dict[str, Any]) -> str:
    """The page of a seesaw study: who gained, who paid, and what it cost.

    Args:
        study: The parsed `seesaw.json`, format 1: `tasks`, `models`, `references`, `costs`, and what describes the run.
            Only `tasks` and `models` must be there; a section whose numbers are missing says so or is left out.

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: The study has another format, or no list of tasks or models with names.
    """
    check_document(study, "seesaw.json", ("tasks", "models"))
    models = study["models"]
    tasks = [task["name"] for task in study["tasks"]]
    references = _references(study)
    first = references[0] if references else "single_task"
    return render(
        "seesaw.html",
        study=study,
        references=references,
        reference_names=_REFERENCES,
        headlines=[headline(model, tasks, first) for model in models],
        asides={
            model["name"]: [
                f"Against {_REFERENCES.get(other, other)}: {verdict_sentence(model, tasks, other, _AGAINST)}"
                for other in references[1:]
            ]
            for model in models
        },
        seesaw={reference: _seesaw_panels(study, reference) for reference in references},
        metrics={task: _shown_metrics(study, task) for task in tasks},
        curves=_curve_panels(study),
        pareto=_pareto_rows(study),
        front=_front_panels(study),
        balance={m["name"]: panels for m in models if (panels := _balance_panels(m, tasks))},
        gates={model["name"]: _gate_panels(model, _largest_weight(models)) for model in models if model.get("gates")},
        calibration=drawn(
            Panel(t, _task_note(task), plots.calibration_figure(models, t)) for t, task in _tasks(study).items()
        ),
        costs=drawn(Panel(title, "", plots.cost_figure(study, key)) for key, (title, _) in plots.COSTS.items()),
        strokes=plots.strokes(model["name"] for model in models),
    )


def profile_html(profile: dict[str, Any]) -> str:
    """The page of a data profile: labels, how they feed each other, features, and what looks wrong.

    Args:
        profile: The parsed profile, format 1: `tasks`, `features`, `rows`, and optionally `funnel`, `correlations`,
            `leaks` and `warnings`.

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: The profile has another format, or no list of tasks or features with names.
    """
    check_document(profile, "profile", ("tasks", "features"))
    rows = plots.finite(profile.get("rows")) or 0
    tasks, features = profile["tasks"], profile["features"]
    per_row = {
        key: {t["name"]: n / rows for t in tasks if rows and (n := plots.finite(t.get(key)))}
        for key in ("missing", "outside", "contradictions")
    }
    unseen = {f["name"]: f.get("out_of_vocabulary") for f in features}
    unseen = dict(sorted(unseen.items(), key=lambda item: -(plots.finite(item[1]) or 0)))
    return render(
        "profile.html",
        profile=profile,
        positives=drawn([Panel("Positive rows", "share of all rows", of_profile.positives_figure(tasks, int(rows)))]),
        conditional=drawn(
            [
                Panel(
                    "One label given another",
                    "of the rows with the label at the left, how many also have the label on top",
                    of_profile.conditional_figure(profile.get("funnel") or {}),
                )
            ]
        ),
        missing=drawn(
            [
                Panel("Label missing", "share of rows", of_profile.share_figure(per_row["missing"])),
                Panel("Outside the sample space", "share of rows", of_profile.share_figure(per_row["outside"])),
                Panel(
                    "Positive although the parent is not",
                    "share of rows",
                    of_profile.share_figure(per_row["contradictions"]),
                ),
            ]
        ),
        correlations=drawn(
            [Panel("Pearson correlation", "", of_profile.correlation_figure(profile.get("correlations") or {}))]
        ),
        cardinalities=drawn([Panel("Distinct values", "logarithmic", of_profile.cardinality_figure(features))]),
        unseen=drawn([Panel("Values of validation never seen in training", "", of_profile.share_figure(unseen))]),
    )


def headline(model: Mapping[str, Any], tasks: Sequence[str], reference: str) -> Headline:
    """One architecture against `reference`, for a reader who knows no metric.

    The outcome follows from the verdicts alone: gains and no loss help, losses and no gain hurt, both are a seesaw
    (one task paid for another), neither is no difference.
    """
    badges = [(t, v) for t in tasks if (v := plots.delta_of(model, t, reference).get("verdict")) in plots.VERDICTS]
    seen = {verdict for _, verdict in badges}
    outcome, verdict = {
        (True, True): ("seesaw: one task paid for another", "loss"),
        (True, False): ("helps, hurts nothing", "gain"),
        (False, True): ("hurts, helps nothing", "loss"),
        (False, False): ("no difference", "tie"),
    }["gain" in seen, "loss" in seen]
    name = plots.display_name(model["name"])
    sentence = verdict_sentence(model, tasks, reference, _SAID)
    return Headline(name, outcome if seen else "not measured", verdict if seen else None, sentence, badges)


def verdict_sentence(
    model: Mapping[str, Any], tasks: Sequence[str], reference: str, words: Mapping[str, str] = _SAID
) -> str:
    """`helped income (+0.0012), no difference for never_married`: gains, losses, ties, then the rest."""
    deltas = {task: plots.delta_of(model, task, reference) for task in tasks}
    parts = []
    for key, said in words.items():
        named = [
            task if key == "tie" else f"{task} ({delta_text(delta.get('mean'))})"
            for task, delta in deltas.items()
            if delta.get("verdict") == key
        ]
        if named:
            parts.append(said.format(listed(named)))
    if unknown := [task for task, delta in deltas.items() if delta.get("verdict") not in words]:
        parts.append(f"not measured for {listed(unknown)}")
    return ", ".join(parts)


def _seesaw_panels(study: Mapping[str, Any], reference: str) -> list[Panel]:
    models, tasks = study["models"], _tasks(study)
    means = (study.get("references") or {}).get(reference) or {}
    panels = []
    for name, task in tasks.items():
        # Panels of one metric share one scale; a point of XAUC and a point of AUC are not the same size.
        alike = [other for other, t in tasks.items() if t.get("metric") == task.get("metric")]
        reach = plots.seesaw_reach(models, alike, reference)
        note = f"{_metric_name(task)} of {_REFERENCES.get(reference, reference)}: "
        note += number_text((means.get(name) or {}).get("mean"))
        panels.append(Panel(name, note, plots.seesaw_figure(models, name, reference, reach)))
    return drawn(panels)


def _curve_panels(study: Mapping[str, Any]) -> list[Panel]:
    return drawn(
        Panel(name, words.format(_metric_name(task)), plots.curve_figure(study["models"], name, part))
        for name, task in _tasks(study).items()
        for part, words in (("valid", "{} on validation data"), ("train_loss", "training loss"))
    )


def _front_panels(study: Mapping[str, Any]) -> list[Panel]:
    """The Pareto picture: models numbered as in the table beside it, and references, a point each."""
    pareto, tasks = study.get("pareto") or {}, list(_tasks(study))
    judged = roles(pareto.get("models") or {})
    styles = plots.strokes(model["name"] for model in study["models"])
    points = []
    for index, model in enumerate(study["models"], start=1):
        cells = [(model.get("tasks") or {}).get(task) or {} for task in tasks]
        runs = list(zip(*(cell.get("per_seed") or [] for cell in cells), strict=False))
        role, name = judged.get(model["name"], "dominated"), plots.display_name(model["name"])
        means = [cell.get("mean") for cell in cells]
        points.append(Point(name, means, role, styles[model["name"]], str(index), runs))
    for name, found in (study.get("references") or {}).items():
        means = [((found or {}).get(task) or {}).get("mean") for task in tasks]
        name = plots.display_name(name)
        points.append(Point(name, means, "reference", plots.Stroke(plots.REFERENCE, ""), name))
    corner = [plots.finite((pareto.get("reference") or {}).get(task)) for task in tasks]
    axes = [f"{name} ({_metric_name(task)})" for name, task in _tasks(study).items()]
    figure = front_figure(points if pareto else [], axes, [end for end in corner if end is not None])
    note = "numbers as in the table; small points are single seeds"
    return drawn([Panel("What each task got", note if len(axes) == 2 else "numbers as in the table", figure)])


def _pareto_rows(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table beside the picture: number, name, whether on the front, shares of the volume."""
    judged = (study.get("pareto") or {}).get("models") or {}
    return [
        {"number": index, "name": model["name"], **judged[model["name"]]}
        for index, model in enumerate(study["models"], start=1)
        if model["name"] in judged
    ]


def _balance_panels(model: Mapping[str, Any], tasks: Sequence[str]) -> list[Panel]:
    """What the balancer of the first seed's run recorded."""
    curves = model.get("curves") or []
    return balance_panels(curves[0].get("balance") or {}, tasks) if curves else []


def _gate_panels(model: Mapping[str, Any], largest: float) -> list[Panel]:
    levels = sorted({gate.get("level", 1) for gate in model["gates"]})
    panels = []
    for level in levels:
        gates = [gate for gate in model["gates"] if gate.get("level", 1) == level]
        # exp of the entropy (in nats) is the number of equally used experts with the same entropy.
        used = [
            f"{gate['gate']}: {math.exp(entropy):.1f} of {len(gate['experts'])}"
            for gate in gates
            if (entropy := plots.finite(gate.get("entropy"))) is not None
        ]
        note = f"experts in effective use – {'; '.join(used)}" if used else ""
        title = plots.display_name(model["name"]) + (f", level {level}" if len(levels) > 1 else "")
        panels.append(Panel(title, note, plots.gate_figure(gates, largest)))
    return drawn(panels)


def _largest_weight(models: Sequence[Mapping[str, Any]]) -> float:
    gates = [gate for model in models for gate in model.get("gates") or []]
    return max((w for gate in gates for w in map(plots.finite, gate["weights"]) if w is not None), default=1.0)


def _shown_metrics(study: Mapping[str, Any], task: str) -> dict[str, str]:
    entries = [(reference or {}).get(task) for reference in (study.get("references") or {}).values()]
    entries += [(model.get("tasks") or {}).get(task) for model in study["models"]]
    main = _tasks(study)[task].get("metric")
    metrics = [(entry or {}).get("metrics") or {} for entry in entries]
    return {
        key: name
        for key, name in METRICS.items()
        if key != main and any(plots.finite(known.get(key)) is not None for known in metrics)
    }


def _tasks(study: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {task["name"]: task for task in study["tasks"]}


def _task_note(task: Mapping[str, Any]) -> str:
    rate = task.get("base_rate")
    if plots.finite(rate) is None:
        return ""
    return f"{share_text(rate)} positive" if task.get("kind") == "binary" else f"mean label {value_text(rate)}"


def _metric_name(task: Mapping[str, Any]) -> str:
    metric = str(task.get("metric", ""))
    return METRICS.get(metric, metric)


def _references(study: Mapping[str, Any]) -> list[str]:
    measured = [
        reference
        for model in study["models"]
        for entry in (model.get("tasks") or {}).values()
        for reference in (entry or {}).get("delta") or {}
    ]
    names = dict.fromkeys([*(study.get("references") or {}), *measured])
    return sorted(names, key=lambda name: name != "single_task")  # the question of the page comes first
