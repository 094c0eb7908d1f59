"""Does fusion pay on KuaiRand? Single heads, presets, searches and learned rankers on one PLE's predictions.

    python benchmarks/fusion_kuairand.py DATA [--out runs/fusion_kuairand]

DATA holds train.parquet and valid.parquet (see kuairand_heads.py). A PLE with six heads is trained on train, whose
latest tenth chooses the checkpoint. The users of valid are split in two at random: on one half heads are calibrated,
formulas searched and rankers trained (a quarter of it stops them early), on the other everything is judged; then the
halves change places, so that every row is judged once, by fusions that other users chose. What is finished in --out is
used again. Writes benchmarks/results/<date>-fusion-kuairand.json and .md.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from kuairand_heads import CONTEXT, REWARD, TASKS, predictions, rows_of

from polyrank.data.schema import Task
from polyrank.evaluation.fused import JudgeConfig, judge
from polyrank.evaluation.influence import influence
from polyrank.evaluation.power import power
from polyrank.evaluation.predict import ScoreTable
from polyrank.evaluation.requests import Requests
from polyrank.files import read_json, write_json
from polyrank.fusion.calibration import fit as fit_calibration
from polyrank.fusion.formula import Formula
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.learned import LEARNERS, learn
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import PRESETS, preset
from polyrank.fusion.sampling import SearchConfig
from polyrank.fusion.search import search
from polyrank.fusion.seeds import equal_contribution, prepared, within
from polyrank.fusion.store import load_fusion, save_fusion
from polyrank.progress import Progress, Terminal

HERE = Path(__file__).parent
JUDGE = JudgeConfig(k=3, valid="long_view", minutes="watch", minute=60.0)  # the composite: every behaviour counts 1
KINDS = {task: "probability" if kind == "binary" else "amount" for task, kind in TASKS.items()}
# Requests as the data allows them: real ones are short and few; a user's rows of the two days are not one list that
# anybody saw, but there are more of them.
GROUPINGS = {"request": (("user_id", "day", "tab"), 5), "user": (("user_id",), 2)}
SEARCHES = ("grid", "random", "sobol", "tpe", "cmaes", "nsga2", "motpe")
FORMULAS = ("log_sum", "weighted_sum", "product_plus", "ensemble_sort", "ple")  # ecommerce needs a price
# Learned rankers by what the table calls them: which learner, and the knobs that are not its defaults.
RANKERS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in LEARNERS}
RANKERS["listwise monotone"] = ("listwise", {"monotone": True})
TRIALS = 243  # 3^5: what a grid of the five free weights takes
SEARCHED, EQUAL, TARGET = "cmaes log_sum", "equal weights", 0.003
RIVAL = "cmaes log_sum for mtf_gauc"  # what learned rankers must beat in MTF-GAUC: a formula searched for it
BEST = "best head, chosen on the other half"


def calibrated(fit: Requests, other: Requests) -> tuple[Requests, Requests]:
    """Both parts with heads calibrated on the first; watch time, which no method takes, is scaled to the right mean."""
    tasks = tuple(Task(name, kind) for name, kind in TASKS.items())

    def stacked(columns: Any, names: Any = TASKS) -> np.ndarray:
        return np.stack([np.asarray(columns[name], np.float32) for name in names], axis=1)

    labels = stacked(fit.labels)
    table = ScoreTable(tasks, stacked(fit.columns), labels, ~np.isnan(labels), fit.users)
    calibration = fit_calibration(table, "beta")
    scale = float(fit.labels["watch"].mean() / np.maximum(fit.columns["watch"], 0).mean())

    def apply(part: Requests) -> Requests:
        found = calibration.apply(tuple(TASKS), stacked(part.columns))
        heads = {name: np.asarray(found[:, place], np.float64) for place, name in enumerate(TASKS)}
        heads["watch"] = np.maximum(np.asarray(part.columns["watch"], np.float64), 0.0) * scale
        return replace(part, columns={**part.columns, **heads})

    return apply(fit), apply(other)


def contenders(fit: Requests, seed: int, out: Path, progress: Progress) -> dict[str, Callable[[], Fusion]]:
    """Every fusion by name, to be made from the rows that choose."""
    objectives = {goal: Objective(fit, goal, JUDGE) for goal in ("composite", "mtf_gauc", "ndcg")}
    learning, stopping = fit.split(0.75, seed=seed + 1)

    def plain(name: str) -> Formula:
        return preset(name, KINDS).bind()

    def equal() -> Formula:
        template = preset("weighted_sum", KINDS)
        return template.bind(within(template, equal_contribution(template, fit.columns, fit.requests)))

    def searched(method: str, name: str, goal: str = "composite") -> Formula:
        objective = objectives[goal]
        template = prepared(name, KINDS, (), "seconds" if name == "ple" else "", fit, objective)
        config = SearchConfig(method=method, trials=TRIALS, seed=seed, jobs=1)
        with progress.bar(f"{method} {name}", TRIALS, "trials") as bar:
            found = search(template, fit, objective, config, bar=bar)
        return template.bind(found.parameters)

    def learned(title: str, context: tuple[str, ...]) -> Fusion:
        name, knobs = RANKERS[title]
        config = LEARNERS[name].config(seed=seed, **knobs)
        with progress.bar(f"learning {title}", getattr(config, LEARNERS[name].rounds), "rounds") as bar:
            return learn(name, learning, stopping, context, (), config, bar)

    every: dict[str, Callable[[], Fusion]] = {EQUAL: equal}
    every |= {f"{name} as it is": lambda name=name: plain(name) for name in FORMULAS}
    every |= {f"{method} log_sum": lambda method=method: searched(method, "log_sum") for method in SEARCHES}
    every |= {f"cmaes {name}": lambda name=name: searched("cmaes", name) for name in FORMULAS[1:]}
    every |= {f"cmaes log_sum for {goal}": lambda goal=goal: searched("cmaes", "log_sum", goal) for goal in objectives}
    del every["cmaes log_sum for composite"]  # there already
    for name in RANKERS:
        every[f"learned {name}"] = lambda name=name: learned(name, ())
        every[f"learned {name}, context"] = lambda name=name: learned(name, CONTEXT)
    return every


def cross_fitted(
    data: Requests, out: Path, progress: Progress
) -> tuple[Requests, dict[str, np.ndarray], dict[str, Any]]:
    """The rows with calibrated heads, every fusion's scores of them, and what was chosen."""
    halves = data.split(0.5, seed=0)
    parts, scores, chosen = [], {}, {}
    for fold, (fit, other) in enumerate([halves, halves[::-1]]):
        fit, other = calibrated(fit, other)
        parts.append(other)
        made = {}
        for name, make in contenders(fit, fold, out, progress).items():
            place = out / f"fold{fold}" / name.replace(" ", "_").replace(",", "")
            if not (place / "fusion.json").exists():
                began = time.perf_counter()
                save_fusion(make(), place)
                write_json(place / "seconds.json", time.perf_counter() - began)
            fusion = load_fusion(place)
            scores.setdefault(name, []).append(fusion.score(other.columns, other.requests))
            made[name] = {"seconds": read_json(place / "seconds.json")}
            made[name] |= {"formula": str(fusion)} if isinstance(fusion, Formula) else {}
            if name in (SEARCHED, *(f"learned {ranker}" for ranker in RANKERS)):
                made[name]["influence"] = influence(other, fusion.score, JUDGE.k)
        heads = {head: Objective(fit, "composite", JUDGE) for head in TASKS}
        values = {h: o.measure(np.asarray(fit.columns[h])[o.order]).value for h, o in heads.items()}
        made["best head"] = max(values, key=lambda head: values[head])
        scores.setdefault(BEST, []).append(other.columns[made["best head"]])
        chosen[f"fold {fold}"] = made
    whole = joined(parts)
    return whole, {name: np.concatenate(values) for name, values in scores.items()}, chosen


def joined(parts: list[Requests]) -> Requests:
    """The rows of both halves, one after the other."""
    first = parts[0]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns}
    labels = {name: np.concatenate([part.labels[name] for part in parts]) for name in first.labels}
    rest = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("requests", "users", "reward")}
    return replace(first, columns=columns, labels=labels, **rest)


def study(data: Requests, out: Path, progress: Progress) -> dict[str, Any]:
    """One grouping: the table against the searched formula, the bars, and what the data could have shown."""
    whole, scores, chosen = cross_fitted(data, out, progress)
    tables = {}
    for reference in (SEARCHED, EQUAL, BEST, RIVAL):
        with progress.bar(f"judging against {reference}", None, "steps") as bar:
            tables[reference] = judge(whole, scores, reference, JUDGE, bar=bar)
    against = {
        reference: {r["name"]: r["against"] for r in table["rankings"] if r["against"]}
        for reference, table in tables.items()
    }
    table, bars = tables[SEARCHED], {}
    for other in (EQUAL, BEST):
        bars[f"{SEARCHED} − {other}, composite"] = claim(against[other][SEARCHED]["composite"]["gauc"], table["users"])
    for name, deltas in against[RIVAL].items():
        if name.startswith("learned"):
            found = claim(deltas["mtf_gauc"]["reward"], table["users"])
            behaviours = {of: delta["mean"] for of, delta in deltas["gauc"].items()}
            worst = min(behaviours, key=lambda of: behaviours[of])
            bars[f"{name} − {RIVAL}, MTF-GAUC"] = {**found, "worst": worst, "worst_mean": behaviours[worst]}
    return {"table": table, "bars": bars, "chosen": chosen}


def claim(delta: dict[str, Any], users: int) -> dict[str, Any]:
    """A difference, and what these users could have shown of one."""
    if delta["low"] is None:
        return {"delta": delta}
    return {"delta": delta, **vars(power((delta["high"] - delta["low"]) / 2 / 1.96, users, TARGET))}


def main() -> None:
    """Train, search, learn, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs/fusion_kuairand")
    arguments = parser.parse_args()
    progress, began = Terminal(), time.perf_counter()
    valid = predictions(arguments.data, arguments.out, progress)
    heads = read_json(arguments.out / "ple/metrics.json")["tasks"]
    result: dict[str, Any] = {
        "command": "python benchmarks/fusion_kuairand.py DATA",
        "trials": TRIALS,
        "reward": dict(REWARD.weights),
        "sources": {name: PRESETS[name].source for name in FORMULAS} | {n: LEARNERS[n].source for n in LEARNERS},
        "heads on train's latest tenth": {k: {m: v.get(m) for m in ("auc", "xauc", "gauc")} for k, v in heads.items()},
        "groupings": {},
    }
    for name, (by, least) in GROUPINGS.items():
        data = rows_of(valid, by).of_size(least)
        found = study(data, arguments.out / name, progress)
        result["groupings"][name] = {"by": list(by), "least rows": least, **found}
    result["seconds of the last call"] = round(time.perf_counter() - began)
    target = HERE / f"results/{date.today().isoformat()}-fusion-kuairand"
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """A table for each grouping."""
    lines = [
        f"`{result['command']}`. GAUC (XAUC of watch time) within requests; Δ against `{SEARCHED}`, 95 % intervals.",
        "",
    ]
    for name, found in result["groupings"].items():
        table = found["table"]
        lines += [
            f"**{name}**: {', '.join(found['by'])}, at least {found['least rows']} rows; {table['rows']:,} rows,"
            f" {table['requests']:,} requests, {table['users']:,} users.",
            "",
            "| ranking | composite | Δ composite | MTF-GAUC | Δ MTF-GAUC | NDCG@3 | " + " | ".join(TASKS) + " |",
            "|---|" + "---:|" * (5 + len(TASKS)),
        ]
        for ranking in table["rankings"]:
            values, deltas = ranking["metrics"], ranking["against"]
            cells = []
            for metric, of in (("composite", "gauc"), ("mtf_gauc", "reward")):
                cells += [f"{values[metric][of]['value']:.4f}", difference(deltas.get(metric, {}).get(of))]
            cells.append(f"{values['ndcg']['reward']['value']:.4f}")
            cells += [f"{values['gauc'][task]['value']:.4f}" for task in TASKS]
            lines.append(f"| {ranking['name']} | {' | '.join(cells)} |")
        lines.append("")
        lines += ["| difference | | detectable | users for 0.003 | worst behaviour |", "|---|---|---:|---:|---|"]
        for title, of in found["bars"].items():
            worst = f"{of['worst']} {of['worst_mean']:+.4f}" if "worst" in of else ""
            shown = f"{of['detectable']:.4f} | {of['users_needed']:,}" if "detectable" in of else " | "
            lines.append(f"| {title} | {difference(of['delta'])} | {shown} | {worst} |")
        lines.append("")
    return "\n".join(lines)


def difference(delta: dict[str, Any] | None) -> str:
    """`+0.0012 [−0.0003, +0.0027] gain`."""
    if not delta:
        return ""
    if delta["low"] is None:
        return f"{delta['mean']:+.4f} (no interval)"
    return f"{delta['mean']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}] {delta['verdict']}"


if __name__ == "__main__":
    main()
