"""The claims of multi-task learning, measured on Census-Income (built in): does one model for several tasks pay?

    python benchmarks/claims.py [--out runs/claims]

Four claims, as they are usually made: one model costs less than several (1); a task with few labels learns from one
with many: 1, 5, 20 and 100 % of the income labels are kept (2); tasks regularise each other: a smaller gap between the
AUC on training and on test rows (3); representations serve a task that is added later: income at 1, 10 and 100 % of its
labels, on a model of two other tasks, against income alone (4).

A fast setting, said to be one: 40,000 training rows and 20,000 validation rows drawn from the paper's split, the whole
test split, four epochs, three seeds. A seed chooses weights, order, and which labels are kept. What is done is kept in
--out: the same command goes on. About fifteen minutes of two cores.
"""

import argparse
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyrank.config import read_toml, write_toml
from polyrank.data.schema import save_schema
from polyrank.datasets import open_data, open_schema
from polyrank.evaluation.seesaw import differences, sweep
from polyrank.files import read_json, write_json
from polyrank.progress import Terminal
from polyrank.runs import begin, evaluate_part, prepare, train_run
from polyrank.settings import parse_settings

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
ROWS = {"train": 40_000, "valid": 20_000}
KEPT = (1, 5, 20, 100)
ADDED = (1, 10, 100)
OTHER = "nonfiler"  # a third task, for claim 4: tax_filer_stat is "Nonfiler"; there it is no feature
MODEL = {
    "embedding_width": 8,
    "embedding_dropout": 0.3,
    "single_task": {"widths": [128, 64], "dropout": 0.3},
    "shared_bottom": {"widths": [128, 64], "dropout": 0.3},
    "mmoe": {"experts": 6, "widths": [64], "dropout": 0.3},
    "extension": {"experts": 2, "widths": [64], "dropout": 0.3},
}
TRAIN = {"epochs": 4, "batch_size": 512, "learning_rate": 2e-3, "warmup": 0.1, "patience": 0}


@dataclass(frozen=True)
class Work:
    """One training: which model, of which tasks, with how many percent of the income labels; on which old model."""

    model: str
    tasks: tuple[str, ...]
    kept: int
    seed: int
    schema: str = "two"
    warm: str = ""

    @property
    def name(self) -> str:
        """Its directory."""
        parts = [self.schema, self.model, *self.tasks, f"{self.kept}pct", self.warm, f"seed{self.seed}"]
        return "-".join(part for part in parts if part)


def plan() -> list[Work]:
    """Every training."""
    works = []
    for seed in SEEDS:
        works += [Work("single_task", ("never_married",), 100, seed)]
        for kept in KEPT:
            works += [Work("single_task", ("income",), kept, seed)]
            works += [Work(model, ("income", "never_married"), kept, seed) for model in ("mmoe", "shared_bottom")]
        works.append(Work("mmoe", ("never_married", OTHER), 100, seed, "three"))
        for kept in ADDED:
            works += [Work("mmoe", ("income",), kept, seed, "three")]
            works += [
                Work("mmoe", ("never_married", OTHER, "income"), kept, seed, "three", w) for w in ("frozen", "free")
            ]
    return works


def write_data(out: Path) -> None:
    """Schemas, and the drawn rows with the income labels of each share and seed."""
    two = open_schema("builtin:census/paper", HERE)
    save_schema(two, out / "two.toml")
    table = read_toml(out / "two.toml")
    table["features"] = [f for f in table["features"] if f.get("column", f["name"]) != "tax_filer_stat"]
    table["tasks"].append({"name": OTHER, "column": "tax_filer_stat", "kind": "binary", "positive": "Nonfiler"})
    write_toml(out / "three.toml", table)
    income = next(task.source for task in two.tasks if task.name == "income")
    for part, rows in ROWS.items():
        source = open_data(f"builtin:census/{part}", HERE)
        whole = pa.Table.from_batches(source.batches(source.schema.names))
        drawn = whole.take(np.sort(np.random.default_rng(0).permutation(len(whole))[:rows]))
        pq.write_table(drawn, out / f"{part}.parquet")
        for kept in {*KEPT, *ADDED} if part == "train" else ():
            for seed in SEEDS:
                hidden = pa.array(np.random.default_rng([1, seed]).random(rows) >= kept / 100)
                place = drawn.schema.get_field_index(income)
                labels = pc.if_else(hidden, pa.scalar(None, drawn.schema.field(place).type), drawn.column(place))
                pq.write_table(drawn.set_column(place, income, labels), out / f"train-{kept}-{seed}.parquet")


def train(work: Work, out: Path) -> None:
    """One training; its test predictions, AUCs and cost."""
    directory = out / "runs" / work.name
    if (directory / "result.json").exists():
        return
    warm = {}
    if work.warm:
        old = Work("mmoe", ("never_married", OTHER), 100, work.seed, "three")
        warm = {"warm_start": str(out / "runs" / old.name), "freeze": "shared" if work.warm == "frozen" else "none"}
    settings = parse_settings(
        {
            "data": {
                "schema": str(out / f"{work.schema}.toml"),
                "train": str(out / f"train-{work.kept}-{work.seed}.parquet"),
                "valid": str(out / "valid.parquet"),
                "test": "builtin:census/test",
                "tasks": list(work.tasks),
                "leak_guard": False,
            },
            "model": {**MODEL, "architecture": work.model},
            "train": {**TRAIN, **warm, "seed": work.seed, "metric": "income" if "income" in work.tasks else "mean"},
        },
        out,
    )
    variant = f"{work.schema}-{work.kept}-{work.seed}{'-warm' if work.warm else ''}"
    prepared = prepare(settings, out / "data" / variant, Terminal(), test=True)
    begin(directory, settings, prepared.schema, Terminal())
    prepared.encoders.save(directory / "encoders")  # an old run is read by those that build on it
    ranker, result = train_run(prepared, settings, directory, Terminal(), resume=True)
    auc: dict[str, dict[str, float]] = {}
    for part in ("train", "test"):
        table, document = evaluate_part(ranker, prepared, settings, part, Terminal())
        auc[part] = {name: metrics["auc"] for name, metrics in document["tasks"].items()}
    np.save(directory / "predictions.npy", table.predictions)
    np.save(directory / "labels.npy", np.where(table.where, table.labels, np.nan))
    cost = {
        "parameters": ranker.parameter_count(),
        "trained_parameters": sum(p.numel() for _, p in ranker.dense_parameters())
        + (0 if work.warm == "frozen" else ranker.embeddings.table.numel()),
        "seconds": result.seconds,
        "bytes": (directory / "checkpoints/best.safetensors").stat().st_size,
    }
    write_json(directory / "result.json", {"auc": auc, "cost": cost})


class Found:
    """The finished trainings."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def result(self, work: Work) -> dict[str, Any]:
        """AUCs and cost."""
        found: dict[str, Any] = read_json(self.out / "runs" / work.name / "result.json")
        return found

    def auc(self, works: list[Work], task: str, part: str = "test") -> list[float]:
        """By seed."""
        return [self.result(work)["auc"][part][task] for work in works]

    def delta(self, works: list[Work], references: list[Work], task: str) -> dict[str, Any]:
        """Test AUC against a reference, paired by seed, with the interval of the seesaw study (rows and seeds)."""
        sweeps = []
        for each in (works, references):
            own = []
            for work in each:
                run, column = self.out / "runs" / work.name, work.tasks.index(task)
                labels = np.load(run / "labels.npy")[:, column]
                own.append(sweep("binary", np.load(run / "predictions.npy")[:, column], labels))
            sweeps.append(own)
        rows = len(labels)
        found = differences({"a": sweeps[0]}, {"b": sweeps[1]}, None, rows, replicates=60, level=0.95)["a"]["b"]
        return {"mean": found.mean, "low": found.low, "high": found.high, "verdict": found.verdict}


def study(out: Path) -> dict[str, Any]:
    """All four claims, from the finished trainings."""
    found = Found(out)
    names = {"income": "income", "never_married": "never_married"}
    both = tuple(names)

    def of(model: str, tasks: tuple[str, ...], kept: int = 100, schema: str = "two", warm: str = "") -> list[Work]:
        return [Work(model, tasks, kept, seed, schema, warm) for seed in SEEDS]

    def cost(works: list[Work]) -> dict[str, float]:
        costs = [found.result(work)["cost"] for work in works]
        return {key: float(np.mean([c[key] for c in costs])) for key in costs[0]}

    singles = {task: of("single_task", (task,)) for task in both}
    apart = [cost(works) for works in singles.values()]
    result: dict[str, Any] = {"cost": {"separate": {key: sum(c[key] for c in apart) for key in apart[0]}}}
    result["sparse"], result["gap"], result["new"] = [], [], []
    for model in ("shared_bottom", "mmoe"):
        result["cost"][model] = cost(of(model, both))
        for kept in KEPT:
            works, alone = of(model, both, kept), of("single_task", ("income",), kept)
            line = {
                "model": model,
                "kept": kept,
                "alone": found.auc(alone, "income"),
                "joint": found.auc(works, "income"),
            }
            result["sparse"].append(line | {"delta": found.delta(works, alone, "income")})
            gaps = {
                name: (np.array(found.auc(w, "income", "train")) - np.array(found.auc(w, "income"))).tolist()
                for name, w in (("alone", alone), ("joint", works))
            }
            result["gap"].append({"model": model, "task": "income", "kept": kept, **gaps})
        alone, works = singles["never_married"], of(model, both)
        gaps = {
            name: (np.array(found.auc(w, "never_married", "train")) - np.array(found.auc(w, "never_married"))).tolist()
            for name, w in (("alone", alone), ("joint", works))
        }
        result["gap"].append({"model": model, "task": "never_married", "kept": 100, **gaps})
    for kept in ADDED:
        alone = of("mmoe", ("income",), kept, "three")
        line = {"kept": kept, "alone": found.auc(alone, "income"), "alone_cost": cost(alone)}
        for warm in ("frozen", "free"):
            works = of("mmoe", ("never_married", OTHER, "income"), kept, "three", warm)
            line[warm] = found.auc(works, "income")
            line |= {f"{warm}_delta": found.delta(works, alone, "income"), f"{warm}_cost": cost(works)}
        result["new"].append(line)
    return result


def markdown(result: dict[str, Any]) -> str:
    """The tables."""

    def spread(values: list[float]) -> str:
        return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"

    def told(delta: dict[str, Any]) -> str:
        interval = "" if delta["low"] is None else f" [{delta['low']:+.4f}, {delta['high']:+.4f}]"
        return f"{delta['mean']:+.4f}{interval} **{delta['verdict']}**"

    lines = [
        f"Census-Income, {ROWS['train']:,} training rows, {TRAIN['epochs']} epochs, {len(SEEDS)} seeds; test AUC, "
        "intervals over test rows and seeds at 95 %: `python benchmarks/claims.py`",
        "",
        "1 Cost: one model for two tasks, and the two single-task models together",
        "",
        "| | parameters | bytes | training seconds |",
        "|---|---:|---:|---:|",
    ]
    for name, of in result["cost"].items():
        lines.append(f"| {name} | {of['parameters']:,.0f} | {of['bytes']:,.0f} | {of['seconds']:.1f} |")
    lines += ["", "2 Income with few labels (never married keeps all)", ""]
    lines += ["| labels kept | model | alone | together | Δ |", "|---:|---|---:|---:|---:|"]
    for of in sorted(result["sparse"], key=lambda line: line["kept"]):
        lines.append(
            f"| {of['kept']} % | {of['model']} | {spread(of['alone'])} | {spread(of['joint'])} | {told(of['delta'])} |"
        )
    lines += ["", "3 Gap: AUC on training rows less AUC on test rows", ""]
    lines += ["| task | labels kept | model | alone | together |", "|---|---:|---|---:|---:|"]
    for of in sorted(result["gap"], key=lambda line: (line["task"], line["kept"])):
        cells = f"{spread(of['alone'])} | {spread(of['joint'])}"
        lines.append(f"| {of['task']} | {of['kept']} % | {of['model']} | {cells} |")
    lines += ["", "4 Income added to a trained model of never married and non-filer", ""]
    lines += ["| labels kept | alone | old model frozen | Δ | all trained | Δ |", "|---:|---:|---:|---:|---:|---:|"]
    for of in result["new"]:
        cells = [spread(of["alone"])]
        for warm in ("frozen", "free"):
            cells += [spread(of[warm]), told(of[f"{warm}_delta"])]
        lines.append(f"| {of['kept']} % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs/claims")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "data/written").exists():
        write_data(out)
        (out / "data").mkdir(exist_ok=True)
        (out / "data/written").touch()
    works = plan()
    for number, work in enumerate(works):
        print(f"{number + 1} of {len(works)}: {work.name}", flush=True)
        train(work, out)
    result = study(out)
    target = HERE / f"results/{date.today().isoformat()}-claims"
    document = {
        "command": "python benchmarks/claims.py",
        "seeds": SEEDS,
        "model": MODEL,
        "train": TRAIN,
        "claims": result,
    }
    target.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
