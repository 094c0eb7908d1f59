"""What the seesaw report says of tasks that conflict, and of tasks that are the same.

    python benchmarks/conflict.py [--experts 2] [--out runs/conflict]

Four regression tasks of `polyrank.simulator.tasks`, y_k = sin(w_kᵀx) + ε on four numbers: with w_k at right angles (no
task's knowledge serves another), and all the same but for the noise, of standard deviation 0.3. `polyrank compare
configs/conflict.toml`: every trunk, expert and own network has one layer of six units. Six units are enough for any one
of the tasks, and too few to carry four directions both ways. PLE (--experts of each task and as many shared ones, at
two levels) and MMoE have more experts of the same width, so more parameters too, which the result names. Ten seeds,
4,000 training rows, 3,000 test rows, 30 epochs.

What is done is kept in --out: the same command goes on. Writes benchmarks/results/<date>-conflict.json and .md
(-conflict-experts-N unless N is 2).
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from polyrank import experiment
from polyrank.progress import Terminal
from polyrank.simulator.tasks import RelatedTasks, RelatedTasksConfig

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs/conflict.toml"
COSINES = {"nothing in common": 0.0, "the same task": 1.0}
ROWS = {"train": 4_000, "valid": 2_000, "test": 3_000}


def tasks_of(cosine: float) -> RelatedTasks:
    """The four tasks."""
    return RelatedTasks(RelatedTasksConfig(cosine, tasks=4, width=4, scale=1.5, sines=1, trend=0.0, noise=0.3))


def study(cosine: float, experts: int, folder: Path) -> dict[str, Any]:
    """The seesaw study, as `seesaw.json` has it."""
    if not (folder / "schema.toml").exists():  # written last
        tasks_of(cosine).write(folder, ROWS)
    places = [f"data.{name}={folder / name}.parquet" for name in ROWS]
    places.append(f"data.schema={folder / 'schema.toml'}")
    places += [f"model.ple.{kind}_experts={experts}" for kind in ("specific", "shared")]
    out = folder / "study"
    return experiment.compare(
        CONFIG, places, out, resume=out.exists(), command="python benchmarks/conflict.py", progress=Terminal()
    )


def short(found: dict[str, Any]) -> dict[str, Any]:
    """What a study says of each model: parameters, and by task the difference from the single-task model."""
    single = {task: cell["mean"] for task, cell in found["references"]["single_task"].items()}
    models = {
        model["name"]: {
            "parameters": model["cost"]["parameters"],
            "tasks": {task: cell["delta"]["single_task"] for task, cell in model["tasks"].items()},
        }
        for model in found["models"]
    }
    parameters = found["costs"]["single_task"]["parameters"]
    return {"seeds": found["seeds"], "single_task": {"parameters": parameters, "xauc": single}, "models": models}


def written(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [f"# Tasks that conflict, {result['date']}", "", f"`{result['command']}`", ""]
    for name in COSINES:
        found = result[name]
        tasks = found["single_task"]["xauc"]
        lines += [f"## {name.capitalize()}", ""]
        lines += [f"XAUC less that of single-task networks, {len(found['seeds'])} seeds, 95 % intervals, verdict.", ""]
        lines += [f"| model | parameters | {' | '.join(tasks)} |", "|---|---:|" + "---|" * len(tasks)]
        values = " | ".join(f"{value:.4f}" for value in tasks.values())
        lines.append(f"| `single_task` (its XAUC) | {found['single_task']['parameters']:,} | {values} |")
        for model, own in found["models"].items():
            cells = [
                f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}] {d['verdict']}" for d in own["tasks"].values()
            ]
            lines.append(f"| `{model}` | {own['parameters']:,} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run both studies and write what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/conflict"), help="where runs are kept")
    parser.add_argument("--experts", type=int, default=2, help="PLE's own experts a task, and its shared ones")
    given = parser.parse_args()
    other = "" if given.experts == 2 else f"-experts-{given.experts}"
    command = "python benchmarks/conflict.py" + (f" --experts {given.experts}" if other else "")
    result: dict[str, Any] = {"date": date.today().isoformat(), "command": command}
    for name, cosine in COSINES.items():
        result[name] = short(study(cosine, given.experts, given.out.resolve() / f"cosine_{cosine:g}"))
    target = HERE / f"results/{result['date']}-conflict{other}"
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(written(result), encoding="utf-8")
    print(written(result))


if __name__ == "__main__":
    main()
