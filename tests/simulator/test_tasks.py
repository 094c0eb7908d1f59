"""Known truth: weights of a chosen cosine, labels by the paper's formula."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from polyrank.data.schema import load_schema, save_schema
from polyrank.simulator.tasks import LABELS, RelatedTasks, RelatedTasksConfig


@pytest.mark.parametrize("p", [-1.0, -0.3, 0.0, 0.5, 0.9, 1.0])
def test_the_cosine_is_as_chosen(p):
    first, second = RelatedTasks(RelatedTasksConfig(p, width=20, scale=2.5), seed=3).weights
    assert np.linalg.norm([first, second], axis=1).tolist() == pytest.approx([2.5, 2.5])
    assert first @ second / 2.5**2 == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("p", [-0.33, 0.0, 0.5, 1.0])
def test_every_two_of_four_tasks_have_the_cosine(p):
    weights = RelatedTasks(RelatedTasksConfig(p, tasks=4, width=9, scale=2.0), seed=3).weights / 2.0
    expected = np.full((4, 4), p)
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(weights @ weights.T, expected, atol=1e-9)


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"3 vectors have a cosine of -0\.500 at the least\. Received: -0\.6"):
        RelatedTasks(RelatedTasksConfig(-0.6, tasks=3))
    with pytest.raises(ValueError, match=r"Received: 3 for 4 tasks"):
        RelatedTasks(RelatedTasksConfig(0.0, tasks=4, width=3))


def test_without_a_trend_labels_only_swing():
    pair = RelatedTasks(RelatedTasksConfig(0.0, width=2, sines=1, trend=0.0, noise=0.0))
    pair.weights = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert pair.expected(np.array([[2.0, 0.5]]))[0].tolist() == pytest.approx([math.sin(2.0), math.sin(1.0)])


def test_a_label_by_hand():
    pair = RelatedTasks(RelatedTasksConfig(0.6, width=2, sines=2, noise=0.0))
    pair.weights = np.array([[1.0, 0.0], [0.6, 0.8]])
    # z = 2 and 1.2 + 0.8 · 0.5 = 1.6; z + sin(z + 0) + sin(2 z + 1)
    expected = [z + math.sin(z) + math.sin(2 * z + 1) for z in (2.0, 1.6)]
    assert pair.expected(np.array([[2.0, 0.5]]))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("p", [-0.8, 0.0, 0.5, 1.0])
def test_without_sines_labels_correlate_as_their_weights(p):
    _, labels = RelatedTasks(RelatedTasksConfig(p, sines=0, noise=0.0), seed=1).sample(50_000, seed=2)
    assert np.corrcoef(labels.T)[0, 1] == pytest.approx(p, abs=0.02)


def test_labels_correlation_grows_with_the_cosine():
    found = []
    for p in (0.0, 0.5, 0.9, 1.0):
        _, labels = RelatedTasks(RelatedTasksConfig(p), seed=1).sample(50_000, seed=2)
        found.append(np.corrcoef(labels.T)[0, 1])
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.0, abs=0.02)  # independent projections: nothing in common
    assert found[-1] > 0.99  # the noise alone is different


def test_the_noise_is_as_told():
    pair = RelatedTasks(RelatedTasksConfig(0.5, noise=0.3), seed=1)
    x, labels = pair.sample(50_000, seed=2)
    noise = labels - pair.expected(x.astype(np.float64))
    assert noise.std(axis=0).tolist() == pytest.approx([0.3, 0.3], rel=0.02)
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(0.0, abs=0.02)


def test_seeds():
    config = RelatedTasksConfig(0.5)
    pair = RelatedTasks(config, seed=1)
    assert np.array_equal(pair.weights, RelatedTasks(config, seed=1).weights)
    assert not np.array_equal(pair.weights, RelatedTasks(config, seed=2).weights)
    for first, second in zip(pair.sample(5, 1), pair.sample(5, 1), strict=True):
        assert np.array_equal(first, second)
    assert not np.array_equal(pair.sample(5, 1)[0], pair.sample(5, 2)[0])


def test_tables_obey_their_schema(tmp_path):
    pair = RelatedTasks(RelatedTasksConfig(0.5, width=3))
    table = pair.table(7, seed=4)
    save_schema(pair.schema, tmp_path / "schema.toml")
    schema = load_schema(tmp_path / "schema.toml")
    assert schema.task_names == LABELS[:2]
    assert table.column_names == ["x0", "x1", "x2", "first", "second"]
    x, labels = pair.sample(7, seed=4)
    assert np.array_equal(np.stack([table[f"x{i}"].to_numpy() for i in range(3)], axis=1), x)
    assert np.array_equal(table["second"].to_numpy(), labels[:, 1])


def test_files(tmp_path):
    tasks = RelatedTasks(RelatedTasksConfig(0.0, tasks=3, width=4))
    tasks.write(tmp_path, {"train": 9, "test": 5})
    assert load_schema(tmp_path / "schema.toml").task_names == ("first", "second", "third")
    train, test = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("train", "test"))
    assert (len(train), len(test)) == (9, 5)
    assert train.column_names == test.column_names == ["x0", "x1", "x2", "x3", "first", "second", "third"]
    assert not np.array_equal(train["x0"].to_numpy()[:5], test["x0"].to_numpy())
