"""Pages for people: a seesaw study, and a data profile, each as one self-contained HTML string.

A page loads nothing: the plotly bundle, the style and the numbers are inside it, and its content security policy
forbids every request, so that it can be mailed, opened from a disk, and read in five years. Text is escaped by jinja2;
figures travel as JSON that cannot close its script element. Nothing is written here.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import plotly.graph_objects as go
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from polyrank import plots
from polyrank.errors import DataError

FORMAT: Final = 1
METRICS: Final = {
    "auc": "AUC",
    "xauc": "XAUC",
    "gauc": "GAUC",
    "log_loss": "Log loss",
    "normalised_entropy": "Normalised entropy",
    "ece": "ECE",
    "mae": "MAE",
    "rmse": "RMSE",
}
_REFERENCES: Final = {"single_task": "single-task models", "lightgbm": "LightGBM"}
_SAID: Final = {"gain": "helped {}", "loss": "hurt {}", "tie": "no difference for {}"}
_AGAINST: Final = {"gain": "better on {}", "loss": "worse on {}", "tie": "no difference for {}"}
_MINUS: Final = "\u2212"


@dataclass(frozen=True)
class Panel:
    """One figure of a page, with the words above it."""

    title: str
    note: str
    figure: go.Figure


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
    _check(study, "seesaw.json", ("tasks", "models"))
    models = study["models"]
    tasks = [task["name"] for task in study["tasks"]]
    references = _references(study)
    first = references[0] if references else "single_task"
    return _render(
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
        gates={model["name"]: _gate_panels(model, _largest_weight(models)) for model in models if model.get("gates")},
        calibration=_drawn(
            Panel(t, _task_note(task), plots.calibration_figure(models, t)) for t, task in _tasks(study).items()
        ),
        costs=_drawn(Panel(title, "", plots.cost_figure(study, key)) for key, (title, _) in plots.COSTS.items()),
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
    _check(profile, "profile", ("tasks", "features"))
    rows = plots.finite(profile.get("rows")) or 0
    tasks, features = profile["tasks"], profile["features"]
    per_row = {
        key: {t["name"]: n / rows for t in tasks if rows and (n := plots.finite(t.get(key)))}
        for key in ("missing", "outside", "contradictions")
    }
    unseen = {f["name"]: f.get("out_of_vocabulary") for f in features}
    unseen = dict(sorted(unseen.items(), key=lambda item: -(plots.finite(item[1]) or 0)))
    return _render(
        "profile.html",
        profile=profile,
        positives=_drawn([Panel("Positive rows", "share of all rows", plots.positives_figure(tasks, int(rows)))]),
        conditional=_drawn(
            [
                Panel(
                    "One label given another",
                    "of the rows with the label at the left, how many also have the label on top",
                    plots.conditional_figure(profile.get("funnel") or {}),
                )
            ]
        ),
        missing=_drawn(
            [
                Panel("Label missing", "share of rows", plots.share_figure(per_row["missing"])),
                Panel("Outside the sample space", "share of rows", plots.share_figure(per_row["outside"])),
                Panel(
                    "Positive although the parent is not",
                    "share of rows",
                    plots.share_figure(per_row["contradictions"]),
                ),
            ]
        ),
        correlations=_drawn(
            [Panel("Pearson correlation", "", plots.correlation_figure(profile.get("correlations") or {}))]
        ),
        cardinalities=_drawn([Panel("Distinct values", "logarithmic", plots.cardinality_figure(features))]),
        unseen=_drawn([Panel("Values of validation never seen in training", "", plots.share_figure(unseen))]),
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
            parts.append(said.format(_listed(named)))
    if unknown := [task for task, delta in deltas.items() if delta.get("verdict") not in words]:
        parts.append(f"not measured for {_listed(unknown)}")
    return ", ".join(parts)


def number_text(value: object, digits: int = 4) -> str:
    """`0.9412`; a dash where there is no number."""
    number = plots.finite(value)
    return "–" if number is None else f"{number:,.{digits}f}".replace("-", _MINUS)


def delta_text(value: object, digits: int = 4) -> str:
    """`+0.0012`, `−0.0004`, `±0.0000`: a difference always carries its sign."""
    number = plots.finite(value)
    if number is None:
        return "–"
    text = f"{number:+.{digits}f}"
    return f"±{text[1:]}" if float(text) == 0 else text.replace("-", _MINUS)


def interval_text(delta: Mapping[str, Any]) -> str:
    """`[−0.0003, +0.0027]`; empty where the interval is not known."""
    low, high = plots.finite(delta.get("low")), plots.finite(delta.get("high"))
    return "" if low is None or high is None else f"[{delta_text(low)}, {delta_text(high)}]"


def count_text(value: object) -> str:
    """`199,523`."""
    return number_text(value, 0)


def value_text(value: object) -> str:
    """A number of unknown size in five significant digits: `15,343`, `0.0012346`."""
    number = plots.finite(value)
    if number is None:
        return "–"
    return (f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.5g}").replace("-", _MINUS)


def share_text(value: object) -> str:
    """A share of one as per cent, small ones with more digits: `6.20 %`, `48.2 %`, `<0.01 %`."""
    number = plots.finite(value)
    if number is None:
        return "–"
    if number == 0:
        return "0 %"
    if 0 < number < 0.0001:
        return "<0.01 %"
    return f"{100 * number:.{2 if 0 < number < 0.1 else 1}f} %"


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
    return _drawn(panels)


def _curve_panels(study: Mapping[str, Any]) -> list[Panel]:
    return _drawn(
        Panel(name, words.format(_metric_name(task)), plots.curve_figure(study["models"], name, part))
        for name, task in _tasks(study).items()
        for part, words in (("valid", "{} on validation data"), ("train_loss", "training loss"))
    )


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
    return _drawn(panels)


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


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _drawn(panels: Iterable[Panel]) -> list[Panel]:
    return [panel for panel in panels if panel.figure.data]


def _check(document: Mapping[str, Any], name: str, lists: Sequence[str]) -> None:
    if document.get("format") != FORMAT:
        raise DataError(
            f"a {name} of format {FORMAT} is needed",
            received=f"format {document.get('format')!r}",
            mend="write it again with this version of Polyrank",
        )
    for key in lists:
        entries = document.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) and "name" in e for e in entries):
            raise DataError(
                f"`{key}` of a {name} is a list of tables, each with a `name`", received=repr(entries)[:200]
            )


def _figure_json(figure: go.Figure) -> Markup:
    # "<" never reaches the page, so that no name can close the script element or open a comment in it.
    text: str = figure.to_json(remove_uids=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _render(template: str, **context: object) -> str:
    page = _environment().get_template(template)
    return page.render(plotly=Markup(get_plotlyjs()), verdicts=plots.VERDICTS, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("polyrank", "templates"),
        autoescape=True,
        undefined=ChainableUndefined,  # every part of a document may be missing; the filters show a dash
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "number": number_text,
        "delta": delta_text,
        "interval": interval_text,
        "count": count_text,
        "value": value_text,
        "share": share_text,
        "display": plots.display_name,
        "figure_json": _figure_json,
    }
    environment.filters |= filters
    return environment
