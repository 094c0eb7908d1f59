"""The figure of the MMoE paper's section 3: what sharing costs as two tasks grow apart; and what the seesaw says of it.

    python benchmarks/task_correlation.py [--seeds 8] [--steps 2000]

Pairs of tasks of cosine 1 (the same task but for the noise), 0.5 and 0 (nothing in common), d = 25 numbers, four sines.
Shared-Bottom, MMoE and PLE of about as many parameters, and a single-task network as wide as the shared trunk, read
fresh rows each step (Adam, learning rate 0.01, batches of 128). Smaller than in the paper (d = 100, hundreds of runs).
Writes benchmarks/results/<date>-task-correlation.json and .md: squared error on 10,000 test rows, relative to the
labels' variance, with 95 % intervals of the mean over seeds; how much it grows from cosine 1 to 0, and how much more
Shared-Bottom's grows, seed by seed; and the seesaw's verdict on XAUC against the single-task networks. Draws
docs/task_correlation.svg from it.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

from polyrank.evaluation.seesaw import differences, sweep
from polyrank.models.mmoe import MMoE, MMoEConfig
from polyrank.models.ple import PLE, PLEConfig
from polyrank.models.shared_bottom import SharedBottom, SharedBottomConfig
from polyrank.models.single_task import SingleTask, SingleTaskConfig
from polyrank.nn.inputs import Inputs
from polyrank.nn.towers import Towers
from polyrank.simulator.tasks import LABELS, RelatedTasks, RelatedTasksConfig

PAIR = LABELS[:2]
WIDTH, SINES, BATCH, TEST_ROWS, CHUNK = 25, 4, 128, 10_000, 500
COSINES = (1.0, 0.5, 0.0)
MODELS: dict[str, tuple[Any, Any]] = {
    "single_task": (SingleTask, SingleTaskConfig(widths=(28,))),
    "shared_bottom": (SharedBottom, SharedBottomConfig(widths=(28,))),
    "mmoe": (MMoE, MMoEConfig(experts=4, widths=(8,))),
    "ple": (PLE, PLEConfig(levels=1, specific_experts=1, shared_experts=2, widths=(8,))),
}


def train(name: str, cosine: float, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Test predictions and labels `[N, 2]` in standard deviations, and parameters; single tasks are trained apart."""
    torch.set_num_threads(1)
    pair = RelatedTasks(RelatedTasksConfig(cosine, width=WIDTH, sines=SINES), seed=0)
    x, labels = (torch.from_numpy(part) for part in pair.sample(TEST_ROWS, seed=10**9))
    std = labels.std(dim=0)
    columns = [[0], [1]] if name == "single_task" else [[0, 1]]
    predictions, parameters = [], 0
    for column in columns:
        torch.manual_seed(seed)
        kind, config = MODELS[name]
        model = kind(WIDTH, len(column), config)
        towers = Towers(len(column), model.out_width, (8,), biases=[[0.0]] * len(column))
        weights = [*model.parameters(), *towers.parameters()]
        parameters += sum(weight.numel() for weight in weights)
        optimizer = torch.optim.Adam(weights, lr=0.01)
        for chunk in range(-(-steps // CHUNK)):
            rows = (torch.from_numpy(part) for part in pair.sample(CHUNK * BATCH, seed=10_000 * seed + chunk))
            for inputs, truth in zip(*(part.split(BATCH) for part in rows), strict=True):
                optimizer.zero_grad()
                errors = (towers(model(Inputs(inputs))) - (truth / std)[:, column]).square()
                errors.mean(dim=0).sum().backward()
                optimizer.step()
        with torch.no_grad():
            predictions.append(towers(model(Inputs(x))))
    return torch.cat(predictions, dim=1).numpy(), (labels / std).numpy(), parameters


def judge(found: dict[str, list[tuple[np.ndarray, np.ndarray, int]]]) -> dict[str, Any]:
    """Errors with intervals, and verdicts against the single-task networks."""
    result: dict[str, Any] = {}
    for name, runs in found.items():
        errors = [float(np.square(p - y).mean()) for p, y, _ in runs]
        mean, low, high = interval(np.array(errors))
        result[name] = {"parameters": runs[0][2], "errors": errors, "error": mean, "low": low, "high": high}
    for task, label in enumerate(PAIR):
        sweeps = {n: [sweep("regression", p[:, task], y[:, task]) for p, y, _ in runs] for n, runs in found.items()}
        reference = {"single_task": sweeps.pop("single_task")}
        for name, by in differences(sweeps, reference, None, TEST_ROWS, replicates=50, level=0.95).items():
            delta = by["single_task"]
            result[name][label] = {"xauc": delta.mean, "low": delta.low, "high": delta.high, "verdict": delta.verdict}
    return result


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t."""
    mean = float(values.mean())
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def growth(result: dict[str, Any]) -> dict[str, Any]:
    """The growth of the error from cosine 1 to 0, and how much more that of Shared-Bottom is; seed by seed."""
    grown = {
        name: np.subtract(result["cosine 0"][name]["errors"], result["cosine 1"][name]["errors"]) for name in MODELS
    }
    shared = grown["shared_bottom"]
    return {
        name: {"growth": interval(own)} | ({} if own is shared else {"shared_bottom_more": interval(shared - own)})
        for name, own in grown.items()
    }


def written(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [f"# When tasks grow apart, {result['date']}", "", f"`{result['command']}`, {result['seeds']} seeds", ""]
    lines += [
        "Squared error over the labels' variance, mean of both tasks; 95 % intervals over seeds. The last columns: its",
        "growth from cosine 1 to 0, and by how much Shared-Bottom's growth is more, paired by seed.",
        "",
    ]
    heads = [f"cosine {cosine:g}" for cosine in COSINES]
    lines += [
        f"| model | parameters | {' | '.join(heads)} | growth | Shared-Bottom's more |",
        "|---|---:|---|---|---|---|---|",
    ]
    for name in MODELS:
        cells = [_cell(*(result[head][name][key] for key in ("error", "low", "high"))) for head in heads]
        own = result["growth"][name]
        cells += [_cell(*own["growth"]), _cell(*own["shared_bottom_more"]) if "shared_bottom_more" in own else "–"]
        lines.append(f"| `{name}` | {result[heads[0]][name]['parameters']:,} | {' | '.join(cells)} |")
    lines += ["", "XAUC less that of the single-task networks, with the seesaw's verdict:", ""]
    lines += [f"| model | {' | '.join(f'{head}, {task}' for head in heads for task in PAIR)} |", "|---|" + "---|" * 6]
    for name in list(MODELS)[1:]:
        deltas = [result[head][name][task] for head in heads for task in PAIR]
        cells = [f"{_cell(d['xauc'], d['low'], d['high'])} {d['verdict']}" for d in deltas]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(mean: float, low: float, high: float) -> str:
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def figure(result: dict[str, Any]) -> str:
    """The error over the cosine, a line a model, as SVG: upwards is worse, rightwards the tasks are less alike."""
    width, height, left, bottom = 640, 320, 70, 50
    top = 1.05 * max(values["high"] for cosine in COSINES for values in result[f"cosine {cosine:g}"].values())
    places = [left + 40 + (width - left - 240) * index / (len(COSINES) - 1) for index in range(len(COSINES))]

    def y(error: float) -> float:
        return height - bottom - (height - bottom - 20) * error / top

    parts = [f'<line x1="{left}" y1="{y(0):.0f}" x2="{width - 170}" y2="{y(0):.0f}" stroke="#888"/>']
    for place, cosine in zip(places, COSINES, strict=True):
        parts.append(f'<text x="{place:.0f}" y="{y(0) + 20:.0f}" text-anchor="middle">{cosine:g}</text>')
    parts += [
        f'<text x="{left - 8}" y="{y(tick) + 4:.0f}" text-anchor="end">{tick:.3f}</text>'
        for tick in (0.0, top / 2, top / 1.05)
    ]
    parts.append(f'<text x="{left + 10}" y="{height - 8}">cosine between the tasks\' weights</text>')
    parts.append(f'<text x="{left - 60}" y="14">squared error / variance</text>')
    for number, (name, colour) in enumerate(zip(MODELS, ("#888888", "#d55e00", "#0072b2", "#009e73"), strict=True)):
        found = [result[f"cosine {cosine:g}"][name] for cosine in COSINES]
        shifted = [place + 4 * number - 6 for place in places]  # so that intervals do not cover each other
        line = " ".join(f"{x:.0f},{y(v['error']):.1f}" for x, v in zip(shifted, found, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, v in zip(shifted, found, strict=True):
            ends = f'y1="{y(v["low"]):.1f}" x2="{x:.0f}" y2="{y(v["high"]):.1f}"'
            parts.append(f'<line x1="{x:.0f}" {ends} stroke="{colour}"/>')
        parts.append(f'<text x="{width - 155}" y="{40 + 20 * number}" fill="{colour}">{name}</text>')
    body = "\n".join(parts)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    font = 'font-family="sans-serif" font-size="12" fill="#444"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>\n{body}\n</svg>\n'


def main() -> None:
    """Train everything, two at a time, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "seeds": arguments.seeds,
    }
    with ProcessPoolExecutor(2) as pool:
        for cosine in COSINES:
            jobs = {
                name: [pool.submit(train, name, cosine, seed, arguments.steps) for seed in range(arguments.seeds)]
                for name in MODELS
            }
            found = judge({name: [job.result() for job in some] for name, some in jobs.items()})
            result[f"cosine {cosine:g}"] = found
            for name, values in found.items():
                verdicts = ", ".join(f"{label} {values[label]['verdict']}" for label in PAIR if label in values)
                line = f"{values['error']:.4f} [{values['low']:.4f}, {values['high']:.4f}]"
                print(f"cosine {cosine:g}  {name:14} {line}  {verdicts}", flush=True)
    result["growth"] = growth(result)
    target = Path(__file__).parent / f"results/{result['date']}-task-correlation"
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(written(result), encoding="utf-8")
    (Path(__file__).parent.parent / "docs/task_correlation.svg").write_text(figure(result), encoding="utf-8")
    print(written(result))


if __name__ == "__main__":
    main()
