from polyrank.training.bests import TaskBests

NAN = float("nan")


def test_each_task_has_its_own_best():
    bests = TaskBests(("a", "b"), patience=0)
    assert bests.note({"a": 0.6, "b": 0.7}, 10, overall=True) == ["a", "b"]
    assert bests.note({"a": 0.8, "b": 0.6}, 20, overall=True) == ["a"]
    assert bests.note({"a": 0.7, "b": 0.7}, 30, overall=False) == []
    assert bests.summary() == {
        "overall": {"step": 20, "valid": {"a": 0.8, "b": 0.6}},
        "per_task": {"a": {"step": 20, "valid": 0.8}, "b": {"step": 10, "valid": 0.7}},
    }
    assert not any(bests.stopped.values())


def test_a_task_that_has_had_enough_stops():
    bests = TaskBests(("a", "b"), patience=2)
    for step, (a, b) in enumerate([(0.5, 0.5), (0.4, 0.6), (0.4, 0.7)]):
        bests.note({"a": a, "b": b}, step, overall=False)
    assert bests.stopped == {"a": True, "b": False}


def test_what_validation_cannot_rank_is_never_best_and_never_stops():
    bests = TaskBests(("a",), patience=1)
    for step in range(3):
        assert bests.note({"a": NAN}, step, overall=True) == []
    assert bests.summary() == {
        "overall": {"step": 2, "valid": {"a": None}},
        "per_task": {"a": {"step": -1, "valid": None}},
    }
    assert bests.stopped == {"a": False}


def test_state_survives():
    bests, again = TaskBests(("a",), 1), TaskBests(("a",), 1)
    for step, value in enumerate((0.5, 0.4)):
        bests.note({"a": value}, step, overall=step == 0)
    again.load_state_dict(bests.state_dict())
    assert again.summary() == bests.summary()
    assert again.stopped == {"a": True}
