"""Which estimate counts and what may be said, by hand-made estimates."""

import json

import numpy as np
import pytest

from polyrank.fusion.compared import LOG
from polyrank.fusion.proof import STATIC, checks, headline, moving, verdict

VALUE = {"value": 2.0, "low": 1.9, "high": 2.1, "effective": 900.0, "largest": 0.01, "refusal": ""}
GAIN = {"mean": 1.0, "low": 0.5, "high": 1.5, "verdict": "gain"}
NAMES = ("pdis", "wis", "wpdis", "wdr", "fqe", "conservative_fqe")
WHERE = {"outside": 0.0, "ends": 0.1}
BELIEVED = {"last": 2.0, "mean": 1.0, "highest": 3.0}
CURVES = {"fqe": np.array([[i, 1 - 0.5**i] for i in range(20)])}


def estimates() -> dict:
    every = {name: dict(VALUE) for name in NAMES}
    lifts = {name: dict(GAIN) for name in NAMES}
    found = {
        "policies": {"policy": every, STATIC: every},
        "lifts": {"policy": {LOG: lifts, STATIC: lifts}, STATIC: {LOG: lifts}},
    }
    return json.loads(json.dumps(found))  # no two parts are one


def judged(found: dict, **changes: object) -> str:
    given = {"where": WHERE, "believed": BELIEVED, "curves": CURVES, **changes}
    return verdict(checks(found, given["where"], given["believed"], given["curves"], 0.4, "policy", "session"))


def refuse(found: dict, *names: str, why: str = "few") -> dict:
    for name in names:
        found["policies"]["policy"][name] |= {"value": None, "refusal": why}
        for other in (LOG, STATIC):
            found["lifts"]["policy"][other][name] = {"mean": None, "low": None, "high": None, "verdict": None}
    return found


def test_the_first_with_an_answer_counts() -> None:
    assert headline(estimates(), "policy", "session") == "wdr"
    assert headline(refuse(estimates(), "wdr"), "policy", "session") == "wpdis"
    assert headline(refuse(estimates(), *NAMES), "policy", "session") is None


def test_room_in_the_box_is_advice() -> None:
    assert judged(estimates(), where={"outside": 0.0, "ends": 0.9}) == "proven"


def test_a_pessimist_makes_it_unsafe_only_from_far() -> None:
    found = estimates()
    found["lifts"]["policy"][LOG]["conservative_fqe"] |= {"mean": -0.3, "low": -0.35, "high": -0.25}
    assert judged(found) == "unproven"
    refuse(found, "pdis", "wis", "wpdis", "wdr")  # now its word is the first, and still no proof of harm
    assert judged(found) == "unproven"


def test_proven_needs_every_check_but_the_static_one() -> None:
    assert judged(estimates()) == "proven"
    found = estimates()
    found["lifts"]["policy"][STATIC]["wdr"] |= {"low": -0.1, "verdict": "tie"}
    assert judged(found) == "proven"
    found["lifts"]["policy"][LOG]["wdr"] |= {"low": -0.1, "verdict": "tie"}
    assert judged(found) == "unproven"


def test_a_model_alone_proves_nothing() -> None:
    assert judged(refuse(estimates(), "pdis", "wis", "wpdis", "wdr")) == "unproven"
    still = {"fqe": np.array([[i, float(i)] for i in range(20)])}  # still on its way
    assert judged(estimates(), curves=still) == "unproven"


@pytest.mark.parametrize(
    "changes",
    [
        {"where": {"outside": 0.02, "ends": 0.0}},
        {"believed": {"last": 9.0, "mean": 1.0, "highest": 3.0}},
    ],
)
def test_unsafe_by_where_it_acts_and_what_it_believed(changes: dict) -> None:
    assert judged(estimates(), **changes) == "unsafe"


def test_unsafe_by_a_loss_or_by_divergence() -> None:
    found = estimates()
    found["lifts"]["policy"][LOG]["conservative_fqe"] |= {"mean": -1.0, "low": -2.0, "high": -0.5}
    assert judged(found) == "unsafe"
    assert judged(refuse(estimates(), "fqe", why="it diverged: mean Q 1e9")) == "unsafe"


def test_a_learner_without_q_promised_nothing() -> None:
    assert judged(estimates(), believed=None) == "proven"


def test_moving_is_a_share_of_the_way() -> None:
    assert moving(np.array([[i, float(i)] for i in range(11)])) == pytest.approx(0.2)
    assert moving(np.array([[0, 5.0], [1, 5.0]])) == 0
    assert moving(np.zeros((0, 2))) == 0
