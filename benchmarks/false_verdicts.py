"""How often does the seesaw study call gain or loss where there is no difference?

    python benchmarks/false_verdicts.py

Simulated studies: a model and its reference score the same 1,500 rows of 150 users by the same signal, noise that they
share, and noise of their own whose amount is drawn anew for every training, from one range for both: some trainings go
better than others (a little in the narrow range, much in the wide one), but neither model is better.
Writes benchmarks/results/<date>-false-verdicts.json: the share of verdicts at 95 % that are not a tie.
"""

import json
import sys
from datetime import date
from pathlib import Path

import numpy as np

from polyrank.evaluation.seesaw import differences, sweep

STUDIES, ROWS, USERS = 400, 1_500, 150
RANGES = {"narrow": (0.6, 0.8), "wide": (0.2, 1.2)}


def share(seeds: int, noise: tuple[float, float], generator: np.random.Generator) -> float:
    """The share of simulated studies whose verdict is gain or loss."""
    wrong = 0
    for study in range(STUDIES):
        users = generator.integers(0, USERS, ROWS)
        signal = generator.normal(size=ROWS) + generator.normal(size=USERS)[users]
        labels = (generator.random(ROWS) < 1 / (1 + np.exp(1.5 - signal))).astype(np.float32)
        common = signal + generator.normal(size=ROWS)
        model, reference = (
            [
                sweep("binary", common + generator.uniform(*noise) * generator.normal(size=ROWS), labels)
                for _ in range(seeds)
            ]
            for _ in "ab"
        )
        found = differences(
            {"model": model}, {"reference": reference}, users, ROWS, replicates=100, level=0.95, seed=study
        )
        wrong += found["model"]["reference"].verdict != "tie"
    return wrong / STUDIES


def main() -> None:
    """Every number of seeds, with little and with much training noise."""
    generator = np.random.default_rng(0)
    shares = {
        str(seeds): {name: share(seeds, noise, generator) for name, noise in RANGES.items()} for seeds in (1, 2, 3, 5)
    }
    result = {"command": " ".join(["python", *sys.argv]), "studies": STUDIES, "false verdicts by seeds": shares}
    print(json.dumps(result, indent=2))
    target = Path(__file__).parent / f"results/{date.today().isoformat()}-false-verdicts.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
