from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Template
from polyrank.fusion.objective import Objective
from polyrank.fusion.sampling import SearchConfig
from polyrank.fusion.search import Found, search
from polyrank.fusion.seeds import prepared

JUDGE = JudgeConfig(weights={"click": 1.0, "like": 2.0})


def _log(rows: int = 600, seed: int = 0, size: int = 6, missing: bool = True) -> Requests:
    """Click and like follow their heads; hate is rare; watch is a number; likes are missing without a click."""
    rng = np.random.default_rng(seed)
    click, like, hate = rng.beta(2, 3, rows), rng.beta(1, 6, rows), rng.beta(1, 20, rows)
    clicked = (rng.random(rows) < click).astype(float)
    liked = (rng.random(rows) < like).astype(float)
    if missing:
        liked[clicked == 0] = np.nan
    of = rng.permutation(np.arange(rows) // size)
    return Requests(
        columns={
            "click": click.astype(np.float32),
            "like": like.astype(np.float32),
            "hate": hate.astype(np.float32),
            "seconds": rng.integers(5, 100, rows),
            "active": of % 2,
        },
        heads=("click", "like", "hate"),
        labels={"click": clicked, "like": liked, "watch": np.round(clicked * rng.exponential(20, rows))},
        numeric=frozenset({"watch"}),
        requests=of,
        users=of // 3,
        reward=clicked + 3 * np.nan_to_num(liked),
    )


@pytest.fixture(scope="session")
def requests() -> Callable[..., Requests]:
    """`requests(rows=600, seed=0, size=6, missing=True)`: rows in a random order, of requests of `size` rows."""
    return _log


def _planted(seed: int = 0, count: int = 100, size: int = 8) -> tuple[Requests, np.ndarray]:
    """Rows whose order is `Σ w_k ln(p_k + 1e-4)` with w = 1, 3, 0.3, in three heads of different rarity."""
    rng = np.random.default_rng(seed)
    rows, w = count * size, np.array([1.0, 3.0, 0.3])
    p = 1 / (1 + np.exp(-rng.normal([0, -2, -3], [0.6, 1.0, 1.3], (rows, 3))))
    names = ("a", "b", "c")
    truth = np.log(p + 1e-4) @ w
    return Requests(
        columns=dict(zip(names, p.T, strict=True)),
        heads=names,
        labels={"order": truth},
        numeric=frozenset({"order"}),
        requests=np.arange(rows) // size,
        users=np.arange(rows) // size,
        reward=np.exp(truth - truth.max()),
    ), w


@pytest.fixture(scope="session")
def planted() -> Callable[..., tuple[Requests, np.ndarray]]:
    """`planted(seed=0, count=100, size=8)`: requests with a known true order, and its weights."""
    return _planted


def _search(data: Requests, template: Template | None = None, **knobs: Any) -> Found:
    more = {name: knobs.pop(name) for name in ("current", "journal", "bar") if name in knobs}
    objective = Objective(data, knobs.get("goal", "composite"), JUDGE)
    kinds = dict.fromkeys(data.heads, "probability")
    template = template or prepared("log_sum", kinds, ["hate"], "", data, objective)
    return search(template, data, objective, SearchConfig(**{"trials": 30, "jobs": 1, **knobs}), **more)


@pytest.fixture(scope="session")
def run() -> Callable[..., Found]:
    """`run(data, template=None, **knobs)`: a search of 30 trials; a like counts twice a click."""
    return _search
