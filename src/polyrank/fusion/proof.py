"""Proof before trust: which estimate counts, which checks a policy passes, and what may be said of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from polyrank.fusion.assess import MODELS, STEP
from polyrank.fusion.compared import LOG
from polyrank.fusion.sequential import SEQUENTIAL
from polyrank.metrics.checks import Floats

STATIC = "matched static"
Verdict = Literal["proven", "unproven", "unsafe"]

# Whose word counts first: a model corrected by what happened, then what happened alone, then the pessimist.
TRUSTED: Mapping[str, Sequence[str]] = {
    "session": ("wdr", "wpdis", "wis", "pdis", "conservative_fqe"),
    "step": ("kernel_dr", "kernel_snis", "kernel_is", "conservative_fqe"),
}
ROOM, FOLLOWS = "room in the box", "better than its matched static"
_EXITS = 0.01  # of states, above which a policy is elsewhere than the log
_MOVING = 0.1  # of the way of Q in the last fifth, above which more steps would give another value
_ENDS = 0.5  # of weights at an end of the box


def headline(estimates: Mapping[str, Any], policy: str, unit: str) -> str | None:
    """The first of `TRUSTED` that has a value, or None."""
    found = estimates["policies"][policy]
    return next((name for name in TRUSTED[unit] if name in found and not found[name]["refusal"]), None)


def checks(
    estimates: Mapping[str, Any],
    where: Mapping[str, Any],
    believed: Mapping[str, float | None] | None,
    curves: Mapping[str, Floats],
    spread: float,
    policy: str,
    unit: str,
) -> list[dict[str, Any]]:
    """What a policy must pass before it meets users.

    Args:
        estimates: of `compare`, with the policies `policy` and `STATIC`.
        where: of `whereabouts`.
        believed: of `believed`; None where the learner has no Q.
        curves: of the fitted Q evaluations of the policy.
        spread: standard deviation of the returns of the log's sessions: a policy that the pessimist puts further than
            this below the log is unsafe.
        policy: its name.
        unit: `session` or `step`.

    Returns:
        For each `name`, `passed`, whether a failure makes it `unsafe` or only unproven, and `text`.
    """
    found, lifts = estimates["policies"][policy], estimates["lifts"][policy]
    listed = [
        _check(
            "inside the box",
            where["outside"] <= _EXITS,
            f"in {where['outside']:.1%} of states a weight leaves what the log explored",
            unsafe=True,
        ),
        _check(
            ROOM,
            where["ends"] <= _ENDS,
            f"{where['ends']:.0%} of weights stand at an end of the box: where it is most, a wider box may teach more",
        ),
    ]
    if believed is not None and believed["last"] is not None and believed["highest"] is not None:
        text = (
            f"the learner's Q ended at {believed['last']:,.4g}; sessions of the log earned {believed['mean']:,.4g} on "
            f"average, and 99 % of them at most {believed['highest']:,.4g}"
        )
        listed.append(_check("Q promises what is earned", believed["last"] <= believed["highest"], text, unsafe=True))
    diverged = [name for name, entry in found.items() if "diverged" in entry["refusal"]]
    if diverged:
        listed.append(_check("its value can be learned", False, f"{', '.join(diverged)} diverged", unsafe=True))
    else:
        moved = max(map(moving, curves.values()), default=0.0)
        text = f"in the last fifth of fitted Q evaluation Q moved by {moved:.0%} of all that it moved"
        listed.append(_check("its value was learned to the end", moved <= _MOVING, text))
    weighted = [name for name in (SEQUENTIAL if unit == "session" else STEP) if name != "dm" and name in found]
    supported = [name for name in weighted if not found[name]["refusal"]]
    text = f"{len(supported)} of {len(weighted)} estimators that weigh what happened have enough rows"
    listed.append(_check("the log shows it", bool(supported), text))
    lift = lifts[LOG].get("conservative_fqe", {})
    text = f"conservative FQE: {_lift(lift)} over the log's policy; its interval knows nothing of its model's error"
    far = lift.get("high") is not None and lift["high"] < -spread
    listed.append(_check("even the pessimist agrees", _sign(lift) > 0, text, unsafe=far))
    name = headline(estimates, policy, unit)
    for other, title in ((LOG, "better than the log"), (STATIC, FOLLOWS)):
        lift = lifts[other].get(name, {}) if name else {}
        text = f"{name.replace('_', ' ')}: {_lift(lift)}" if name else "no estimator has an answer"
        lost = other == LOG and _sign(lift) < 0 and name not in MODELS
        listed.append(_check(title, _sign(lift) > 0, text, unsafe=lost))
    return listed


def verdict(listed: Sequence[Mapping[str, Any]]) -> Verdict:
    """`unsafe` by one failure of that kind; `proven` where all passed that must, else `unproven`.

    It need not have room in its box, nor be better than its matched static: then that formula may serve as well.
    """
    if any(entry["unsafe"] and not entry["passed"] for entry in listed):
        return "unsafe"
    needed = [entry["passed"] for entry in listed if entry["name"] not in (ROOM, FOLLOWS)]
    return "proven" if all(needed) else "unproven"


def moving(curve: Floats) -> float:
    """How much of all that a curve `[P, 2]` moved it moved in the last fifth of its steps; 0 for one that never did."""
    values = curve[:, 1]
    reach = float(np.ptp(values)) if len(values) else 0.0
    return abs(float(values[-1] - values[len(values) * 4 // 5])) / reach if reach > 0 else 0.0


def _check(name: str, passed: bool, text: str, *, unsafe: bool = False) -> dict[str, Any]:
    return {"name": name, "passed": bool(passed), "unsafe": unsafe, "text": text}


def _sign(lift: Mapping[str, Any]) -> int:
    """On which side of 0 the whole interval lies; 0 where it does not."""
    low, high = lift.get("low"), lift.get("high")
    return 0 if low is None or high is None or low <= 0 <= high else 1 if low > 0 else -1


def _lift(lift: Mapping[str, Any]) -> str:
    if lift.get("mean") is None:
        return "no answer"
    ends = "" if lift["low"] is None else f" [{lift['low']:+,.4g}, {lift['high']:+,.4g}]"
    return f"{lift['mean']:+,.4g}{ends}"
