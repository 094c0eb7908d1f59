"""From a feedback log to scores, in Python: propose a schema, train a model for two goals, score new rows.

    python examples/from_log_to_scores.py

The log is made up: users like the videos of their own taste, and share only what they have liked.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import polyrank

CONFIG = """
[data]
schema = "schema.toml"
train = "log.parquet"      # validation data is set aside by itself: here at random, by time if the schema has a clock

[model]
architecture = "ple"
embedding_width = 4

[model.ple]
widths = [16]

[train]
epochs = 3
batch_size = 256
learning_rate = 1e-2
"""


def make_log(rows: int, seed: int) -> pa.Table:
    """Impressions with what the user did."""
    generator = np.random.default_rng(seed)
    user, video = generator.integers(0, 200, rows), generator.integers(0, 300, rows)
    same_taste = user % 3 == video % 3
    like = generator.random(rows) < np.where(same_taste, 0.6, 0.1)
    share = like & (generator.random(rows) < np.where(video % 2 == 0, 0.4, 0.1))
    return pa.table(
        {
            "user_id": user,
            "video_id": video,
            "user_taste": [f"taste {t}" for t in user % 3],
            "topic": [f"topic {t}" for t in video % 3],
            "seconds": generator.lognormal(3.0, 1.0, rows),
            "is_like": like.astype(np.int8),
            "is_share": share.astype(np.int8),
        }
    )


def main() -> None:
    """Infer, train, score."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        pq.write_table(make_log(12_000, seed=0), directory / "log.parquet")
        pq.write_table(make_log(1_000, seed=1).drop(["is_like", "is_share"]), directory / "new.parquet")
        (directory / "config.toml").write_text(CONFIG)

        schema = polyrank.infer(str(directory / "log.parquet"), directory / "schema.toml")
        print(schema[:300], "…\n")
        metrics = polyrank.train(directory / "config.toml", [], directory / "run", resume=False)
        for task, found in metrics["tasks"].items():
            print(f"{task}: AUC {found['auc']:.3f} on {found['rows']:,} validation rows")
        rows = polyrank.score(directory / "run", str(directory / "new.parquet"), directory / "scores.parquet")
        print(f"\n{rows:,} rows scored:")
        print(pq.read_table(directory / "scores.parquet").slice(0, 3).to_pylist())


if __name__ == "__main__":
    main()
