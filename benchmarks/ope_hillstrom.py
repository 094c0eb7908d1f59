"""Do the off-policy estimators recover what is known? The Hillstrom e-mail experiment, three arms at random.

    python benchmarks/ope_hillstrom.py PATH/emails.parquet

The policy "everybody gets arm k" is judged from all 64,000 customers by each estimator (importance weights 3 or 0; a
linear model of the outcome, cross-fitted over five folds). What it earned is known: the mean over the third that got
arm k. Writes benchmarks/results/<date>-ope-hillstrom.{json,md}.
"""

import argparse
import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyrank.fusion.estimate import estimate
from polyrank.fusion.ope import ESTIMATORS, Logged
from polyrank.fusion.ratios import density_ratio

HERE = Path(__file__).parent
OUTCOMES = ("visit", "conversion", "spend")
FOLDS = 5


def features(table: pa.Table) -> np.ndarray:
    """Customers as numbers: `[N, D]`, with a column of ones."""
    columns = [np.ones(table.num_rows)]
    for name in ("recency", "history", "mens", "womens", "newbie"):
        values = table[name].to_numpy().astype(float)
        columns.append((values - values.mean()) / values.std())
    for name in ("zip_code", "channel"):
        texts = table[name].to_pylist()
        columns += [np.array([text == value for text in texts], float) for value in sorted(set(texts))[1:]]
    return np.stack(columns, axis=1)


def cross_fitted(x: np.ndarray, y: np.ndarray, own: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """E[y | x, arm] `[N]` by least squares on the rows of the arm in the other folds."""
    out = np.empty(len(y))
    for k in range(FOLDS):
        rows = own & (fold != k)
        out[fold == k] = x[fold == k] @ np.linalg.lstsq(x[rows], y[rows], rcond=None)[0]
    return out


def main() -> None:
    """Estimate, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="emails.parquet")
    table = pq.read_table(parser.parse_args().path)
    arms = np.array(table["segment"].to_pylist())
    x, fold = features(table), np.random.default_rng(0).integers(0, FOLDS, len(arms))
    rows = []
    for arm in np.unique(arms):
        own = arms == arm
        with np.errstate(divide="ignore"):
            weights = density_ratio(np.log(own.astype(float)), np.full(len(arms), np.log(1 / 3)))
        for outcome in OUTCOMES:
            rewards = table[outcome].to_numpy().astype(float)
            model = cross_fitted(x, rewards, own, fold)
            data, truth = Logged(weights, rewards, model, model), float(rewards[own].mean())
            for name, estimator in ESTIMATORS.items():
                found = estimate(estimator(data), seed=1)
                inside = found.interval.low <= truth <= found.interval.high
                rows.append([arm, outcome, truth, name, found.value, found.interval.low, found.interval.high, inside])
                print(*rows[-1], flush=True)
    command = "python benchmarks/ope_hillstrom.py PATH/emails.parquet"
    reached = sum(row[-1] for row in rows)
    lines = [f"`{command}`: the known mean lies in the 95 % interval in {reached} of {len(rows)} cases.", ""]
    lines += [
        "| arm | outcome | known | estimator | estimate | interval | known within |",
        "|---|---|---:|---|---:|---|---|",
    ]
    for arm, outcome, truth, name, value, low, high, inside in rows:
        cells = f"{truth:.5f} | {name} | {value:.5f} | [{low:.5f}, {high:.5f}] | {'yes' if inside else 'no'}"
        lines.append(f"| {arm} | {outcome} | {cells} |")
    target = HERE / f"results/{date.today().isoformat()}-ope-hillstrom"
    heads = ("arm", "outcome", "known", "estimator", "estimate", "low", "high", "within")
    document = {"command": command, "rows": [dict(zip(heads, row, strict=True)) for row in rows]}
    target.with_suffix(".json").write_text(json.dumps(document, indent=1, default=bool) + "\n")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
