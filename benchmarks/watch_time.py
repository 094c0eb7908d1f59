"""Heads for watch time on KuaiRand: MAE, XAUC and XAUC within users, overall and by the duration of the video.

    python benchmarks/watch_time.py KUAIRAND [--out runs/watch_time]

KUAIRAND is a directory with train.parquet and valid.parquet (Gao et al. 2022, KuaiRand-Pure standard log, joined with
user and video features; not part of the project). Trained on the first, of whose rows the latest tenth chooses the
epoch; measured on the second, which chooses nothing. Every head has the same network, features and budget, and three
seeds. What is done is kept in --out: the same command goes on. About eight minutes on two cores.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from polyrank.config import write_toml
from polyrank.data.store import EncodedData
from polyrank.evaluation.boosting import boost
from polyrank.experiment import score, train_settings
from polyrank.files import read_json, write_json
from polyrank.metrics.amounts import duration_metrics
from polyrank.metrics.ranking import xauc
from polyrank.metrics.summary import mae
from polyrank.progress import Terminal
from polyrank.runs import load_run
from polyrank.settings import parse_settings

HERE = Path(__file__).parent
TASKS: dict[str, dict[str, Any]] = {
    "regression": {"kind": "regression"},
    "log_normal": {"kind": "duration", "head": "log_normal"},
    "ordinal": {"kind": "duration", "head": "ordinal"},
    "cread": {"kind": "duration", "head": "cread"},
    "d2q": {"kind": "duration", "head": "d2q", "item_duration": "video_duration"},
}
SEEDS = (0, 1, 2)
KINDS = {
    "id": ["user_id", "video_id", "author_id", "music_id"],
    "category": [
        "tab",
        "hour",
        "user_active_degree",
        "video_type",
        "upload_type",
        *(f"onehot_feat{i}" for i in range(12)),
    ],
    "number": ["video_duration", "register_days", "fans_user_num", "follow_user_num", "friend_user_num"],
    "tags": ["tag"],
    "sequence": ["watched_videos", "long_viewed_videos"],
}
METRICS = ("mae", "rmse", "mean_ratio", "xauc", "xgauc")


def schema(task: dict[str, Any]) -> dict[str, Any]:
    """The schema with one task; D2Q's groups are the 30 bins of the video's duration."""
    features = [{"name": name, "kind": kind} for kind, names in KINDS.items() for name in names]
    for feature in features:
        feature |= {"shares": "video_id"} if feature["kind"] == "sequence" else {}
        feature |= {"bins": 30} if feature["name"] == "video_duration" else {}
    tasks = [{"name": "watch", "column": "play_time_ms", **task}]
    return {"group": "user_id", "time": "time_ms", "features": features, "tasks": tasks}


def settings(name: str, data: Path, seed: int, out: Path) -> Any:
    """One training of at most three epochs; the best one is chosen by XAUC."""
    write_toml(out / f"{name}.toml", schema(TASKS[name]))
    return parse_settings(
        {
            "data": {
                "schema": str(out / f"{name}.toml"),
                "train": str(data / "train.parquet"),
                "test": str(data / "valid.parquet"),
                "leak_guard": False,
            },
            "model": {
                "architecture": "shared_bottom",
                "embedding_width": 16,
                "embedding_dropout": 0.5,
                "shared_bottom": {"widths": [128, 64], "dropout": 0.2},
            },
            "train": {"epochs": 3, "batch_size": 1024, "learning_rate": 2e-3, "seed": seed},
        },
        out,
    )


def judged(predictions: np.ndarray, truth: Any, buckets: np.ndarray) -> dict[str, Any]:
    """All metrics over all rows, and MAE and XAUC by quarter of the video's duration (rows without one left out)."""
    labels, users = truth["play_time_ms"].astype(np.float64), truth["user_id"]
    found = {key: duration_metrics(predictions, labels, users, replicates=0)[key] for key in METRICS}
    parts = [buckets == quarter for quarter in range(4)]
    return found | {
        "mae_by_quarter": [mae(predictions[part], labels[part]) for part in parts],
        "xauc_by_quarter": [xauc(predictions[part], labels[part]) for part in parts],
    }


def main() -> None:
    """Train what is missing, judge all, write the two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="KUAIRAND")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs/watch_time")
    arguments = parser.parse_args()
    out, data = arguments.out.resolve(), arguments.data.resolve()
    columns = ["play_time_ms", "user_id", "video_duration"]
    table = pq.read_table(data / "valid.parquet", columns=columns)
    truth = {name: table[name].to_numpy(zero_copy_only=False) for name in columns}
    length = truth["video_duration"]
    quarters = np.nanquantile(length, [0.25, 0.5, 0.75])
    buckets = np.where(np.isnan(length), -1, np.searchsorted(quarters, length, side="right"))
    found: dict[str, list[dict[str, Any]]] = {}
    for name in TASKS:
        for seed in SEEDS:
            run = out / f"{name}-{seed}"
            if not (run / "judged.json").exists():
                train_settings(settings(name, data, seed, out), run, resume=run.exists(), progress=Terminal())
                score(run, str(data / "valid.parquet"), run / "scores.parquet", Terminal())
                predictions = pq.read_table(run / "scores.parquet")["p_watch"].to_numpy()
                write_json(run / "judged.json", judged(predictions, truth, buckets))
            found.setdefault(name, []).append(read_json(run / "judged.json"))
    for name, label in (("regression", "LightGBM, L2"), ("d2q", "LightGBM, Tweedie")):
        path = out / f"lightgbm-{name}.json"
        if not path.exists():
            run = load_run(out / f"{name}-0")
            parts = [EncodedData.open(out / f"{name}-0/encoded" / part) for part in ("train", "valid", "test")]
            boosted = boost(run.schema, run.encoders.layout, "watch", *parts, rows=10**7, threads=2)
            write_json(path, judged(boosted.predictions, truth, buckets))
        found[label] = [read_json(path)]
    target = HERE / f"results/{date.today().isoformat()}-watch-time"
    command = "python benchmarks/watch_time.py KUAIRAND"
    document = {
        "command": command,
        "seeds": SEEDS,
        "rows": len(length),
        "quarters_ms": quarters.tolist(),
        "heads": found,
    }
    target.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(document))
    print(markdown(document))


def markdown(document: dict[str, Any]) -> str:
    """The tables: mean over seeds ± their standard deviation."""

    def spread(values: list[float], scale: float, digits: int) -> str:
        std = f" ± {np.std(values, ddof=1) / scale:.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values) / scale:.{digits}f}{std}"

    quarters = [f"{q / 1000:.0f} s" for q in document["quarters_ms"]]
    names = [f"up to {quarters[0]}", *(f"to {q}" for q in quarters[1:]), "longer"]
    lines = [
        f"KuaiRand watch time, {document['rows']:,} test rows, {len(document['seeds'])} seeds: `{document['command']}`",
        "",
        "| head | MAE, s | RMSE, s | mean ŷ / mean y | XAUC | XAUC within users |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    digits = {"mae": (1000, 2), "rmse": (1000, 2), "mean_ratio": (1, 3), "xauc": (1, 4), "xgauc": (1, 4)}
    for head, runs in document["heads"].items():
        cells = (spread([run[key] for run in runs], *digits[key]) for key in METRICS)
        lines.append(f"| {head} | {' | '.join(cells)} |")
    for key, title, scale, places in (("mae", "MAE, s", 1000, 2), ("xauc", "XAUC", 1, 4)):
        lines += ["", f"{title}, by quarter of the video's duration:", ""]
        lines += [f"| head | {' | '.join(names)} |", "|---|---:|---:|---:|---:|"]
        for head, runs in document["heads"].items():
            cells = (spread([run[f"{key}_by_quarter"][q] for run in runs], scale, places) for q in range(4))
            lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
