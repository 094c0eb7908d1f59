"""Calibration error and AUC of an MMoE on Census-Income test rows, before and after each way of calibrating it.

    python benchmarks/calibration.py

Trains with the settings of `polyrank demo`, fits on validation rows, writes benchmarks/results/<date>-calibration.json.
"""

import datetime
import platform
import sys
import tempfile
from pathlib import Path

from polyrank import experiment
from polyrank.files import write_json
from polyrank.fusion.calibration import METHODS
from polyrank.settings import parse_settings


def main() -> None:
    """Train once, calibrate with every method, print and write."""
    table = experiment.DEMO | {"model": {**experiment.DEMO["model"], "architecture": "mmoe"}}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        experiment.train_settings(parse_settings(table, Path.cwd()), run)
        for method in METHODS:
            document = experiment.calibrate(run, method)  # type: ignore[arg-type]
            found[method] = {
                part: {
                    task: {when: {key: entry[when][key] for key in ("ece", "auc")} for when in ("before", "after")}
                    for task, entry in shown["tasks"].items()
                }
                for part, shown in document["shown"].items()
            }
            for task, entry in found[method]["judged"].items():
                before, after = entry["before"], entry["after"]
                print(
                    f"{method:12} {task:14} test ECE {before['ece']:.5f} → {after['ece']:.5f}, "
                    f"AUC {before['auc']:.6f} → {after['auc']:.6f}"
                )
    today = datetime.date.today().isoformat()
    result = {"command": " ".join(["python", *sys.argv]), "created": today, "python": platform.python_version()}
    write_json(Path(__file__).parent / f"results/{today}-calibration.json", {**result, "methods": found})


if __name__ == "__main__":
    main()
