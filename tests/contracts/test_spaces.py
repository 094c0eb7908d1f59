"""Every architecture can be trained on every sample space."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from polyrank import experiment
from polyrank.data.encoders import Encoded, TaskStatistics
from polyrank.data.layout import Field, Layout
from polyrank.data.loader import Batch, as_batch
from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import ConfigError
from polyrank.evaluation.gates import gate_utilisation
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig, resolve_space
from polyrank.nn.ensemble import EnsembleConfig
from polyrank.runs import load_run
from polyrank.settings import parse_settings
from polyrank.simulator.shop import ShopConfig, write_shop
from polyrank.spaces import SpaceConfig

TASKS = (
    Task("buy", "binary", given="click"),  # before its parent
    Task("click", "binary"),
    Task("watch", "regression", given="click"),
    Task("return", "binary", given="buy"),
)
SCHEMA = Schema((Feature("user", "id"), Feature("item", "id")), TASKS)
LAYOUT = Layout((Field("user", "id", 0, 1, "user"), Field("item", "id", 1, 2, "item")), {"user": 20, "item": 15})
STATISTICS = (
    TaskStatistics(60, 0.4, 0.49),
    TaskStatistics(120, 0.5, 0.5),
    TaskStatistics(60, 20.0, 9.0),
    TaskStatistics(24, 0.3, 0.46),
)
ROWS = 120
TRAININGS = ("own", "entire", "direct", "ips", "dr")
every = pytest.mark.parametrize(
    ("name", "training"), [(n, t) for n in ARCHITECTURES if n != "single_task" for t in TRAININGS]
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ranker_of(name, training, tasks=TASKS, **knobs):
    config = RankerConfig(architecture=name, embedding_width=4, towers=(16,))
    statistics = [STATISTICS[TASKS.index(task)] for task in tasks]
    options = ARCHITECTURES[name].config()
    return Ranker(tasks, statistics, LAYOUT, config, options, SpaceConfig(training, **knobs))


def batch_of(change=lambda labels: labels):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, [20, 15], (ROWS, 2)).astype(np.int32)
    click = rng.random(ROWS) < 0.5
    buy = click & (rng.random(ROWS) < 0.4)
    back = buy & (rng.random(ROWS) < 0.5)
    watch = np.where(click, rng.exponential(20, ROWS), np.nan)
    labels = np.stack([buy, click, watch, back], axis=1).astype(np.float32)
    labels[3::11, 0] = np.nan
    none = np.zeros((ROWS, 0), np.float32)
    return as_batch(Encoded(ids, none, change(labels), none, np.zeros(0, np.int64)), SCHEMA)


def gradients(ranker, batch):
    torch.manual_seed(1)
    ranker.zero_grad()
    losses, masses = ranker.losses(ranker(batch), batch), ranker.mass(batch)
    losses.sum().backward()
    ranker.embeddings.touched()
    return losses.detach(), masses, {name: p.grad.clone() for name, p in ranker.dense_parameters()}


@every
def test_every_parameter_learns(name, training):
    ranker, batch = ranker_of(name, training), batch_of()
    losses, masses, found = gradients(ranker, batch)
    assert losses.shape == masses.shape == (4,)
    assert torch.isfinite(losses).all()
    assert (masses > 0).all()
    assert [parameter for parameter, slope in found.items() if not slope.any()] == []
    assert all(torch.isfinite(slope).all() for slope in found.values())


@every
def test_predictions_are_probabilities_for_each_task(name, training):
    ranker = ranker_of(name, training).eval()
    found = ranker.predict(batch_of())
    assert found.shape == (ROWS, 4)
    assert ((found[:, [0, 1, 3]] > 0) & (found[:, [0, 1, 3]] <= 1)).all()
    for gate in ranker.gates(batch_of()):
        assert gate.owner < 4 + len(ranker.imputed)


@every
def test_labels_outside_their_space_change_nothing(name, training):
    """A purchase without a click is a contradiction that the parent wins; a watch time there is ignored."""

    def contradict(labels):
        outside = labels[:, 1] == 0
        labels[outside, 0], labels[outside, 2] = 1.0, 1e6
        return labels

    ranker = ranker_of(name, training)
    losses, masses, found = gradients(ranker, batch_of())
    again, same_masses, same = gradients(ranker, batch_of(contradict))
    assert torch.equal(losses, again)
    assert torch.equal(masses, same_masses)
    assert all(torch.equal(same[key], found[key]) for key in found)


@every
def test_a_task_without_rows_stays_finite(name, training):
    for empty in range(4):

        def forget(labels, empty=empty):
            labels[:, empty] = np.nan
            return labels

        losses, _, found = gradients(ranker_of(name, training), batch_of(forget))
        assert torch.isfinite(losses).all()
        assert all(torch.isfinite(slope).all() for slope in found.values())


@every
def test_base_rates_are_predicted_at_the_start(name, training):
    """With towers that give their biases alone, the conditional predictions are the training labels' means."""
    ranker = ranker_of(name, training).eval()
    torch.nn.init.zeros_(ranker.towers.output.weight)
    found = ranker.predict(batch_of())
    torch.testing.assert_close(found, torch.tensor([s.mean for s in STATISTICS]).expand(ROWS, 4))


def test_the_esmm_family_trains_as_its_papers_do():
    trainings = {name: entry.training for name, entry in ARCHITECTURES.items() if entry.training != "own"}
    assert trainings == {"esmm": "entire", "escm2_ips": "ips", "escm2_dr": "dr", "aitm": "direct"}
    for name, training in trainings.items():
        assert resolve_space(SpaceConfig(), name).training == training
        assert resolve_space(SpaceConfig("own"), name).training == "own"
    assert resolve_space(SpaceConfig(joint_weight=3.0), "mmoe") == SpaceConfig("own", joint_weight=3.0)


def test_imputation_has_towers_of_its_own_and_propensities_none():
    ranker = ranker_of("mmoe", "dr")
    assert ranker.imputed == [0, 2, 3]
    assert ranker(batch_of()).shape == (ROWS, 7)
    assert ranker_of("mmoe", "ips").imputed == []


def test_the_loss_is_that_of_the_sample_space():
    """ESMM's own: the chain's joint cross-entropy, through the whole ranker."""
    ranker, batch = ranker_of("esmm", "entire"), batch_of()
    z = ranker(batch)
    losses = ranker.losses(z, batch)
    c = torch.sigmoid(z[:, 1]) * torch.sigmoid(z[:, 0]) * torch.sigmoid(z[:, 3])
    known = batch.joint[:, 3] >= 0
    y = batch.joint[known, 3]
    wanted = -(y * c[known].log() + (1 - y) * (1 - c[known]).log()).mean()
    torch.testing.assert_close(losses[3], wanted)


def test_direct_predictions_are_quotients():
    ranker, batch = ranker_of("mmoe", "direct").eval(), batch_of()
    with torch.no_grad():
        ranker.towers.output.bias += torch.tensor([3.0, 0.0, 0.0, 0.0]).view(4, 1, 1)  # more buy than click, it seems
    z = torch.sigmoid(ranker(batch))
    found = ranker.predict(batch)
    torch.testing.assert_close(found[:, 3], (z[:, 3] / z[:, 0]).clamp(max=1))
    torch.testing.assert_close(found[:, 0], torch.ones(ROWS))
    torch.testing.assert_close(found[:, 1], z[:, 1])


def test_a_parent_that_is_not_trained_is_refused_unless_the_space_is_the_tasks_own():
    own = ranker_of("mmoe", "own", tasks=TASKS[:1])
    assert own.tree == (-1,)
    with pytest.raises(ValueError, match="'buy' without 'click'"):
        ranker_of("mmoe", "entire", tasks=TASKS[:1])


def test_the_config_section():
    table = {"data": {"schema": "s", "train": "t"}, "space": {"training": "dr", "propensity_floor": 0.1}}
    settings = parse_settings(table, Path())
    assert settings.space == SpaceConfig("dr", propensity_floor=0.1)
    assert settings.table(run=True)["space"]["training"] == "dr"
    assert settings.with_model("mmoe", 0).space == settings.space
    assert settings.with_model("single_task", 0, ["click"]).space == SpaceConfig()
    with pytest.raises(ConfigError, match="propensity_floor"):
        parse_settings(table | {"space": {"propensity_floor": 0.0}}, Path())


def test_a_floor_of_one_is_no_correction():
    """IPS with every propensity 1 is the sum over observed rows by the size of the exposed space."""
    ranker, batch = ranker_of("mmoe", "ips", propensity_floor=1.0, correction_weight=1.0, joint_weight=0.0), batch_of()
    z = ranker(batch)
    corrected = ranker.losses(z, batch)
    own = dataclasses.replace(ranker.space, training="own")
    ranker.space = own
    masked = ranker.losses(z, batch)
    exposed = (batch.joint[:, 1] >= 0).sum()
    torch.testing.assert_close(corrected[0], masked[0] * batch.where[:, 0].sum() / exposed)
    assert math.isfinite(corrected.sum().item())


@pytest.mark.parametrize("training", TRAININGS)
def test_a_run_trains_and_scores_alike_when_loaded(training, tmp_path):
    write_shop(tmp_path, ShopConfig(exposures=1_500, users=20, items=10))
    data = {"schema": "schema.toml", "train": "train.parquet", "valid": "valid.parquet", "leak_guard": False}
    model = {"architecture": "ple", "embedding_width": 4, "towers": [4], "ple": {"widths": [8]}}
    table = {"data": data, "model": model, "space": {"training": training}, "train": {"epochs": 1, "batch_size": 128}}
    document = experiment.train_settings(parse_settings(table, tmp_path), tmp_path / "run")
    del document["bests"]  # of the training: an evaluation has none
    assert document == experiment.evaluate(tmp_path / "run", str(tmp_path / "valid.parquet")) | {"data": "valid"}
    assert document["joint"]["purchase"]["rows"] == 150 > document["tasks"]["purchase"]["rows"]
    experiment.score(tmp_path / "run", str(tmp_path / "test.parquet"), tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert scores.column_names == ["p_click", "p_purchase", "joint_purchase"]
    loaded = load_run(tmp_path / "run").ranker
    assert loaded.space.training == training
    assert len(loaded.imputed) == (training == "dr")
    ids = torch.zeros(4, 6, dtype=torch.int32)
    batch = Batch(ids, torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool))
    owners = {gate["gate"] for gate in gate_utilisation(loaded, [batch], ["click", "purchase"])}
    assert ("purchase imputation" in owners) == (training == "dr")


def test_a_missing_parent_is_one_message(tmp_path):
    write_shop(tmp_path, ShopConfig(exposures=500, users=20, items=10))
    data = {"schema": "schema.toml", "train": "train.parquet", "valid": "valid.parquet", "tasks": ["purchase"]}
    settings = parse_settings({"data": data, "space": {"training": "entire"}}, tmp_path)
    with pytest.raises(ConfigError, match="needs the parents of all tasks"):
        experiment.train_settings(settings, tmp_path / "run")


def test_an_ensemble_is_trained_member_by_member():
    config = RankerConfig(
        architecture="mmoe", embedding_width=4, towers=(8,), ensemble=EnsembleConfig(members=3), first_order=True
    )
    for training in TRAININGS:
        ranker = Ranker(TASKS, STATISTICS, LAYOUT, config, ARCHITECTURES["mmoe"].config(), SpaceConfig(training))
        batch = batch_of()
        logits, views = ranker(batch), ranker.views(batch)
        assert logits.shape == (3 * ROWS, 4 + len(ranker.imputed))
        each = torch.stack([ranker.losses(z, batch) for z in logits.split(ROWS)])
        torch.testing.assert_close(ranker.losses(logits, views), each.mean(dim=0))
        torch.testing.assert_close(ranker.mass(views), 3 * ranker.mass(batch))
        assert ranker.eval().predict(batch).shape == (ROWS, 4)
