"""The page of a run: its numbers, its curves, what its balancer did; any part may be missing."""

import copy
import json
import re
from typing import Any

import pytest

from polyrank.errors import DataError
from polyrank.run_report import run_html

RUN: dict[str, Any] = {
    "format": 1,
    "title": "mmoe",
    "created": "2026-11-27T12:00:00+00:00",
    "command": "polyrank train config.toml --out mmoe",
    "architecture": "mmoe",
    "balancer": "dwa",
    "metric": "mean",
    "tasks": [{"name": "click", "metric": "auc"}, {"name": "watch", "metric": "xauc"}],
    "metrics": {
        "data": "test",
        "rows": 500,
        "tasks": {
            "click": {"rows": 500, "positives": 250, "auc": 0.8125, "auc_ci": [0.79, 0.83], "gauc": None},
            "watch": {"rows": 250, "xauc": 0.625, "mae": 12345.6, "rmse_ci": [1.0, 2.0], "rmse": 20000.0},
        },
    },
    "history": {
        "rows": [1000, 2000, 3000],
        "step": [10, 20, 30],
        "metric": [0.70, 0.72, 0.71],
        "best": [True, True, False],
        "train_loss": {"click": [0.7, 0.6, 0.5], "watch": [3.0, 2.0, 1.0]},
        "valid": {"click": [0.8, 0.81, 0.82], "watch": [0.6, 0.63, None]},
        "balance": {
            "step": [5, 10, 15],
            "losses": {"click": [0.9, 0.8, 0.7], "watch": [None, None, None]},
            "weights": {"click": [1.0, 1.2, 1.4], "watch": [1.0, 0.8, 0.6]},
            "norms": {"click": [0.1, 0.2, 0.3], "watch": [10.0, 20.0, 0.0]},
            "cosines": [[[1.0, -0.5], [-0.5, 1.0]], None, [[1.0, 0.5], [0.5, 1.0]]],
        },
    },
}


def words(html: str) -> str:
    body = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def figures(html: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)]


def test_it_says_the_numbers_and_where_the_best_was() -> None:
    text = words(run_html(RUN))
    assert "MMoE, losses balanced by dwa; the best checkpoint, by mean on validation data (0.7200)" in text
    assert "was reached after 2,000 rows in 20 steps" in text
    assert "click 500 250 0.8125 0.7900 to 0.8300" in text
    assert "12,346" in text
    assert "GAUC" not in text  # nobody measured it
    assert "polyrank train config.toml --out mmoe" in text


def test_validation_data_as_judge_is_confessed() -> None:
    run = copy.deepcopy(RUN)
    run["metrics"]["data"] = "valid"
    assert "the very data that chose the checkpoint" in words(run_html(run))
    assert "the very data" not in words(run_html(RUN))


def test_every_curve_is_the_recorded_numbers() -> None:
    drawn = figures(run_html(RUN))
    lines = [[trace["y"] for trace in figure["data"]] for figure in drawn]
    assert lines[:4] == [[[0.8, 0.81, 0.82]], [[0.7, 0.6, 0.5]], [[0.6, 0.63, None]], [[3.0, 2.0, 1.0]]]
    assert lines[4] == [[1.0, 1.2, 1.4], [1.0, 0.8, 0.6]]
    assert lines[5] == [[0.9, 0.8, 0.7]]
    assert lines[6] == [[0.1, 0.2, 0.3], [10.0, 20.0, None]]  # on a logarithmic axis 0 has no place
    assert lines[7] == [[-0.5, None, 0.5]]
    assert len(drawn) == 8
    assert all(trace["x"] == [5, 10, 15] for figure in drawn[4:] for trace in figure["data"])
    assert all(figure["layout"]["shapes"][0]["x0"] == 2000 for figure in drawn[:4])  # the kept checkpoint


def test_weights_that_never_move_are_no_picture() -> None:
    run = copy.deepcopy(RUN)
    run["history"]["balance"]["weights"] = {"click": [1.0, 1.0, 1.0], "watch": [2.0, 2.0, 2.0]}
    assert "Loss weights" not in words(run_html(run))
    assert "Loss weights" in words(run_html(RUN))


@pytest.mark.parametrize("key", [key for key in RUN if key not in ("format", "tasks")])
def test_any_part_may_be_missing(key: str) -> None:
    text = words(run_html({name: value for name, value in RUN.items() if name != key}))
    assert re.search(r"\b(nan|None|Undefined)\b", text) is None


def test_hostile_names_are_text() -> None:
    run = json.loads(json.dumps(RUN).replace("click", "<script>alert(1)</script>"))
    assert "<script>alert" not in run_html(run)


def test_another_format_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="a run of format 1 is needed"):
        run_html({"format": 2, "tasks": []})
