"""Windows by hand."""

import json

import pytest
import torch

from polyrank.training.balance_log import BalanceLog

TASKS = ["click", "like"]
HERE, ONE = torch.tensor([True, True]), torch.tensor([True, False])


def add(log, step, losses=(1.0, 2.0), present=HERE, weights=(0.5, 1.5), gramian=None):
    log.add(
        step, torch.tensor(losses), present, torch.tensor(weights), None if gramian is None else torch.tensor(gramian)
    )


def test_means_over_a_window():
    log = BalanceLog(TASKS, 2)
    add(log, 1, gramian=[[4.0, -2.0], [-2.0, 4.0]])
    assert log.last
    add(log, 2, losses=(3.0, 4.0), weights=(1.5, 0.5), gramian=[[16.0, 0.0], [0.0, 1.0]])
    assert log.take(2) == [
        {
            "step": 2,
            "losses": {"click": 2.0, "like": 3.0},
            "weights": {"click": 1.0, "like": 1.0},
            "norms": {"click": 3.0, "like": 1.5},
            "cosines": [[1.0, -0.25], [-0.25, 1.0]],
        }
    ]
    assert log.take(2) == []


def test_a_task_counts_in_the_steps_in_which_it_was_there():
    log = BalanceLog(TASKS, 3)
    add(log, 1, gramian=[[1.0, 0.5], [0.5, 1.0]])
    add(log, 2, losses=(3.0, 0.0), present=ONE, weights=(2.0, 0.0), gramian=[[9.0, 0.0], [0.0, 0.0]])
    add(log, 3)
    (point,) = log.take(3)
    assert point["losses"] == {"click": pytest.approx(5 / 3, rel=1e-5), "like": 2.0}
    assert point["weights"] == {"click": 1.0, "like": 1.5}
    assert point["norms"] == {"click": 2.0, "like": 1.0}
    assert point["cosines"][0][1] == 0.5


def test_what_was_never_seen_is_null():
    log = BalanceLog(TASKS, 5)
    add(log, 1, present=ONE)
    (point,) = log.take(1)
    assert point["losses"] == {"click": 1.0, "like": None}
    assert point["norms"] == {"click": None, "like": None}
    assert point["cosines"] == [[None, None], [None, None]]
    json.dumps(point, allow_nan=False)


def test_a_gramian_that_is_not_finite_is_left_out():
    log = BalanceLog(TASKS, 1)
    add(log, 1, gramian=[[float("inf"), 0.0], [0.0, 1.0]])
    assert log.take(1)[0]["norms"] == {"click": None, "like": None}


def test_state_round_trip():
    log = BalanceLog(TASKS, 2)
    for step in (1, 2, 3):
        add(log, step, losses=(float(step), 1.0))
    other = BalanceLog(TASKS, 2)
    other.load_state_dict(json.loads(json.dumps({"steps": log.steps, "points": log.points})) | log.state_dict())
    for each in (log, other):
        add(each, 4)
    assert other.take(4) == log.take(4)
