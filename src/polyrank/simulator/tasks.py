"""Regression tasks whose correlation is chosen: the synthetic data of the MMoE paper, for two tasks or more.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, section 3.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Gt, Interval

from polyrank.data.schema import Feature, Schema, Task, save_schema
from polyrank.files import writing

LABELS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class RelatedTasksConfig:
    """What the paper calls the data's parameters; it tells d, p and the noise, and leaves the others open.

    Attributes:
        correlation: p, the cosine between any two tasks' weight vectors: at 1 they are the same task but for the noise,
            at 0 they have nothing in common. For T tasks it cannot be below −1/(T − 1).
        tasks: T; the paper has two.
        width: d, how many numbers a row has.
        scale: c, the length of the weight vectors.
        sines: m, how many sines a label adds up.
        trend: what w·x itself counts in a label. The paper's 1 lets labels mostly rise with w·x; at 0 they go up and
            down, and no task is nearly linear.
        noise: standard deviation of ε (the paper's variance is 0.01).
    """

    correlation: Annotated[float, Interval(ge=-1, le=1)]
    tasks: Annotated[int, Interval(ge=2, le=6)] = 2
    width: Annotated[int, Ge(2)] = 100
    scale: Annotated[float, Gt(0)] = 1.0
    sines: Annotated[int, Ge(0)] = 10
    trend: Annotated[float, Ge(0)] = 1.0
    noise: Annotated[float, Ge(0)] = 0.1


class RelatedTasks:
    """y_k = τ w_kᵀx + Σ_i sin(α_i w_kᵀx + β_i) + ε, x ~ N(0, I), w_k = c Σ_j C_kj u_j, τ the trend.

    The u are random and orthonormal, and C is the Cholesky factor of the matrix of 1 and p, so that every cosine is p;
    for two tasks that is the paper's w_1 = c u_1, w_2 = c (p u_1 + √(1 − p²) u_2). The labels' own correlation is p
    where m = 0 and there is no noise, and otherwise smaller, but grows with p. For α and β, which the paper does not
    tell, the values of a later generator by the same company are taken: α_i = i, β_i = (i − 1)².

    Args:
        config: the knobs.
        seed: of the u.

    Raises:
        ValueError: more tasks than numbers, or a cosine that so many vectors cannot have with each other.
    """

    def __init__(self, config: RelatedTasksConfig, seed: int = 0) -> None:
        tasks, p = config.tasks, config.correlation
        if config.width < tasks:
            raise ValueError(f"width must be at least the number of tasks. Received: {config.width} for {tasks} tasks")
        if p * (tasks - 1) < -1:
            raise ValueError(f"{tasks} vectors have a cosine of {-1 / (tasks - 1):.3f} at the least. Received: {p}")
        self.config, self.names = config, LABELS[:tasks]
        draws = np.random.default_rng(seed).normal(size=(config.width, tasks))
        self.weights = config.scale * equal_cosines(tasks, p) @ np.linalg.qr(draws)[0].T  # [T, d]
        self.alphas = np.arange(1, config.sines + 1, dtype=np.float64)
        self.betas = np.arange(config.sines, dtype=np.float64) ** 2

    def expected(self, x: np.ndarray) -> np.ndarray:
        """The labels without noise: `[N, d]` → `[N, T]`."""
        projected = x @ self.weights.T
        angles = projected[:, :, None] * self.alphas + self.betas
        result: np.ndarray = self.config.trend * projected + np.sin(angles).sum(axis=2)
        return result

    def sample(self, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows x `[N, d]` and labels `[N, T]`, both float32; other seeds give other rows of the same tasks."""
        generator = np.random.default_rng(seed)
        x = generator.normal(size=(rows, self.config.width))
        labels = self.expected(x) + self.config.noise * generator.normal(size=(rows, self.config.tasks))
        return x.astype(np.float32), labels.astype(np.float32)

    def table(self, rows: int, seed: int) -> pa.Table:
        """A sample as a table of the columns that `schema` names."""
        x, labels = self.sample(rows, seed)
        columns = {f"x{number}": x[:, number] for number in range(self.config.width)}
        return pa.table(columns | {name: labels[:, task] for task, name in enumerate(self.names)})

    def write(self, out: Path, rows: dict[str, int], seed: int = 0) -> None:
        """Write a table of so many rows for each name (`train`: `train.parquet`), and `schema.toml`.

        Raises:
            StorageError: `out` cannot be written.
        """
        for place, (name, count) in enumerate(rows.items()):
            with writing(out / f"{name}.parquet") as temporary:
                pq.write_table(self.table(count, seed * len(rows) + place), temporary)
        save_schema(self.schema, out / "schema.toml")

    @property
    def schema(self) -> Schema:
        """D numbers, and the tasks."""
        features = (Feature(f"x{number}", "number", bins=2) for number in range(self.config.width))
        return Schema(tuple(features), tuple(Task(name, "regression") for name in self.names))


def equal_cosines(count: int, p: float) -> np.ndarray:
    """Rows of length 1 of which every two have the cosine p: the Cholesky factor, also where it is singular."""
    factor = np.zeros((count, count))
    for k in range(count):
        for j in range(k):
            rest = p - factor[k, :j] @ factor[j, :j]
            factor[k, j] = rest / factor[j, j] if factor[j, j] > 0 else 0.0
        factor[k, k] = np.sqrt(max(0.0, 1.0 - np.square(factor[k, :k]).sum()))
    return factor
