"""Six heads on KuaiRand: a PLE trained on its standard log, and the requests of what it predicts for the days after.

The data is train.parquet and valid.parquet of KuaiRand-Pure's standard log (Gao et al. 2022, CC BY-SA 4.0), joined with
user and video features; it is not part of this project.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyrank.evaluation.requests import Requests, request_ids
from polyrank.experiment import score, train_settings
from polyrank.fusion.reward import RewardConfig, reward
from polyrank.progress import Progress
from polyrank.settings import parse_settings

CAP = 300.0  # seconds watched that count at most: the longest twentieth of the videos lasts longer
TASKS = {
    "click": "binary",
    "long_view": "binary",
    "like": "binary",
    "profile_enter": "binary",
    "comment_stay": "binary",
    "watch": "regression",
}
CATEGORIES = ("tab", "hour", "user_active_degree", "video_type", "upload_type", "music_type", "is_live_streamer")
CATEGORIES += ("is_video_author", *(f"onehot_feat{index}" for index in range(18)))
NUMBERS = ("duration_ms", "follow_user_num", "fans_user_num", "friend_user_num", "register_days")
HISTORIES = ("watched_videos", "long_viewed_videos", "liked_videos")
CONTEXT = ("seconds", "history", "active")
# Declared before anything was measured: a like is worth five clicks, a minute of watching 1.2.
REWARD = RewardConfig(
    {"click": 1.0, "long_view": 2.0, "like": 5.0, "profile_enter": 4.0, "comment_stay": 3.0, "watch": 0.02}
)
CONFIG: dict[str, Any] = {
    "data": {"schema": "schema.toml", "train": "train.parquet", "valid_share": 0.1, "leak_guard": False},
    "model": {"architecture": "ple", "embedding_width": 16, "embedding_dropout": 0.3},
    "train": {"epochs": 5, "batch_size": 1024, "learning_rate": 2e-3, "patience": 3, "evaluations_per_epoch": 2},
}


def schema() -> str:
    """The schema file."""
    lines = ['group = "user_id"', 'time = "time_ms"']
    for name, kind in TASKS.items():
        lines += ["[[tasks]]", f'name = "{name}"', f'kind = "{kind}"']
    kinds = dict.fromkeys(("user_id", "video_id", "author_id", "music_id"), "id")
    kinds |= dict.fromkeys(CATEGORIES, "category") | dict.fromkeys(NUMBERS, "number") | {"tag": "tags"}
    for name, kind in kinds.items():
        lines += ["[[features]]", f'name = "{name}"', f'kind = "{kind}"']
    for name in HISTORIES:
        lines += ["[[features]]", f'name = "{name}"', 'kind = "sequence"', 'shares = "video_id"', "max_length = 30"]
    return "\n".join(lines) + "\n"


def with_labels(table: pa.Table) -> pa.Table:
    """The tasks' columns beside the features: seconds watched are capped, so that a loop of one video is no outlier."""
    labels = {
        "click": table["is_click"],
        "long_view": table["long_view"],
        "like": table["is_like"],
        "profile_enter": table["is_profile_enter"],
        "comment_stay": pc.cast(pc.greater(table["comment_stay_time"], 0), pa.int8()),
        "watch": pc.min_element_wise(pc.divide(pc.cast(table["play_time_ms"], pa.float64()), 1000.0), CAP),
    }
    for name, values in labels.items():
        table = table.drop_columns(name) if name in table.column_names else table
        table = table.append_column(name, values)
    return table


def predictions(data: Path, out: Path, progress: Progress) -> pa.Table:
    """`valid` with the trained PLE's p_<task>."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "schema.toml").write_text(schema())
    for part in ("train", "valid"):
        if not (out / f"{part}.parquet").exists():
            pq.write_table(with_labels(pq.read_table(data / f"{part}.parquet")), out / f"{part}.parquet")
    run = out / "ple"
    if not (run / "metrics.json").exists():
        train_settings(parse_settings(CONFIG, out), run, resume=run.exists(), progress=progress)
    if not (out / "scores.parquet").exists():
        score(run, str(out / "valid.parquet"), out / "scores.parquet", progress)
    valid = pq.read_table(out / "valid.parquet")
    scores = pq.read_table(out / "scores.parquet")
    for name in scores.column_names:
        valid = valid.append_column(name, scores[name])
    return valid


def rows_of(valid: pa.Table, by: tuple[str, ...]) -> Requests:
    """Heads, context and labels of every row, grouped by the columns `by`."""
    columns = {task: np.asarray(valid[f"p_{task}"], np.float64) for task in TASKS}
    columns["seconds"] = np.asarray(valid["duration_ms"], np.float64) / 1000
    columns["history"] = np.asarray(pc.fill_null(pc.list_value_length(valid["watched_videos"]), 0), np.float64)
    columns["active"] = np.asarray(pc.equal(valid["user_active_degree"], "full_active"), np.float64)
    labels = {task: np.asarray(valid[task], np.float64) for task in TASKS}
    requests = request_ids(*(np.asarray(valid[name]) for name in by))
    users = np.asarray(valid["user_id"], np.int64)
    return Requests(columns, tuple(TASKS), labels, frozenset({"watch"}), requests, users, reward(labels, REWARD))
