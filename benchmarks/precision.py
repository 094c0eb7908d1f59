"""Does bf16 cost accuracy? Census-Income, MMoE and PLE, several seeds, each trained in bf16 and in float32.

    python benchmarks/precision.py [--seeds 5] [--epochs 3]

Both trainings of a pair begin with the same weights and see the same batches. Writes
benchmarks/results/<date>-precision.json and a Markdown table beside it. The AUCs count; no time is reported.
"""

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from polyrank.allocator import keep_memory
from polyrank.config import override
from polyrank.experiment import DEMO
from polyrank.progress import Terminal
from polyrank.runs import evaluate_part, prepare, train_run
from polyrank.settings import parse_settings

HERE = Path(__file__).parent
KNOBS = (
    "model.embedding_dropout=0.0",
    "model.mmoe.experts=8",
    "model.mmoe.widths=[128, 64]",
    "model.ple.widths=[128, 64]",
    "train.learning_rate=0.001",
    "train.threads=1",  # the AUCs count, not the time: other work may run beside
)


def main() -> None:
    """Train, evaluate on test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    keep_memory()
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    progress = Terminal()
    with tempfile.TemporaryDirectory() as folder:
        for model in ("mmoe", "ple"):
            for seed in range(arguments.seeds):
                for precision in ("float32", "bf16"):
                    more = (f"model.architecture={model}", f"train.seed={seed}", f"train.precision={precision}")
                    changes = [*KNOBS, f"train.epochs={arguments.epochs}", *more]
                    settings = parse_settings(override(DEMO, changes), Path.cwd())
                    prepared = prepare(settings, Path(folder), progress, test=True)
                    run = Path(folder) / f"{model}-{seed}-{precision}"
                    ranker, _ = train_run(prepared, settings, run, progress, resume=False)
                    tasks = evaluate_part(ranker, prepared, settings, "test", progress)[1]["tasks"]
                    for task, metrics in tasks.items():
                        aucs = found.setdefault(model, {}).setdefault(task, {})
                        aucs.setdefault(precision, []).append(metrics["auc"])
    command = " ".join(["python", "benchmarks/precision.py", *sys.argv[1:]])
    lines = [f"`{command}`: test AUC, mean over {arguments.seeds} seeds; bars: |Δ| ≤ 0.0003.", ""]
    lines += ["| model | task | float32 | bf16 | bf16 − float32 | of single pairs |", "|---|---|---:|---:|---:|---|"]
    for model, by_task in found.items():
        for task, aucs in by_task.items():
            delta = np.subtract(aucs["bf16"], aucs["float32"])
            means = " | ".join(f"{np.mean(aucs[precision]):.5f}" for precision in ("float32", "bf16"))
            each = f"{delta.min():+.5f} … {delta.max():+.5f}"
            lines.append(f"| {model} | {task} | {means} | {delta.mean():+.5f} | {each} |")
    target = HERE / f"results/{date.today().isoformat()}-precision"
    target.with_suffix(".json").write_text(json.dumps({"command": command, "auc": found}, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
