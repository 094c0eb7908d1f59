"""Two regression tasks whose correlation is chosen: the synthetic data of the MMoE paper.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, section 3.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Interval

from polyrank.data.schema import Feature, Schema, Task

LABELS = ("first", "second")


@dataclass(frozen=True)
class TaskPairConfig:
    """What the paper calls the data's parameters; it tells d, p and the noise, and leaves the others open.

    Attributes:
        correlation: p, the cosine between the tasks' weight vectors: at 1 they are the same task but for the noise, at
            0 they have nothing in common.
        width: d, how many numbers a row has.
        scale: c, the length of the weight vectors.
        sines: m, how many sines a label adds up.
        noise: standard deviation of ε (the paper's variance is 0.01).
    """

    correlation: Annotated[float, Interval(ge=-1, le=1)]
    width: Annotated[int, Ge(2)] = 100
    scale: Annotated[float, Gt(0)] = 1.0
    sines: Annotated[int, Ge(0)] = 10
    noise: Annotated[float, Ge(0)] = 0.1


class TaskPair:
    """y_k = w_kᵀx + Σ_i sin(α_i w_kᵀx + β_i) + ε, x ~ N(0, I), w_1 = c u_1, w_2 = c (p u_1 + √(1 − p²) u_2).

    u_1 and u_2 are random and orthonormal, so that cos(w_1, w_2) = p. The labels' own correlation is p where m = 0 and
    there is no noise, and otherwise smaller, but grows with p. For α and β, which the paper does not tell, the values
    of a later generator by the same company are taken: α_i = i, β_i = (i − 1)².

    Args:
        config: the knobs.
        seed: of u_1 and u_2.
    """

    def __init__(self, config: TaskPairConfig, seed: int = 0) -> None:
        self.config = config
        draws = np.random.default_rng(seed).normal(size=(config.width, 2))
        first, second = np.linalg.qr(draws)[0].T
        p = config.correlation
        self.weights = config.scale * np.stack([first, p * first + np.sqrt(1 - p**2) * second])  # [2, d]
        self.alphas = np.arange(1, config.sines + 1, dtype=np.float64)
        self.betas = np.arange(config.sines, dtype=np.float64) ** 2

    def expected(self, x: np.ndarray) -> np.ndarray:
        """The labels without noise: `[N, d]` → `[N, 2]`."""
        projected = x @ self.weights.T
        angles = projected[:, :, None] * self.alphas + self.betas
        result: np.ndarray = projected + np.sin(angles).sum(axis=2)
        return result

    def sample(self, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows x `[N, d]` and labels `[N, 2]`, both float32; other seeds give other rows of the same tasks."""
        generator = np.random.default_rng(seed)
        x = generator.normal(size=(rows, self.config.width))
        labels = self.expected(x) + self.config.noise * generator.normal(size=(rows, 2))
        return x.astype(np.float32), labels.astype(np.float32)

    def table(self, rows: int, seed: int) -> pa.Table:
        """A sample as a table of the columns that `schema` names."""
        x, labels = self.sample(rows, seed)
        columns = {f"x{number}": x[:, number] for number in range(self.config.width)}
        return pa.table(columns | {name: labels[:, task] for task, name in enumerate(LABELS)})

    @property
    def schema(self) -> Schema:
        """D numbers, and the two tasks."""
        features = (Feature(f"x{number}", "number", bins=2) for number in range(self.config.width))
        return Schema(tuple(features), tuple(Task(name, "regression") for name in LABELS))
