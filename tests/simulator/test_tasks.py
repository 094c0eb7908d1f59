"""Known truth: weights of a chosen cosine, labels by the paper's formula."""

import math

import numpy as np
import pytest

from polyrank.data.schema import load_schema, save_schema
from polyrank.simulator.tasks import LABELS, TaskPair, TaskPairConfig


@pytest.mark.parametrize("p", [-1.0, -0.3, 0.0, 0.5, 0.9, 1.0])
def test_the_cosine_is_as_chosen(p):
    first, second = TaskPair(TaskPairConfig(p, width=20, scale=2.5), seed=3).weights
    assert np.linalg.norm([first, second], axis=1).tolist() == pytest.approx([2.5, 2.5])
    assert first @ second / 2.5**2 == pytest.approx(p, abs=1e-12)


def test_a_label_by_hand():
    pair = TaskPair(TaskPairConfig(0.6, width=2, sines=2, noise=0.0))
    pair.weights = np.array([[1.0, 0.0], [0.6, 0.8]])
    # z = 2 and 1.2 + 0.8 · 0.5 = 1.6; z + sin(z + 0) + sin(2 z + 1)
    expected = [z + math.sin(z) + math.sin(2 * z + 1) for z in (2.0, 1.6)]
    assert pair.expected(np.array([[2.0, 0.5]]))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("p", [-0.8, 0.0, 0.5, 1.0])
def test_without_sines_labels_correlate_as_their_weights(p):
    _, labels = TaskPair(TaskPairConfig(p, sines=0, noise=0.0), seed=1).sample(50_000, seed=2)
    assert np.corrcoef(labels.T)[0, 1] == pytest.approx(p, abs=0.02)


def test_labels_correlation_grows_with_the_cosine():
    found = []
    for p in (0.0, 0.5, 0.9, 1.0):
        _, labels = TaskPair(TaskPairConfig(p), seed=1).sample(50_000, seed=2)
        found.append(np.corrcoef(labels.T)[0, 1])
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.0, abs=0.02)  # independent projections: nothing in common
    assert found[-1] > 0.99  # the noise alone is different


def test_the_noise_is_as_told():
    pair = TaskPair(TaskPairConfig(0.5, noise=0.3), seed=1)
    x, labels = pair.sample(50_000, seed=2)
    noise = labels - pair.expected(x.astype(np.float64))
    assert noise.std(axis=0).tolist() == pytest.approx([0.3, 0.3], rel=0.02)
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(0.0, abs=0.02)


def test_seeds():
    config = TaskPairConfig(0.5)
    pair = TaskPair(config, seed=1)
    assert np.array_equal(pair.weights, TaskPair(config, seed=1).weights)
    assert not np.array_equal(pair.weights, TaskPair(config, seed=2).weights)
    for first, second in zip(pair.sample(5, 1), pair.sample(5, 1), strict=True):
        assert np.array_equal(first, second)
    assert not np.array_equal(pair.sample(5, 1)[0], pair.sample(5, 2)[0])


def test_tables_obey_their_schema(tmp_path):
    pair = TaskPair(TaskPairConfig(0.5, width=3))
    table = pair.table(7, seed=4)
    save_schema(pair.schema, tmp_path / "schema.toml")
    schema = load_schema(tmp_path / "schema.toml")
    assert schema.task_names == LABELS
    assert table.column_names == ["x0", "x1", "x2", *LABELS]
    x, labels = pair.sample(7, seed=4)
    assert np.array_equal(np.stack([table[f"x{i}"].to_numpy() for i in range(3)], axis=1), x)
    assert np.array_equal(table["second"].to_numpy(), labels[:, 1])
