"""Where the time of a training step goes: the real loop under torch's profiler, on Census-Income.

    python benchmarks/step_profile.py [--batch 1024] [--precision auto]

Writes benchmarks/results/<date>-step-profile-<batch>.json and a Markdown table beside it. Compiled kernels are named by
their functions, everything else by torch's operator; times are of the calling thread. The profiler itself takes time,
the more the smaller the operator.
"""

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from polyrank.allocator import keep_memory
from polyrank.config import override
from polyrank.experiment import DEMO
from polyrank.nn.kernels import activations, entropies, gates, narrow, products, rows, scores
from polyrank.progress import Terminal
from polyrank.runs import prepare, train_run
from polyrank.settings import Settings, parse_settings
from polyrank.training.precision import resolve

HERE = Path(__file__).parent
KERNELS = {
    activations: ("rectify", "drop", "rectify_back"),
    gates: ("mix", "mix_back"),
    narrow: ("survey", "project", "project_back"),
    products: ("layer", "layer_back"),
    scores: ("scores", "scores_back"),
    entropies: ("mean_entropies",),
    rows: ("look_up", "sum_rows", "adagrad", "adam"),
}
KNOBS = (
    "model.embedding_dropout=0.0",
    "model.mmoe.experts=8",
    "model.mmoe.widths=[128, 64]",
    "model.ple.widths=[128, 64]",
    "train.learning_rate=0.001",
    "train.epochs=1",
)
SHOWN = 14


def named(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel under a name that the profiler shows."""

    @functools.wraps(kernel)
    def call(*arguments: Any) -> Any:
        with record_function(name):
            return kernel(*arguments)

    return call


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """One epoch under the profiler: milliseconds a step by operator, the longest first."""
    progress = Terminal()
    prepared = prepare(settings, folder, progress, test=False)
    name = settings.model.architecture
    train_run(prepared, settings, folder / f"{name}-warm", progress, resume=False)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        _, result = train_run(prepared, settings, folder / name, progress, resume=False)
    found = [e for e in profiler.key_averages() if e.self_cpu_time_total > 0]
    found.sort(key=lambda e: -e.self_cpu_time_total)
    steps = result.steps
    return {
        "steps": steps,
        "milliseconds_a_step": result.seconds / steps * 1e3,
        "operators": [[e.key, e.self_cpu_time_total / 1e3 / steps, e.count / steps] for e in found[:40]],
    }


def main() -> None:
    """Profile both models; write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--precision", choices=["auto", "bf16", "float32"], default="auto")
    arguments = parser.parse_args()
    precision = resolve(arguments.precision)
    keep_memory()
    for module, names in KERNELS.items():
        for name in names:
            setattr(module, name, named(f"kernel {name}", getattr(module, name)))
    command = " ".join(["python", "benchmarks/step_profile.py", *sys.argv[1:]])
    results, lines = {}, [f"`{command}`: Census-Income, batch {arguments.batch:,}, {precision}, 2 threads."]
    with tempfile.TemporaryDirectory() as folder:
        for model in ("mmoe", "ple"):
            changes = [
                *KNOBS,
                f"model.architecture={model}",
                f"train.batch_size={arguments.batch}",
                f"train.precision={precision}",
            ]
            found = measure(parse_settings(override(DEMO, changes), Path.cwd()), Path(folder))
            results[model] = found
            lines += ["", f"**{model}**, {found['milliseconds_a_step']:.1f} ms a step under the profiler:", ""]
            lines += ["| operator | ms a step | calls a step |", "|---|---:|---:|"]
            lines += [f"| {key} | {ms:.2f} | {calls:.0f} |" for key, ms, calls in found["operators"][:SHOWN]]
    target = HERE / f"results/{date.today().isoformat()}-step-profile-{arguments.batch}-{precision}"
    target.with_suffix(".json").write_text(json.dumps({"command": command, **results}, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
