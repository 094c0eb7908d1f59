"""What a ranker's gates do on average: which task uses which expert."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from polyrank.data.loader import Batch
from polyrank.models.ranker import Ranker
from polyrank.nn.experts import SHARED


def gate_utilisation(ranker: Ranker, batches: Iterable[Batch], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Mean gate weights over rows.

    Returns:
        JSON-ready, one entry a gate: `level`, `gate` (the task's name or "shared"), `experts` (names: "income 1",
        "shared 2"), `weights` (mean weight of each, they sum to 1), and `entropy`: the mean over rows of
        −Σ_e g_e ln g_e in nats; its exponential is the number of experts in effective use.
    """
    names = [*tasks, *(f"{tasks[task]} imputation" for task in ranker.imputed)]
    sums: dict[tuple[int, int], Any] = {}
    rows = 0
    ranker.eval()
    with torch.inference_mode():
        for batch in batches:
            rows += batch.rows
            for gate in ranker.gates(batch):
                weights = gate.weights.double()
                entropy = -(weights * weights.clamp_min(1e-30).log()).sum()
                key = (gate.level, gate.owner)
                before, spread, _ = sums.get(key, (0.0, 0.0, None))
                sums[key] = (before + weights.sum(dim=0), spread + entropy, gate.experts)

    def name(owner: int) -> str:
        return "shared" if owner == SHARED else names[owner]

    result = []
    for (level, owner), (total, spread, experts) in sums.items():
        result.append(
            {
                "level": level,
                "gate": name(owner),
                "experts": [f"{name(of)} {number + 1}" for of, number in experts],
                "weights": (total / rows).tolist(),
                "entropy": float(spread / rows),
            }
        )
    return result
