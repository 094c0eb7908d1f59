"""A history read back: columns by task, gaps as None, what a balancer did not record left out."""

import json
from pathlib import Path

import pytest

from polyrank.errors import RunError
from polyrank.training.history import read_history

LINE = {"rows": 10, "step": 1, "metric": 0.5, "best": True, "train_loss": {"a": 0.7, "b": 0.2}, "valid": {"a": 0.5}}


def written(path: Path, *lines: object) -> Path:
    path = path / "history.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_columns_by_task(tmp_path: Path) -> None:
    second = LINE | {"rows": 20, "step": 2, "metric": 0.6, "train_loss": {"a": 0.6, "b": 0.1}, "valid": {"a": None}}
    assert read_history(written(tmp_path, LINE, second), ["b", "a"]) == {
        "rows": [10, 20],
        "step": [1, 2],
        "metric": [0.5, 0.6],
        "best": [True, True],
        "train_loss": {"b": [0.2, 0.1], "a": [0.7, 0.6]},
        "valid": {"b": [None, None], "a": [0.5, None]},
    }


def test_what_a_balancer_records(tmp_path: Path) -> None:
    second = LINE | {"weights": {"a": 1.5, "b": 0.5}, "gradient_norms": {"a": 2.0}, "cosines": [[1, -0.5], [-0.5, 1]]}
    found = read_history(written(tmp_path, LINE, second), ["a", "b"])
    assert found["weights"] == {"a": [None, 1.5], "b": [None, 0.5]}
    assert found["gradient_norms"] == {"a": [None, 2.0], "b": [None, None]}
    assert found["cosines"] == [None, [[1, -0.5], [-0.5, 1]]]
    assert "weights" not in read_history(written(tmp_path, LINE | {"weights": {}}), ["a", "b"])


def test_no_line_yet(tmp_path: Path) -> None:
    assert read_history(written(tmp_path), ["a"])["train_loss"] == {"a": []}


def test_a_damaged_line_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"rows": 1\n')
    with pytest.raises(RunError, match="a run's history must be whole"):
        read_history(tmp_path / "history.jsonl", ["a"])
    with pytest.raises(RunError, match="a run's history must be whole"):
        read_history(tmp_path / "absent.jsonl", ["a"])
