"""Seconds that the metrics take on ten million rows of a million users, beside scikit-learn's AUC.

    python benchmarks/metrics_speed.py [rows] [groups]

Prints them, and writes benchmarks/results/<date>-metrics-speed-<rows>.json.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np
from sklearn.metrics import roc_auc_score

from polyrank.metrics import bootstrap, calibration, ranking

T = TypeVar("T")
SECONDS: dict[str, float] = {}


def timed(name: str, work: Callable[[], T]) -> T:
    """Run ``work`` once, print its wall seconds, return its result."""
    start = time.perf_counter()
    result = work()
    SECONDS[name] = round(time.perf_counter() - start, 3)
    print(f"{name:<44}{SECONDS[name]:8.2f} s", flush=True)
    return result


def main(rows: int = 10_000_000, groups: int = 1_000_000) -> None:
    """Time each metric on one click task: 10 % positives, float32 probabilities, users of uneven activity."""
    rng = np.random.default_rng(0)
    scores = rng.beta(1, 9, rows).astype(np.float32)
    labels = (rng.random(rows) < scores).astype(np.float32)
    users = (groups * rng.random(rows) ** 2).astype(np.int64)
    seconds = rng.exponential(20, rows).astype(np.float32)
    print(f"{rows:,} rows, {len(np.unique(users)):,} groups, {labels.mean():.1%} positives, numpy {np.__version__}")

    ours = timed("auc", lambda: ranking.auc(scores, labels))
    theirs = timed("auc, scikit-learn", lambda: float(roc_auc_score(labels, scores)))
    print(f"{'difference':<44}{abs(ours - theirs):8.0e}")

    sweep = timed("AucSweep, the sort", lambda: ranking.AucSweep(scores, labels))
    weights = next(bootstrap.group_weights(users, rows, 1, seed=0))
    timed("AucSweep.value, one bootstrap replicate", lambda: sweep.value(weights))
    timed("AucState.of", lambda: ranking.AucState.of(scores, labels))
    timed("gauc", lambda: ranking.gauc(scores, labels, users))
    timed("log_loss", lambda: calibration.log_loss(scores, labels))
    timed("expected_calibration_error", lambda: calibration.expected_calibration_error(scores, labels))
    timed("xauc", lambda: ranking.xauc(scores, seconds))
    result = {"command": " ".join(["python", *sys.argv]), "rows": rows, "groups": groups, "seconds": SECONDS}
    result["difference_to_scikit_learn"] = abs(ours - theirs)
    target = Path(__file__).parent / f"results/{date.today().isoformat()}-metrics-speed-{rows}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
