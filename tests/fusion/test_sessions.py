"""Session logs: written and read, and what may not be in one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyrank.errors import DataError
from polyrank.fusion.sessions import read_sessions, write_sessions


def table(**changes):
    columns = {
        "session_id": pa.array([7, 7, 3], pa.int64()),
        "step": pa.array([1, 0, 0], pa.int32()),
        "state": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())),
        "action": pa.array([[0.1], [0.2], [0.3]], pa.list_(pa.float32())),
        "behavior_log_density": pa.array([-1.0, -2.0, -3.0]),
        "reward": pa.array([1.0, 2.0, 3.0], pa.float32()),
        "done": pa.array([True, False, False]),
        "signal_dwell": pa.array([10.0, 20.0, 30.0], pa.float32()),
    }
    return pa.table({name: value for name, value in {**columns, **changes}.items() if value is not None})


def test_rows_come_in_order_of_session_and_step(tmp_path):
    pq.write_table(table(), tmp_path / "log.parquet")
    log = read_sessions(tmp_path / "log.parquet")
    assert log.sessions.tolist() == [3, 7]
    assert log.starts.tolist() == [0, 1, 3]
    assert log.lengths.tolist() == [1, 2]
    assert log.states.tolist() == [[5, 6], [3, 4], [1, 2]]
    assert log.rewards.tolist() == [3, 2, 1]
    assert log.done.tolist() == [False, False, True]  # session 3 was cut off
    assert log.outcomes.tolist() == [1, 2]  # what came after session 3's only step nobody knows
    assert log.signals["dwell"].tolist() == [30, 20, 10]
    np.testing.assert_array_equal(log.padded(log.rewards, np.nan), [[3, np.nan], [2, 1]])


def test_written_and_read_again_is_the_same(tmp_path):
    pq.write_table(table(), tmp_path / "log.parquet")
    log = read_sessions(tmp_path / "log.parquet")
    write_sessions(log, tmp_path / "again.parquet")
    again = read_sessions(tmp_path / "again.parquet")
    for name in ("sessions", "starts", "states", "actions", "log_densities", "rewards", "done"):
        np.testing.assert_array_equal(getattr(again, name), getattr(log, name))
    assert again.signals["dwell"].tolist() == log.signals["dwell"].tolist()
    assert str(pq.read_schema(tmp_path / "again.parquet").field("state").type).startswith("list<")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": None}, "must have the column 'reward'"),
        ({"step": pa.array([2, 0, 0], pa.int32())}, r"(?s)count 0, 1, 2.*step 2 where 1 was due in session 7"),
        ({"step": pa.array([0, 0, 0], pa.int32())}, "count 0, 1, 2"),
        ({"done": pa.array([False, True, True])}, r"(?s)done must be a session's last step.*step 0 of session 7"),
        ({"reward": pa.array([1.0, float("nan"), 1.0])}, "reward must be finite"),
        ({"behavior_log_density": pa.array([1.0, None, 1.0])}, "behavior_log_density must be finite"),
        ({"state": pa.array([[1.0], [1.0, 2.0], [1.0]], pa.list_(pa.float32()))}, "all of one length"),
        ({"action": pa.array([1.0, 2.0, 3.0])}, "lists of numbers"),
        ({"action": pa.array([[None], [1.0], [1.0]], pa.list_(pa.float32()))}, "action must be finite"),
        ({"reward": pa.array(["a", "b", "c"])}, "reward must be numbers"),
    ],
)
def test_what_breaks_a_rule_is_named(tmp_path, changes, message):
    pq.write_table(table(**changes), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        read_sessions(tmp_path / "log.parquet")


def test_no_parquet_and_no_rows(tmp_path):
    (tmp_path / "log.parquet").write_text("no")
    with pytest.raises(DataError, match="must be a Parquet file"):
        read_sessions(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="no such file"):
        read_sessions(tmp_path / "nothere.parquet")
    pq.write_table(table().slice(0, 0), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="must hold a session"):
        read_sessions(tmp_path / "log.parquet")
