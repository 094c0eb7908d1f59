"""Scores with ties, labels that depend on them, and the generator that made both."""

import numpy as np
import pytest


def _tied_rows(seed, rows=400, levels=12):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, rows) / levels
    labels = (rng.random(rows) < 0.1 + 0.6 * scores).astype(np.float64)
    return scores, labels, rng


@pytest.fixture(scope="session")
def tied_rows():
    return _tied_rows
