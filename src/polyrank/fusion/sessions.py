"""Session logs: what reinforcement learning and off-policy evaluation read.

S sessions, N steps, D state numbers, K fusion weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyrank import config
from polyrank.errors import DataError
from polyrank.metrics.checks import Floats, Rows

COLUMNS = ("session_id", "step", "state", "action", "behavior_log_density", "reward", "done")


@dataclass(frozen=True)
class SessionLog:
    """Steps in order of session and step; a session is a row from `starts[s]` to `starts[s + 1]`.

    A session ends with `done`, or is cut off (the log ends before it): what came after its last step is then unknown.

    Attributes:
        sessions: `[S]` int64 ids, increasing.
        starts: `[S + 1]` int64.
        states: `[N, D]` float32.
        actions: `[N, K]` float32: the fusion weights that were used.
        log_densities: `[N]` float64: log μ(action | state) of the policy that chose them.
        rewards: `[N]` float64.
        done: `[N]` bool.
        signals: `[N]` float32 by name: the columns `signal_<name>`.
    """

    sessions: Rows
    starts: Rows
    states: Rows
    actions: Rows
    log_densities: Floats
    rewards: Floats
    done: Rows
    signals: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def lengths(self) -> Rows:
        """`[S]` steps of each session."""
        return np.diff(self.starts)

    @property
    def owners(self) -> Rows:
        """`[N]` the session of each step, counted from 0."""
        return np.repeat(np.arange(len(self.sessions)), self.lengths)

    @property
    def outcomes(self) -> Rows:
        """Numbers of the steps whose outcome is in the log: another follows, or the session is done."""
        going = np.ones(len(self.rewards), np.bool_)
        going[self.starts[1:] - 1] = False
        return np.flatnonzero(going | self.done)

    def select(self, sessions: Rows) -> "SessionLog":
        """The sessions that `[S]` bool names."""
        mine = np.asarray(sessions, np.bool_)
        rows = np.repeat(mine, self.lengths)
        starts = np.append(0, np.cumsum(self.lengths[mine]))
        return SessionLog(
            self.sessions[mine],
            starts,
            self.states[rows],
            self.actions[rows],
            self.log_densities[rows],
            self.rewards[rows],
            self.done[rows],
            {name: values[rows] for name, values in self.signals.items()},
        )

    def padded(self, values: Rows, fill: float = 0.0) -> Floats:
        """`[N]` values by session and step, `[S, longest]`, with `fill` after a session's end."""
        lengths = self.lengths
        out = np.full((len(lengths), int(lengths.max(initial=0))), fill, np.float64)
        out[np.arange(out.shape[1]) < lengths[:, None]] = values
        return out


def read_sessions(path: Path) -> SessionLog:
    """Read a session log, in any order of rows.

    A Parquet file of the columns `session_id int64, step int32, state list<float32>, action list<float32>,
    behavior_log_density float64, reward float32, done bool`, and any `signal_<name> float32`.

    Raises:
        DataError: it cannot be read, lacks a column, or breaks a rule: lists of one length, everything finite, the
            steps of a session counted 0, 1, 2 … and `done` nowhere but at its last.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(
            "a session log must be there", received=f"{path}: no such file", mend="check the path"
        ) from error
    except (OSError, pa.ArrowException) as error:
        mend = "write the file again: it is of another kind, or truncated"
        raise DataError("a session log must be a Parquet file", received=f"{path}: {error}", mend=mend) from error
    for name in COLUMNS:
        if name not in table.column_names:
            raise DataError(
                f"{path} must have the column {name!r}",
                received=", ".join(table.column_names),
                mend=config.nearest(name, table.column_names),
            )
    if not table.num_rows:
        raise DataError(f"{path} must hold a session", received="no row", mend="give a log that has some")
    order = np.lexsort((_numbers(table, "step", path), _numbers(table, "session_id", path)))
    table = table.take(pa.array(order))
    ids, steps = (_numbers(table, name, path).astype(np.int64) for name in ("session_id", "step"))
    sessions, first = np.unique(ids, return_index=True)
    starts = np.append(first, len(ids)).astype(np.int64)
    counted = np.arange(len(ids)) - np.repeat(first, np.diff(starts))
    if (steps != counted).any():
        at = int(np.flatnonzero(steps != counted)[0])
        raise DataError(
            f"{path}: the steps of a session must count 0, 1, 2 …, each once",
            received=f"step {steps[at]} where {counted[at]} was due in session {ids[at]}",
            mend="renumber them, or leave incomplete sessions out",
        )
    done = _numbers(table, "done", path).astype(np.bool_)
    last = np.zeros(len(ids), np.bool_)
    last[starts[1:] - 1] = True
    if (done & ~last).any():
        at = int(np.flatnonzero(done & ~last)[0])
        received = f"step {steps[at]} of session {ids[at]}, which goes on"
        raise DataError(f"{path}: done must be a session's last step", received=received, mend="correct done")
    return SessionLog(
        sessions,
        starts,
        _lists(table, "state", path),
        _lists(table, "action", path),
        _numbers(table, "behavior_log_density", path),
        _numbers(table, "reward", path),
        done,
        {n.removeprefix("signal_"): _numbers(table, n, path) for n in table.column_names if n.startswith("signal_")},
    )


def write_sessions(log: SessionLog, path: Path) -> None:
    """Write a log as `read_sessions` reads it."""
    lengths = log.lengths
    steps = np.arange(len(log.rewards)) - np.repeat(log.starts[:-1], lengths)
    columns = {
        "session_id": pa.array(np.repeat(log.sessions, lengths), pa.int64()),
        "step": pa.array(steps, pa.int32()),
        **{name: _listed(values) for name, values in (("state", log.states), ("action", log.actions))},
        "behavior_log_density": pa.array(log.log_densities, pa.float64()),
        "reward": pa.array(log.rewards, pa.float32()),
        "done": pa.array(log.done, pa.bool_()),
        **{f"signal_{name}": pa.array(values, pa.float32()) for name, values in log.signals.items()},
    }
    pq.write_table(pa.table(columns), path)


def _listed(values: Rows) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(pa.float32()))


def _numbers(table: pa.Table, name: str, path: Path) -> Floats:
    try:
        values = table[name].to_numpy().astype(np.float64)
    except (TypeError, ValueError) as error:
        kind = str(table[name].type)
        raise DataError(f"{path}: {name} must be numbers", received=kind, mend="convert it") from error
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"{path}: {name} must be finite", received=f"{values[at]} in row {at}", mend="leave such sessions out"
        )
    numbers: Floats = values
    return numbers


def _lists(table: pa.Table, name: str, path: Path) -> Rows:
    column = table[name].combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False) if pa.types.is_list(column.type) else np.zeros(0)
    if not len(lengths) or (lengths != lengths[0]).any() or not lengths[0] > 0:
        received = f"{column.type}" + (f", lengths {lengths.min()} to {lengths.max()}" if len(lengths) else "")
        rule = f"{path}: {name} must be lists of numbers, all of one length"
        raise DataError(rule, received=received, mend="write list<float32> of a fixed length")
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(values).all():
        rule = f"{path}: {name} must be finite"
        raise DataError(rule, received="nan, inf or null in a list", mend="leave such sessions out")
    matrix: Rows = values.reshape(len(lengths), int(lengths[0]))
    return matrix
