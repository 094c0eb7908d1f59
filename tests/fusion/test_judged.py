import json

import numpy as np
import pytest

from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Formula
from polyrank.fusion.judged import judged, pareto
from polyrank.fusion.scope import Scope
from polyrank.progress import Silent


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    rows = 240
    click, like = rng.uniform(0.05, 0.95, (2, rows))
    labels = {"click": (rng.random(rows) < click) * 1.0, "like": (rng.random(rows) < like) * 1.0}
    return Requests(
        columns={"click": click, "like": like},
        heads=("click", "like"),
        labels=labels,
        numeric=frozenset(),
        requests=np.arange(rows) // 6,
        users=np.arange(rows) // 12,
        reward=labels["click"] + labels["like"],
    )


class _Counted(Silent):
    def __init__(self):
        self.planned = self.total = 0

    def bar(self, label, total, unit="rows"):
        self.planned = total
        return super().bar(label, total, unit)

    def advance(self, rows, note=""):
        self.total += rows


def test_one_document_of_everything(data):
    progress = _Counted()
    total = Formula.parse("click + like", Scope({"click": "probability", "like": "probability"}))
    cohorts = {"half": np.where(data.users < 10, "early", "late")}
    config = JudgeConfig(replicates=20)
    found = judged(data, {"sum": total}, "click alone", config, cohorts=cohorts, progress=progress)
    json.dumps(found, allow_nan=False)
    assert [r["name"] for r in found["rankings"]] == ["click alone", "like alone", "sum"]
    assert set(found["influence"]["sum"]) == {"click", "like"}
    assert {(c["head"], c["segment"]) for c in found["curves"]["sum"]} == {
        (head, segment) for head in ("click", "like") for segment in ("", "early", "late")
    }
    assert [(e["value"], e["rows"]) for e in found["cohorts"]] == [("early", 120), ("late", 120)]
    assert set(found["cohorts"][0]["metrics"]["gauc"]["click"]) == {"click alone", "like alone", "sum"}
    assert progress.total == progress.planned


def test_pareto_by_hand():
    def ranking(name, click, like):
        return {"name": name, "metrics": {"gauc": {"click": {"value": click}, "like": {"value": like}}}}

    document = {
        "behaviours": ["click", "like"],
        "rankings": [ranking("a", 0.7, 0.6), ranking("b", 0.6, 0.8), ranking("worse", 0.6, 0.55)],
    }
    found = pareto(document)
    assert found["front"] == ["a", "b"]
    # Boxes .2 × .1 and .1 × .3, of which .1 × .1 in both.
    assert found["hypervolume"] == pytest.approx(0.02 + 0.03 - 0.01)
    document["rankings"].append(ranking("unmeasured", 0.9, None))
    assert pareto(document)["behaviours"] == ["click"]
    assert pareto({"behaviours": [], "rankings": []}) == {"behaviours": [], "front": [], "hypervolume": None}
