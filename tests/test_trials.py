"""Trials on functions whose best point is known: proposals, pruning, fronts, and a search that was cut off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyrank.errors import RunError
from polyrank.settings import Range, TuneConfig
from polyrank.trials import Trials

SPACE = {"x": Range(-2.0, 2.0), "y": Range(-2.0, 2.0), "z": Range(choices=("a", "b"))}
FIRST = {"x": 1.5, "y": -1.5, "z": '"b"'}


def opened(folder: Path, first: dict[str, Any] | None = FIRST, **config: Any) -> Trials:
    return Trials(folder / "trials.journal", TuneConfig(**{"startup": 5, **config}), SPACE, first)


def bowl(values: dict[str, Any]) -> float:
    """Best, 0, at x = 0.5, y = -0.5, z = a."""
    return -((values["x"] - 0.5) ** 2) - (values["y"] + 0.5) ** 2 - (values["z"] == "b")


def trade(values: dict[str, Any]) -> tuple[float, float]:
    """Best together on the line from x = 0 to x = 1, with y = 0 and z = a."""
    away = values["y"] ** 2 + (values["z"] == "b")
    return -(values["x"] ** 2) - away, -((values["x"] - 1) ** 2) - away


def searched(trials: Trials, count: int) -> list[dict[str, Any]]:
    for _ in range(len(trials.ended), count):
        trial, values = trials.next()
        reached = trade(values) if len(trials.config.objectives) == 2 else (bowl(values),)
        trials.complete(trial, reached)
    return trials.described()


def test_the_first_trial_is_the_config_as_it_is(tmp_path: Path) -> None:
    first, second = searched(opened(tmp_path), 2)
    assert first["parameters"] == {"x": 1.5, "y": -1.5, "z": "b"}
    assert first["values"] == [-1.0 - 1.0 - 1.0]
    assert second["parameters"] != first["parameters"]
    assert opened(tmp_path).baseline == 0


def test_without_own_values_there_is_no_baseline(tmp_path: Path) -> None:
    trials = opened(tmp_path, first=None)
    searched(trials, 2)
    assert trials.baseline is None
    assert opened(tmp_path, first=None).baseline is None


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_search_in_pieces_equals_one_in_a_whole(tmp_path: Path, sampler: str) -> None:
    count = 24
    whole = searched(opened(tmp_path / "whole", sampler=sampler, population=4), count)
    for upto in (1, 2, 7, 13, count):
        pieces = searched(opened(tmp_path / "pieces", sampler=sampler, population=4), upto)
    assert pieces == whole
    others = searched(opened(tmp_path / "others", sampler=sampler, population=4, seed=1), count)
    assert others[1:] != whole[1:]


@pytest.mark.parametrize("proposed", [0, 1, 6])
def test_a_trial_that_was_cut_off_is_proposed_again(tmp_path: Path, proposed: int) -> None:
    whole = searched(opened(tmp_path / "whole"), 8)
    cut = opened(tmp_path / "cut")
    searched(cut, proposed)
    trial, values = cut.next()
    cut.report(trial, 0.5, 0)
    again, same = opened(tmp_path / "cut").next()
    assert (again.number, same) == (trial.number, values)
    resumed = opened(tmp_path / "cut")
    assert resumed.report(resumed.next()[0], 0.5, 0) is False  # told once, told again: no difference, no warning
    pieces = searched(resumed, 8)
    pieces[proposed]["evaluations"] = []
    assert pieces == whole


def test_what_a_killed_process_left_does_not_matter(tmp_path: Path) -> None:
    searched(opened(tmp_path), 3)
    journal = tmp_path / "trials.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "worker')
    (tmp_path / "trials.journal.lock").symlink_to(journal)
    assert len(searched(opened(tmp_path), 4)) == 4


def test_a_damaged_journal_is_one_clear_error(tmp_path: Path) -> None:
    searched(opened(tmp_path), 2)
    lines = (tmp_path / "trials.journal").read_text().splitlines()
    (tmp_path / "trials.journal").write_text("\n".join(["{nonsense", *lines]) + "\n")
    with pytest.raises(RunError, match="the journal of trials must be whole"):
        opened(tmp_path)


def test_tpe_finds_the_bowl_better_than_chance(tmp_path: Path) -> None:
    best = {
        sampler: max(t["values"][0] for t in searched(opened(tmp_path / sampler, first=None, sampler=sampler), 40))
        for sampler in ("tpe", "random")
    }
    assert best["tpe"] > -0.05
    assert best["tpe"] > best["random"]


def test_the_best_is_the_first_of_equals(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    for value in (0.1, 0.7, 0.7, 0.3):
        trials.complete(trials.next()[0], [value])
    assert trials.chosen == [1]


def test_the_front_is_what_nothing_dominates(tmp_path: Path) -> None:
    trials = opened(tmp_path, objectives=("click", "like"))
    described = searched(trials, 30)
    values = np.array([trial["values"] for trial in described])
    by_hand = [
        i for i, own in enumerate(values) if not ((values >= own).all(axis=1) & (values > own).any(axis=1)).any()
    ]
    assert trials.chosen == by_hand
    assert 1 < len(by_hand) < 30


def test_a_hopeless_trial_is_pruned_at_the_median(tmp_path: Path) -> None:
    trials = opened(tmp_path, prune_after=1)
    for value in (0.5, 0.6, 0.7, 0.8):
        trial, _ = trials.next()
        assert not any(trials.report(trial, value * part, i) for i, part in enumerate((0.5, 0.9, 1.0)))
        trials.complete(trial, [value])
    trial, _ = trials.next()
    assert not trials.report(trial, 0.01, 0)  # the first evaluation is free
    assert trials.report(trial, 0.02, 1)  # the median there is 0.9 × 0.65
    trials.prune(trial)
    state = trials.described()[-1]
    assert (state["state"], state["values"], state["evaluations"]) == ("pruned", None, [0.01, 0.02])
    trial, _ = trials.next()
    assert not trials.report(trial, 0.30, 0)
    assert not trials.report(trial, 0.60, 1)
    assert trials.chosen == [3]


def test_pruning_can_be_declined_and_needs_one_objective(tmp_path: Path) -> None:
    for index, config in enumerate(({"prune": False}, {"objectives": ("click", "like")})):
        trials = opened(tmp_path / str(index), **config)
        for value in (0.5, 0.6, 0.7, 0.8, 0.0):
            trial, _ = trials.next()
            assert not any(trials.report(trial, value, step) for step in range(3))
            trials.complete(trial, [value] * len(trials.config.objectives))


def test_a_failed_trial_says_why_and_is_never_chosen(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    trials.fail(trials.next()[0], "losses must stay finite")
    assert (trials.chosen, trials.baseline) == ([], None)
    assert [(t["state"], t["why"]) for t in trials.described()] == [("fail", "losses must stay finite")]
    searched(trials, 3)
    assert trials.baseline is None  # the config as it is was tried, and came to nothing
    assert trials.chosen[0] in (1, 2)


def test_importance_sees_what_matters(tmp_path: Path) -> None:
    trials = opened(tmp_path, first=None, sampler="random")
    for _ in range(30):
        trial, values = trials.next()
        trials.complete(trial, [values["x"] + 0.01 * values["y"]])
    shares = trials.importance()["mean"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["x"] > 0.8


def test_importance_of_too_little_is_nothing(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    for _ in range(6):
        trials.complete(trials.next()[0], [0.5])
    assert trials.importance() == {}


def test_what_is_described_is_json(tmp_path: Path) -> None:
    described = searched(opened(tmp_path), 3)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
