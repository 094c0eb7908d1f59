"""A history read back: columns by task, gaps as None, what a balancer did not record left out."""

import json
from pathlib import Path

import pytest

from polyrank.errors import RunError
from polyrank.training.history import read_history

LINE = {
    "rows": 10,
    "step": 1,
    "metric": 0.5,
    "best": True,
    "seconds": 1.5,
    "train_loss": {"a": 0.7, "b": 0.2},
    "valid": {"a": 0.5},
}


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


def point(step: int, weight: float, cosine: float | None) -> dict[str, object]:
    return {
        "step": step,
        "losses": {"a": 0.5, "b": None},
        "weights": {"a": weight, "b": 2.0 - weight},
        "norms": {"a": 4.0, "b": None},
        "cosines": [[1.0, cosine], [cosine, 1.0]],
    }


def test_what_a_balancer_did_runs_on_over_the_lines(tmp_path: Path) -> None:
    lines = [
        LINE | {"balance": [point(1, 1.0, 0.5), point(2, 1.5, None)]},
        LINE,
        LINE | {"balance": [point(3, 0.5, -1)]},
    ]
    assert read_history(written(tmp_path, *lines), ["a", "b"])["balance"] == {
        "step": [1, 2, 3],
        "losses": {"a": [0.5, 0.5, 0.5], "b": [None, None, None]},
        "weights": {"a": [1.0, 1.5, 0.5], "b": [1.0, 0.5, 1.5]},
        "norms": {"a": [4.0, 4.0, 4.0], "b": [None, None, None]},
        "cosines": [[[1.0, 0.5], [0.5, 1.0]], [[1.0, None], [None, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]],
    }
    assert "balance" not in read_history(written(tmp_path, LINE), ["a", "b"])


def test_too_many_points_are_averaged_with_their_neighbours(tmp_path: Path) -> None:
    record = [point(step, float(step), None if step == 2 else 0.1 * step) for step in range(1, 6)]
    found = read_history(written(tmp_path, LINE | {"balance": record}), ["a", "b"], points=3)["balance"]
    assert found["step"] == [2, 4, 5]
    assert found["weights"]["a"] == [1.5, 3.5, 5.0]
    assert [matrix[0][1] for matrix in found["cosines"]] == pytest.approx([0.1, 0.35, 0.5])


def test_no_line_yet(tmp_path: Path) -> None:
    assert read_history(written(tmp_path), ["a"])["train_loss"] == {"a": []}


def test_a_damaged_line_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"rows": 1\n')
    with pytest.raises(RunError, match="a run's history must be whole"):
        read_history(tmp_path / "history.jsonl", ["a"])
    with pytest.raises(RunError, match="a run's history must be whole"):
        read_history(tmp_path / "absent.jsonl", ["a"])
