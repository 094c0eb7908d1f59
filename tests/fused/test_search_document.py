"""What a search's page is told: see also tests/fused/test_fuse.py, which makes whole documents."""

import json
from pathlib import Path

import numpy as np

from polyrank import search_document as module
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Formula
from polyrank.fusion.scope import Scope


def test_columns_that_a_formula_floors_are_noted() -> None:
    data = Requests(
        columns={"click": np.ones(4), "price": np.array([-1.0, 0.0, 1.0, 2.0]), "seconds": np.arange(4.0)},
        heads=("click",),
        labels={},
        numeric=frozenset(),
        requests=np.zeros(4, np.int64),
        users=np.zeros(4, np.int64),
        reward=np.zeros(4),
    )

    def notes(text: str) -> list[str]:
        return module._floored(Formula.parse(text, Scope({"click": "probability"}, ("price", "seconds"))), data)

    assert notes("click * price^0.5") == ["price is too low in 50.0% of the rows for price^0.5, which floors it"]
    assert notes("log(click) + log1p(price)") == [
        "price is too low in 25.0% of the rows for log1p(price), which floors it"
    ]
    assert notes("click * log1p(seconds)") == []
    assert notes("click^2 * max(price, 1)^0.5") == []


def test_requests_are_shown_as_they_were_and_as_they_are(searched: Path) -> None:
    lists = json.loads((searched / "search.json").read_text())["lists"]
    assert [entry["name"].split(" of ")[0] for entry in lists] == [f"Request {n + 1}" for n in range(len(lists))]
    for entry in lists:
        places = [row["was"] for row in entry["rows"]]
        assert len(set(places)) == len(places)
        assert places != sorted(places)  # those shown are those that changed
        assert set(entry["rows"][0]["show"]) == {"video"}
