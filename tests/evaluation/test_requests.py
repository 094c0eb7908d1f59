import numpy as np
import pytest

from polyrank.data.groups import NO_GROUP
from polyrank.evaluation.requests import Requests, request_ids


def some(rows=6, **changes):
    given = {
        "columns": {"click": np.linspace(0.1, 0.9, rows), "length": np.ones(rows)},
        "heads": ("click",),
        "labels": {"click": np.arange(rows) % 2.0},
        "numeric": frozenset(),
        "requests": np.arange(rows) // 2,
        "users": np.arange(rows) // 4,
        "reward": np.ones(rows),
    }
    return Requests(**{**given, **changes})


def test_users_of_requests():
    requests, users = some().request_users()
    np.testing.assert_array_equal(requests, [0, 1, 2])
    np.testing.assert_array_equal(users, [0, 0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": np.arange(6)}, "one user"),
        ({"reward": np.full(6, -1.0)}, "not negative"),
        ({"reward": np.full(6, np.nan)}, "finite"),
        ({"heads": ("like",)}, "'like' must be among"),
        ({"labels": {"click": np.zeros(5)}}, "click must have the shape"),
        ({"joint": {"like": np.zeros(5)}}, "like must have the shape"),
        ({"requests": np.array([0, 0, 1, 1, NO_GROUP, NO_GROUP])}, "must be of a request"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        some(**changes)


def test_select_keeps_everything_aligned():
    part = some().select(np.array([4, 1]))
    assert part.rows == 2
    np.testing.assert_array_equal(part.requests, [2, 0])
    np.testing.assert_allclose(part.columns["click"], [0.74, 0.26])
    np.testing.assert_array_equal(part.labels["click"], [0, 1])
    np.testing.assert_allclose(some(joint={"click": np.arange(6.0)}).select(np.array([4, 1])).joint["click"], [4, 1])


def test_of_size_drops_short_requests():
    data = some(requests=np.array([0, 0, 0, 1, 2, 2]), users=np.zeros(6, np.int64))
    np.testing.assert_array_equal(data.of_size(2).requests, [0, 0, 0, 2, 2])
    assert data.of_size(4).rows == 0


def test_split_shares_no_user_and_loses_no_row():
    data = some(rows=400)
    first, second = data.split(0.3, seed=1)
    assert not set(first.users) & set(second.users)
    assert first.rows + second.rows == 400
    assert len(np.unique(first.users)) == 30
    np.testing.assert_array_equal(data.split(0.3, seed=1)[0].requests, first.requests)
    assert set(data.split(0.3, seed=2)[0].users) != set(first.users)


def test_request_ids_are_the_distinct_combinations():
    ids = request_ids(np.array([2**60, 2**60, 1, 1, 2**60]), np.array(["a", "b", "a", "a", "a"]))
    assert ids.dtype == np.int64
    assert ids[0] == ids[4]
    assert ids[2] == ids[3]
    assert len(set(ids.tolist())) == 3
    assert len(request_ids(np.zeros(0))) == 0
