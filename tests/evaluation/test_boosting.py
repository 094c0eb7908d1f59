import dataclasses

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.encoders import Encoders
from polyrank.data.readers import table_source
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.store import encode_to
from polyrank.errors import DataError
from polyrank.evaluation.boosting import boost
from polyrank.metrics.ranking import auc, xauc

FEATURES = (
    Feature("user", "id"),
    Feature("colour", "category"),
    Feature("price", "number"),
    Feature("tags", "tags", max_length=6),
    Feature("history", "sequence", max_length=6),
)
TASKS = (
    Task("click", "binary"),
    Task("like", "binary", given="click"),
    Task("watch", "regression", given="click"),
)
SCHEMA = Schema(FEATURES, TASKS)


def log(rows, seed, drives="price"):
    """A log in which one feature decides 90 % of the clicks; likes and watch times follow the price."""
    rng = np.random.default_rng(seed)
    user = (200 * rng.random(rows) ** 3).astype(np.int64)  # low numbers are frequent
    colour = rng.choice(["red", "green", "blue", "grey"], rows)
    price = rng.normal(size=rows)
    length = rng.integers(0, 6, rows)
    history = [rng.integers(0, 30, n).tolist() for n in rng.integers(1, 7, rows)]
    newest = np.array([h[-1] for h in history])
    says = {
        "user": user < 25,
        "colour": np.isin(colour, ["red", "blue"]),
        "price": np.abs(price) < 0.67,
        "missing price": (price > 0) & (price < 1),
        "tags": length >= 3,
        "history": np.isin(newest, np.arange(0, 30, 2)),
    }[drives]
    hidden = says if drives == "missing price" else np.zeros(rows, bool)
    click = np.where(rng.random(rows) < 0.9, says, rng.random(rows) < 0.5)
    like = np.where(rng.random(rows) < 0.9, price > 0, rng.random(rows) < 0.5)
    watch = 60_000 + 30_000 * np.tanh(price) + 1_000 * rng.normal(size=rows)
    return pa.table(
        {
            "user": user,
            "colour": colour,
            "price": pa.array(price, mask=hidden),
            "tags": [",".join(f"t{i}" for i in range(n)) for n in length],
            "history": history,
            "click": click.astype(np.int8),
            "like": pa.array(like.astype(np.int8), mask=rng.random(rows) < 0.2),
            "watch": watch,
        }
    )


@pytest.fixture
def encoded(tmp_path):
    def make(schema=SCHEMA, rows=1200, **knobs):
        tables = [log(n, seed, **knobs) for n, seed in ((rows, 0), (600, 1), (600, 2))]
        encoders = Encoders.fit(schema, table_source("train", tables[0], "0"))
        parts = [
            encode_to(tmp_path / name, encoders, table_source(name, table, name))
            for name, table in zip(("train", "valid", "test"), tables, strict=True)
        ]
        return encoders.layout, *parts

    return make


def boosted(parts, task, schema=SCHEMA, rows=10_000, **knobs):
    layout, train, valid, test = parts
    return boost(schema, layout, task, train, valid, test, rows=rows, threads=1, **knobs)


def relabelled(data, change):
    labels = np.array(data.labels)
    change(labels)
    return dataclasses.replace(data, ids=np.array(data.ids), dense=np.array(data.dense), labels=labels)


@pytest.mark.parametrize("drives", ["user", "colour", "price", "missing price", "tags", "history"])
def test_learns_from_every_kind_of_feature(encoded, drives):
    parts = encoded(drives=drives)
    found = boosted(parts, "click")
    assert found.predictions.shape == (600,)
    assert auc(found.predictions, parts[3].labels[:, 0]) > 0.85
    assert found.seconds > 0
    assert found.model_bytes > 1000
    assert 0 < found.trees <= 2000


def test_chance_stays_chance(encoded):
    # Labels that nothing predicts: a reference that beat chance here would have seen them.
    parts = encoded()
    rng = np.random.default_rng(0)
    coins = [relabelled(p, lambda x: x.__setitem__((slice(None), 0), rng.random(len(x)) < 0.5)) for p in parts[1:]]
    found = boosted((parts[0], *coins), "click")
    assert abs(auc(found.predictions, coins[2].labels[:, 0]) - 0.5) < 0.08


def test_probabilities_are_probabilities(encoded):
    parts = encoded()
    predictions = boosted(parts, "click").predictions
    assert ((predictions > 0) & (predictions < 1)).all()
    assert predictions.mean() == pytest.approx(parts[3].labels[:, 0].mean(), abs=0.05)


def test_regression_is_in_the_labels_unit(encoded):
    parts = encoded()
    found = boosted(parts, "watch")
    own = SCHEMA.sample_spaces(np.asarray(parts[3].labels))[:, 2]
    truth = parts[3].labels[own, 2]
    assert np.abs(found.predictions[own] - truth).mean() < 0.15 * truth.std()
    assert xauc(found.predictions[own], truth) > 0.9


@pytest.mark.parametrize("task", ["like", "watch"])
def test_rows_outside_the_sample_space_never_matter(encoded, task):
    parts = encoded()
    column = SCHEMA.task_names.index(task)
    rng = np.random.default_rng(3)

    def poison(labels):
        outside = labels[:, 0] == 0
        labels[outside, column] = rng.choice([0.0, 1.0, 1e9, np.nan], outside.sum())

    train, valid = (relabelled(part, poison) for part in parts[1:3])
    for part in (train, valid):
        outside = np.asarray(part.labels)[:, 0] == 0
        assert outside.any()
        part.dense[outside], part.ids[outside] = 9.9, 1
    clean, poisoned = boosted(parts, task), boosted((parts[0], train, valid, parts[3]), task)
    np.testing.assert_array_equal(poisoned.predictions, clean.predictions)


def test_missing_labels_are_as_rows_that_are_not_there(encoded):
    parts = encoded()
    hidden = np.zeros(parts[1].rows, bool)
    hidden[::3] = True
    holed = relabelled(parts[1], lambda labels: labels.__setitem__((hidden, 0), np.nan))
    arrays = {name: getattr(parts[1], name) for name in ("ids", "dense", "labels")}
    fewer = dataclasses.replace(parts[1], **{name: array[~hidden] for name, array in arrays.items()})
    one, two = (boosted((parts[0], train, *parts[2:]), "click") for train in (holed, fewer))
    np.testing.assert_array_equal(one.predictions, two.predictions)


def test_row_weights_count(encoded):
    # The second half of the data contradicts the first; weights decide whom to believe.
    schema = dataclasses.replace(SCHEMA, tasks=(TASKS[0],))
    parts = encoded(schema)
    half = parts[1].rows // 2
    train = relabelled(parts[1], lambda labels: labels.__setitem__(slice(half, None), 1 - labels[half:]))
    believed = []
    for first, second in ((1.0, 0.01), (0.01, 1.0)):
        weights = np.where(np.arange(parts[1].rows) < half, first, second).astype(np.float32)[:, None]
        even = [dataclasses.replace(p, weights=np.ones((p.rows, 1), np.float32)) for p in parts[2:]]
        found = boosted((parts[0], dataclasses.replace(train, weights=weights), *even), "click", schema)
        believed.append(np.corrcoef(found.predictions, parts[3].labels[:, 0])[0, 1])
    assert believed[0] > 0.5
    assert believed[1] < believed[0] - 0.3


def test_rows_of_weight_0_are_not_rows_of_their_task(encoded, monkeypatch):
    parts = encoded()
    seen, real = [], lightgbm.Dataset

    def noted(matrix, labels, **knobs):
        seen.append(len(labels))
        return real(matrix, labels, **knobs)

    monkeypatch.setattr(lightgbm, "Dataset", noted)
    weighted = []
    for part in parts[1:]:
        weights = np.ones((part.rows, 3), np.float32)
        weights[::2, 0] = 0
        weighted.append(dataclasses.replace(part, weights=weights))
    boosted((parts[0], *weighted), "click")
    boosted((parts[0], *weighted), "watch")
    boosted(parts, "watch")
    clicks = [np.isfinite(part.labels[1::2, 0]).sum() for part in parts[1:3]]
    assert seen[:2] == clicks
    assert seen[2:4] == seen[4:]


def test_row_cap_and_seed(encoded, monkeypatch):
    parts = encoded()
    shapes, real = [], lightgbm.Dataset

    def noted(matrix, *arguments, **knobs):
        shapes.append(matrix.shape)
        return real(matrix, *arguments, **knobs)

    monkeypatch.setattr(lightgbm, "Dataset", noted)
    capped = [boosted(parts, "click", rows=300, seed=seed).predictions for seed in (0, 0, 1)]
    # user, colour, price, and two columns each for tags and history; validation is never cut.
    assert shapes == [(300, 7), (600, 7)] * 3
    np.testing.assert_array_equal(capped[0], capped[1])
    assert (capped[0] != capped[2]).any()


def test_test_labels_are_never_looked_at(encoded):
    parts = encoded()
    blind = relabelled(parts[3], lambda labels: labels.fill(np.nan))
    np.testing.assert_array_equal(
        boosted(parts, "click").predictions, boosted((*parts[:3], blind), "click").predictions
    )


def test_long_list_of_categories_enters_as_a_number(encoded, monkeypatch):
    parts = encoded()
    tables = dict(parts[0].tables)
    layout = dataclasses.replace(parts[0], tables=tables | {"colour": 1_001})
    given, real = [], lightgbm.Dataset

    def noted(*arguments, **knobs):
        given.append(knobs["categorical_feature"])
        return real(*arguments, **knobs)

    monkeypatch.setattr(lightgbm, "Dataset", noted)
    for each in (parts[0], layout):
        boosted((each, *parts[1:]), "click", rows=200)
    assert given == [["f1"], ["f1"], [], []]


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_one_class_or_none_is_said_clearly(encoded, part, value):
    parts = list(encoded())
    index = ("training", "validation").index(part) + 1
    parts[index] = relabelled(parts[index], lambda labels: labels.__setitem__((slice(None), 0), value))
    with pytest.raises(DataError, match=f"{part} data must have rows of task 'click', of both classes") as raised:
        boosted(parts, "click")
    rows = parts[index].rows
    assert raised.value.received == ("none" if np.isnan(value) else f"{rows:,} rows, all with the label {value:g}")


def test_no_row_of_a_regression_is_said_clearly(encoded):
    parts = list(encoded())
    parts[2] = relabelled(parts[2], lambda labels: labels.__setitem__((slice(None), 2), np.nan))
    with pytest.raises(DataError, match="validation data must have rows of task 'watch'"):
        boosted(parts, "watch")


def free_of(kind):
    return Schema(FEATURES, (Task("click", kind), Task("like", "binary"), Task("watch", "regression")))


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("binary", "binary"), ("regression", "regression"), ("count", "poisson"), ("duration", "tweedie")],
)
def test_each_kind_has_its_objective(encoded, monkeypatch, kind, objective):
    """Counts of mean e^price, durations that are 0 for low prices: predicted without bias, and never below 0."""
    seen, train = {}, lightgbm.train

    def spy(parameters, *rest, **options):
        seen.update(parameters)
        return train(parameters, *rest, **options)

    monkeypatch.setattr(lightgbm, "train", spy)
    layout, *parts = encoded()
    rng, drawn = np.random.default_rng(0), []
    for part in parts:
        rate = np.exp(part.dense[:, layout.fields[2].dense])
        labels = {"count": rng.poisson(rate), "duration": rate * (rate > 0.5), "binary": rate > 1}.get(kind, rate - 1)
        drawn.append(relabelled(part, lambda x, y=labels: x.__setitem__((slice(None), 0), y)))
    found = boosted((layout, *drawn), "click", schema=free_of(kind))
    assert seen["objective"] == objective
    truth = drawn[2].labels[:, 0]
    assert found.predictions.mean() == pytest.approx(truth.mean(), rel=0.15, abs=0.05)
    assert xauc(found.predictions, truth) > 0.7
    if kind != "regression":
        assert (found.predictions >= 0).all()
