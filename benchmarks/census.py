"""The seesaw study on Census-Income with the protocol of the MMoE paper; what the README quotes.

    python benchmarks/census.py [--config configs/census_paper.toml] [--out runs/census_paper]

Writes benchmarks/results/<date>-<config>.json (the study without its curves) and a Markdown table beside it.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def markdown(study: dict[str, Any]) -> str:
    """A table: a row a model, mean ± standard deviation over seeds, difference to single-task models and verdict."""
    tasks = [task["name"] for task in study["tasks"]]
    lines = [
        f"`{study['command']}`: {len(study['seeds'])} seeds, test AUC, {study['rows']['test']:,} rows. Δ against the"
        f" single-task models of the same seeds, {study['level']:.0%} interval.",
        "",
        "| model | " + " | ".join(f"{task} | Δ single-task | verdict" for task in tasks) + " | train seconds |",
        "|---|" + "---:|---:|---|" * len(tasks) + "---:|",
    ]
    for name, reference in study["references"].items():
        cells = [f"{spread(reference[task])} | | " for task in tasks]
        lines.append(f"| {name} (one a task) | {' | '.join(cells)} | {study['costs'][name]['train_seconds']:.0f} |")
    for model in study["models"]:
        cells = []
        for task in tasks:
            delta = model["tasks"][task]["delta"]["single_task"]
            interval = f"{delta['mean']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
            cells.append(f"{spread(model['tasks'][task])} | {interval} | {delta['verdict']}")
        lines.append(f"| {model['name']} | {' | '.join(cells)} | {model['cost']['train_seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def spread(found: dict[str, Any]) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{found['mean']:.4f}" + ("" if found["std"] is None else f" ± {found['std']:.4f}")


def main() -> None:
    """Run the study, or take a finished one, and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE.parent / "configs/census_paper.toml")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs/census_paper")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "polyrank.cli", "compare", str(arguments.config), "--out", str(arguments.out)]
    subprocess.run([*command, "--resume"], check=True)
    study = json.loads((arguments.out / "seesaw.json").read_text())
    study["command"] = f"polyrank compare configs/{arguments.config.name} --out runs/{arguments.config.stem}"
    for model in study["models"]:
        del model["curves"]
    target = HERE / f"results/{date.today().isoformat()}-{arguments.config.stem.replace('_', '-')}"
    target.with_suffix(".json").write_text(json.dumps(study, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(study))
    print(markdown(study))


if __name__ == "__main__":
    main()
