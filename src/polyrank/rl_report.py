"""The page of a policy: what may be said of it, its estimates beside its control, where it acts, and for whom."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from polyrank.charts.policy import (
    TITLES,
    cohort_weights_figure,
    curves_figure,
    density_panels,
    estimates_figure,
    q_figure,
)
from polyrank.fusion.compared import LOG, unit_of
from polyrank.fusion.proof import STATIC
from polyrank.page import check_document, drawn, render
from polyrank.plots import Panel

_WORDS = {
    "proven": (
        "gain",
        "Proven from this log",
        "Every check passed. Now a small online test, with the static formula beside it.",
    ),
    "unproven": (
        "tie",
        "Not proven",
        "No check says that it is dangerous, and the log does not prove that it is better.",
    ),
    "unsafe": (
        "loss",
        "Unsafe",
        "Do not deploy it: by a check below it leaves the log, promises what nobody earned, or is worse than the log.",
    ),
}


def policy_html(document: Mapping[str, Any]) -> str:
    """The page of `rl.json` or `ope.json`, format 1 (see `polyrank.rl`).

    Returns:
        A complete HTML document that makes no network request.

    Raises:
        DataError: the document has another format.
    """
    check_document(document, "rl.json or ope.json", ("checks",))
    badge, title, advice = _WORDS[document["verdict"]]
    fits = {
        f"{title}, {TITLES[name]}": curve for title, curves in document["fqe"].items() for name, curve in curves.items()
    }
    others = {name: curve for name, curve in (document.get("curves") or {}).items() if name != "q"}
    units = ["session", "step"] if document["unit"] == "session" else ["step"]
    notes = {"session": "the discounted return of a session", "step": "the reward of a step, in the log's states"}
    return render(
        "policy.html",
        document=document,
        badge_of=badge,
        verdict_title=title,
        advice=advice,
        log_name=LOG,
        static_name=STATIC,
        titles=TITLES,
        tables=[(unit, notes[unit], _rows(document, unit)) for unit in units],
        headline=_headline(document),
        estimates=drawn(Panel(f"By {unit}", notes[unit], estimates_figure(document, unit)) for unit in units),
        densities=drawn(density_panels(document)),
        curves=drawn([
            Panel("Q while learning", "the learner's mean Q(s₀, π(s₀))", q_figure(document)),
            Panel("What else was learned", "as the method recorded it", curves_figure(others)),
            Panel("Fitted Q evaluation", "mean Q(s₀, π(s₀)) of the first fold", curves_figure(fits)),
        ]),
        cohort_weights=drawn(
            Panel(name, "mean weight; 0 and 1 are the ends of the box", cohort_weights_figure(document, name))
            for name, parts in Counter(entry["cohort"] for entry in document["cohorts"]).items()
            if parts > 1
        ),
    )  # fmt: skip


def _rows(document: Mapping[str, Any], unit: str) -> list[dict[str, Any]]:
    """Each estimator of a unit: both values, both lifts of the policy, and its support."""
    estimates = document["estimates"]
    (name, found), (other, its) = estimates["policies"].items()
    lifts = estimates["lifts"][name]
    return [
        {
            "name": TITLES[key],
            "first": key == document["headline"],
            "policy": entry,
            "static": its.get(key, {}),
            "over_static": lifts[other].get(key, {}),
            "over_log": lifts[LOG].get(key, {}),
        }
        for key, entry in found.items()
        if unit_of(key) == unit or (unit == "step" and document["unit"] == "step")
    ]


def _headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the first estimator says: the policy's value, its lifts, and the log's value."""
    key, estimates = document["headline"], document["estimates"]
    if key is None:
        return {}
    name = next(iter(estimates["policies"]))
    own = estimates["log"][unit_of(key)]
    lift = estimates["lifts"][name][LOG][key]
    share = lift["mean"] / abs(own["value"]) if lift["mean"] is not None and own["value"] else None
    return {
        "name": TITLES[key],
        "unit": unit_of(key),
        "value": estimates["policies"][name][key],
        "log": own,
        "over_log": lift,
        "share": share,
        "over_static": estimates["lifts"][name][STATIC][key],
    }
