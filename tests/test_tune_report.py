"""The page of a search: what was found, every trial, every setting; any part may be missing."""

import copy
import json
import re
from typing import Any

import pytest

from polyrank.errors import DataError
from polyrank.tune_report import title_of, tune_html


def trial(number: int, state: str, values: list[float] | None, rate: float, towers: list[int]) -> dict[str, Any]:
    return {
        "name": str(number),
        "number": number,
        "state": state,
        "values": values,
        "parameters": {"train.learning_rate": rate, "model.towers": towers},
        "evaluations": [0.4, 0.45] if state == "pruned" else [],
        "seconds": 12.34,
        "why": "the loss of click is not finite" if state == "fail" else "",
    }


def judged(auc: float) -> dict[str, Any]:
    return {"click": {"auc": auc, "auc_ci": [auc - 0.01, auc + 0.01]}, "watch": {"xauc": 0.6, "xauc_ci": None}}


SEARCH: dict[str, Any] = {
    "format": 1,
    "title": "census",
    "command": "polyrank tune census.toml --out x",
    "created": "2026-11-27T12:00:00+00:00",
    "rows": {"train": 1000, "valid": 200, "test": 300},
    "tasks": [{"name": "click", "metric": "auc"}, {"name": "watch", "metric": "xauc"}],
    "objectives": [{"name": "mean", "metric": ""}],
    "sampler": "tpe",
    "level": 0.95,
    "space": {
        "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "model.towers": {"choices": [[4], [8, 4]]},
    },
    "trials": [
        trial(0, "complete", [0.70], 0.001, [4]),
        trial(1, "complete", [0.75], 0.004, [8, 4]),
        trial(2, "pruned", None, 0.0002, [4]),
        trial(3, "fail", None, 0.01, [4]),
        trial(4, "complete", [0.72], 0.002, [4]),
    ],
    "chosen": [1],
    "baseline": 0,
    "reference": [0.69],
    "hypervolume": 0.06,
    "shares": {"1": 0.5},
    "importance": {"mean": {"train.learning_rate": 0.75, "model.towers": 0.25}},
    "test": {"0": judged(0.68), "1": judged(0.73)},
    "against_config": {
        "1": {
            "click": {"mean": 0.05, "low": 0.01, "high": 0.09, "verdict": "gain"},
            "watch": {"mean": 0.0, "low": None, "high": None, "verdict": "tie"},
        }
    },
}


def front_search() -> dict[str, Any]:
    search = copy.deepcopy(SEARCH)
    search["objectives"] = [{"name": "click", "metric": "auc"}, {"name": "watch", "metric": "xauc"}]
    for entry, watch in ((search["trials"][0], 0.65), (search["trials"][1], 0.60), (search["trials"][4], 0.62)):
        entry["values"].append(watch)
    search |= {"chosen": [1, 4, 0], "reference": [0.69, 0.59], "shares": {"0": 0.1, "1": 0.2, "4": 0.3}}
    search["importance"] = {"click": {"train.learning_rate": 1.0}, "watch": {"model.towers": 1.0}}
    return search


def words(html: str) -> str:
    body = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def figures(html: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)]


def test_it_says_what_was_found_and_against_what() -> None:
    text = words(tune_html(SEARCH))
    assert "2 settings were varied in 5 trials, proposed by tpe" in text
    assert "0 the config 0.7000 0.6800 0.6700 to 0.6900 – – 0.6000 – –" in text
    assert "1 the best 0.7500 0.7300 0.7200 to 0.7400 +0.0500 [+0.0100, +0.0900] ▲ gain 0.6000 ±0.0000 = tie" in text
    assert "Trial 1 : train.learning_rate = 0.004 model.towers = [8, 4]" in text
    assert "best.toml" in text
    assert "3 complete 1 pruned 1 failed" in text


def test_every_trial_is_in_the_table() -> None:
    text = words(tune_html(SEARCH))
    assert "2 pruned – 0.0002 [4] 12.3" in text
    assert "3 fail – 0.01 [4] 12.3" in text
    assert 'title="the loss of click is not finite"' in tune_html(SEARCH)


def test_figures_of_one_objective() -> None:
    progress, evaluations, parallel, importance, rates, towers = figures(tune_html(SEARCH))
    best, dots, pruned = progress["data"]
    assert (dots["x"], dots["y"], best["y"]) == ([0, 1, 4], [0.70, 0.75, 0.72], [0.70, 0.75, 0.75])
    assert (pruned["x"], pruned["y"]) == ([2], [0.45])
    assert [trace["y"] for trace in evaluations["data"]] == [[0.4, 0.45]]
    assert [trace["name"] for trace in parallel["data"]] == ["trial 0", "trial 4", "trial 1"]  # the best on top
    assert importance["data"][0]["x"] == [0.75, 0.25]
    assert rates["data"][0]["x"] == [0.001, 0.004, 0.002]
    assert rates["layout"]["xaxis"]["type"] == "log"
    assert towers["data"][0]["x"] == ["[4]", "[8, 4]", "[4]"]


def test_a_front_has_its_picture_and_no_best() -> None:
    html = tune_html(front_search())
    text = words(html)
    assert "a search for click (AUC) and watch (XAUC)" in text
    assert "0 the config , on the front" in text.replace("config,", "config ,")
    assert "best.toml" not in text
    assert "Lost without it" in text
    names = [trace.get("name") for trace in figures(html)[0]["data"]]
    assert names == [None, "trial 0", "trial 1", "trial 4"]


def test_poor_trials_do_not_press_the_front_into_a_corner() -> None:
    search = front_search()
    search["trials"].append(trial(5, "complete", [0.1, 0.1], 0.001, [4]))
    html = tune_html(search)
    assert "on validation data; 1 of the poorest left out" in words(html)
    assert [trace.get("name") for trace in figures(html)[0]["data"]] == [None, "trial 0", "trial 1", "trial 4"]
    assert "5 complete 0.1000 0.1000" in words(html)


@pytest.mark.parametrize("key", [key for key in SEARCH if key not in ("format", "trials", "objectives")])
@pytest.mark.parametrize("search", [SEARCH, front_search()], ids=["one", "front"])
def test_any_part_may_be_missing(search: dict[str, Any], key: str) -> None:
    for lacking in ({name: value for name, value in search.items() if name != key}, search | {key: None}):
        assert re.search(r"\b(nan|None|Undefined)\b", words(tune_html(lacking))) is None


def test_hostile_names_are_text() -> None:
    search = json.loads(json.dumps(front_search()).replace("click", "<script>alert(1)</script>"))
    assert "<script>alert" not in tune_html(search)


def test_another_format_is_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"a tune\.json of format 1 is needed"):
        tune_html({"format": 2})


def test_titles() -> None:
    assert title_of({"name": "like", "metric": "auc"}) == "like (AUC)"
    assert title_of({"name": "mean", "metric": ""}) == "mean over tasks"
