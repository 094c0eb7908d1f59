"""How far off is p(purchase | click) over all exposures, when purchases are seen on clicks only?

    python benchmarks/selection_bias.py [--confirm]

Part 1: trainings. Shops with a known truth (`polyrank.simulator.shop`), a new one for each seed; one network
(Shared-Bottom) trained on each sample space; its conditional predictions on all test exposures, clicked or not, against
the truth. Three worlds: interest moves clicks (selection); clicks are blind to it (none); a part of the interest is in
no column (hidden). The bias is the mean of prediction less truth over all test rows; against the masked training, seed
by seed, the fall of its size, with 95 % intervals of Student's t over seeds.

Part 2: estimators. The mean error of a fixed prediction over all exposures, estimated from clicked ones, with the
propensities right or wrong and the imputed errors right or wrong: mean deviation from the truth, 95 % interval over
draws.

With --confirm one question alone, asked of shops that nothing was seen of before: does doubly robust training lower the
bias of the masked one? 24 further shops with selection, trained in these two ways.

Writes benchmarks/results/<date>-selection-bias.json and .md (-selection-bias-dr with --confirm).
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy import stats

from polyrank import experiment
from polyrank.progress import Terminal
from polyrank.settings import parse_settings
from polyrank.simulator.shop import ShopConfig, simulate_shop, write_shop
from polyrank.spaces import Seen, doubly_robust, inverse_propensity

SHOP = ShopConfig(exposures=150_000)
WORLDS = {
    "selection": (SHOP, range(8)),
    "none": (replace(SHOP, selection=0.0), range(4)),
    "hidden": (replace(SHOP, hidden=1.0), range(4)),
}
CONFIRMING = {"selection": (SHOP, range(8, 32))}
TRAININGS: dict[str, dict[str, Any]] = {
    **{training: {"training": training} for training in ("own", "entire", "direct", "ips", "dr")},
    "dr, pseudo labels": {"training": "dr", "imputation": "label"},
}
MODEL: dict[str, Any] = {
    "architecture": "shared_bottom",
    "embedding_width": 4,
    "towers": [16],
    "shared_bottom": {"widths": [32, 16]},
}
TRAIN = {"epochs": 6, "learning_rate": 3e-3, "embedding_learning_rate": 3e-3, "patience": 0, "precision": "float32"}
DRAWS, ROWS = 2_000, 5_000


def one(world: ShopConfig, seed: int, names: Sequence[str], folder: Path) -> dict[str, dict[str, float]]:
    """The trainings of these names on one shop: bias and mean absolute error over all rows, unclicked ones, and AUC."""
    write_shop(folder, replace(world, seed=seed))
    test = pq.read_table(folder / "test.parquet")
    truth, clicked = test["true_purchase"].to_numpy(), test["is_click"].to_numpy() == 1
    data = {name: f"{name}.parquet" for name in ("train", "valid", "test")} | {"leak_guard": False}
    found = {}
    for training in names:
        space = TRAININGS[training]
        table = {"data": {"schema": "schema.toml", **data}, "model": MODEL, "space": space}
        settings = parse_settings(table | {"train": TRAIN | {"seed": seed}}, folder)
        document = experiment.train_settings(settings, folder / training)
        experiment.score(folder / training, str(folder / "test.parquet"), folder / "scores.parquet")
        error = pq.read_table(folder / "scores.parquet")["p_purchase"].to_numpy() - truth
        found[training] = {
            "bias": float(error.mean()),
            "bias_clicked": float(error[clicked].mean()),
            "bias_unclicked": float(error[~clicked].mean()),
            "mean_absolute_error": float(np.abs(error).mean()),
            "auc_clicked": document["tasks"]["purchase"]["auc"],
            "auc_joint": document["joint"]["purchase"]["auc"],
        }
    return found


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval of Student's t."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": float(values.mean()), "low": float(values.mean() - half), "high": float(values.mean() + half)}


def trainings(
    worlds: Mapping[str, tuple[ShopConfig, range]], names: Sequence[str], progress: Terminal
) -> dict[str, Any]:
    """Part 1."""
    result: dict[str, Any] = {}
    with progress.bar("shops", sum(len(seeds) for _, seeds in worlds.values())) as bar:
        for name, (world, seeds) in worlds.items():
            runs = []
            for seed in seeds:
                with tempfile.TemporaryDirectory() as folder:
                    runs.append(one(world, seed, names, Path(folder)))
                progress.say(f"{name} {seed}: " + ", ".join(f"{k} {v['bias']:+.4f}" for k, v in runs[-1].items()))
                bar.advance(1)
            table = simulate_shop(replace(world, seed=seeds[0]))
            truth, clicked = table["true_purchase"].to_numpy(), table["is_click"].to_numpy() == 1
            result[name] = {
                "seeds": list(seeds),
                "click_rate": float(clicked.mean()),
                "purchase_given_click": {"all": float(truth.mean()), "clicked": float(truth[clicked].mean())},
                "trainings": {},
            }
            for training in names:
                measured = {k: interval(np.array([run[training][k] for run in runs])) for k in runs[0][training]}
                size = {t: np.abs([run[t]["bias"] for run in runs]) for t in ("own", training)}
                if training != "own":
                    measured["fall_of_bias_against_own"] = interval(size["own"] - size[training])
                result[name]["trainings"][training] = measured
            result[name]["runs"] = runs
    return result


def estimators() -> dict[str, Any]:
    """Part 2."""
    rng = np.random.default_rng(0)
    table = simulate_shop(replace(SHOP, exposures=ROWS))
    click, purchase = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("true_click", "true_purchase"))
    # A prediction that is not the truth, and its error on each row on average over labels.
    prediction = torch.sigmoid(torch.logit(purchase) * 0.5 + 0.5)
    expected = -(purchase * prediction.log() + (1 - purchase) * (1 - prediction).log())
    propensities = {"right": click, "wrong": torch.full_like(click, click.mean().item())}
    imputed = {"right": expected, "wrong": torch.full_like(expected, 0.3)}
    weights = torch.ones(ROWS, dtype=torch.float64)
    found: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        labels = torch.from_numpy(rng.random(ROWS)) < purchase
        errors = -torch.where(labels, prediction.log(), (1 - prediction).log())
        observed = torch.from_numpy(rng.random(ROWS)) < click
        truth = expected.mean()
        found.setdefault("masked mean", []).append((errors[observed].mean() - truth).item())
        for name, chance in propensities.items():
            seen = Seen(observed, chance, weights)
            key = f"ips, propensities {name}"
            found.setdefault(key, []).append((inverse_propensity(errors, seen) - truth).item())
            for other, guess in imputed.items():
                key = f"dr, propensities {name}, imputation {other}"
                found.setdefault(key, []).append((doubly_robust(errors, guess, seen) - truth).item())
    return {key: interval(np.array(values)) for key, values in found.items()} | {"truth": expected.mean().item()}


def written(result: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [f"# Selection bias, {result['date']}", "", f"`{result['command']}`, {result['machine']}", ""]
    for name, world in result["trainings"].items():
        rate, shares = world["click_rate"], world["purchase_given_click"]
        lines += [
            f"## World: {name}",
            "",
            f"{len(world['seeds'])} shops of {SHOP.exposures:,} exposures. Of the first {rate:.1%} are clicked;",
            f"p(purchase | click) is {shares['all']:.4f} over all exposures, {shares['clicked']:.4f} over clicked.",
            "",
            "| training | bias over all rows | fall of its size against own | mean abs. error | AUC, clicked | joint |",
            "|---|---|---|---|---|---|",
        ]
        for training, found in world["trainings"].items():
            fall = found.get("fall_of_bias_against_own")
            cells = [_cell(found["bias"]), "–" if fall is None else _cell(fall), _cell(found["mean_absolute_error"])]
            cells += [f"{found[key]['mean']:.4f}" for key in ("auc_clicked", "auc_joint")]
            lines.append(f"| {training} | {' | '.join(cells)} |")
        lines.append("")
    if "estimators" not in result:
        return "\n".join(lines)
    lines += ["## Estimators", "", f"Truth {result['estimators']['truth']:.4f}; {DRAWS:,} draws of {ROWS:,} rows.", ""]
    lines += ["| estimator | deviation from the truth |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in result["estimators"].items() if key != "truth"]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float]) -> str:
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirm", action="store_true", help="masked against doubly robust on 24 further shops")
    confirm = parser.parse_args().confirm
    torch.set_num_threads(1)
    result = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
        "model": MODEL,
        "train": TRAIN,
    }
    if confirm:
        result["trainings"] = trainings(CONFIRMING, ("own", "dr"), Terminal())
    else:
        result["estimators"] = estimators()
        result["trainings"] = trainings(WORLDS, tuple(TRAININGS), Terminal())
    stem = Path(__file__).parent / f"results/{result['date']}-selection-bias{'-dr' if confirm else ''}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(written(result), encoding="utf-8")
    sys.stdout.write(written(result))


if __name__ == "__main__":
    main()
