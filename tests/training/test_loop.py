import errno
import gc
import json
import math
import os
import signal
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from polyrank.balancing.balancer import build_balancer
from polyrank.balancing.weights import StaticConfig
from polyrank.data.encoders import Encoders
from polyrank.data.loader import Batch, Loader
from polyrank.data.readers import Source
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.store import EncodedData
from polyrank.errors import DataError, Interrupted, StorageError, TrainingDiverged, UserError
from polyrank.heads import heads
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.progress import Silent
from polyrank.training import loop
from polyrank.training.checkpoint import load_checkpoint
from polyrank.training.loop import TrainConfig, Trainer
from polyrank.training.optimizers import learning_rate_factor

MODEL = RankerConfig(architecture="ple", embedding_width=4, embedding_dropout=0.2, towers=(32,), tower_dropout=0.2)
CONFIG = TrainConfig(precision="float32", epochs=3, batch_size=32, learning_rate=0.003, patience=0, save_seconds=1e9)
SCHEMA = Schema(
    features=(Feature("item", "id"), Feature("tags", "tags", max_length=2), Feature("age", "number", bins=8)),
    tasks=(Task("click", "binary"), Task("buy", "binary", given="click"), Task("watch", "regression")),
)


def _log(rows: int = 200, seed: int = 0) -> dict[str, Any]:
    """Clicks that age and item foretell; purchases among them; a watch time."""
    rng = np.random.default_rng(seed)
    item, age = rng.integers(0, 9, rows), rng.normal(40, 10, rows)
    click = rng.random(rows) < 1 / (1 + np.exp(4 - item - (age - 40) / 5))
    return {
        "item": item,
        "tags": [["a", "b"][: i % 3] for i in item],
        "age": age,
        "click": click.astype(np.int8),
        "buy": (click & (rng.random(rows) < 0.5)).astype(np.int8),
        "watch": item * 1_000.0 + rng.normal(0, 100, rows),
    }


def _encoded(encoders: Encoders, source: Source) -> EncodedData:
    (batch,) = source.batches(encoders.schema.columns(labels=True))
    return EncodedData(**vars(encoders.encode(batch)), maps=())


Make = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path: Path, in_memory: Callable[..., Source]) -> Make:
    """`make(config=CONFIG, run="run", log=…, valid=…, schema=SCHEMA, architecture="ple", weights={}, tasks=())`."""

    def trainer(
        config: TrainConfig = CONFIG,
        run: str = "run",
        *,
        log: Mapping[str, Any] | None = None,
        valid: Mapping[str, Any] | None = None,
        schema: Schema = SCHEMA,
        architecture: str = "ple",
        weights: Mapping[str, float] | None = None,
        tasks: tuple[str, ...] = (),
    ) -> Trainer:
        source = in_memory(pa.table(dict(log or _log())))
        encoders = Encoders.fit(schema, source)
        train = Loader(schema, _encoded(encoders, source), config.batch_size, config.seed, tasks)
        held_out = _encoded(encoders, in_memory(pa.table(dict(valid or _log(100, seed=1)))))
        torch.manual_seed(config.seed)
        kept = train.task_positions
        ranker = Ranker(
            [schema.tasks[i] for i in kept],
            [encoders.statistics[i] for i in kept],
            encoders.layout,
            replace(MODEL, architecture=architecture),
            ARCHITECTURES[architecture].config(),
        )
        balancer = build_balancer("static", tasks or schema.task_names, StaticConfig(weights or {}))
        return Trainer(
            ranker, balancer, train, Loader(schema, held_out, 64, 0, tasks), config, tmp_path / run, Silent()
        )

    return trainer


def _history(trainer: Trainer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trainer.history.read_text().splitlines()]


def _weights(trainer: Trainer, which: str) -> dict[str, Tensor]:
    model: dict[str, Tensor] = load_checkpoint(trainer.run / f"checkpoints/{which}.safetensors")["model"]
    return model


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _script(
    monkeypatch: pytest.MonkeyPatch, trainer: Trainer, values: list[dict[str, float]]
) -> list[dict[str, Tensor]]:
    """Let validation give `values` one after another; returns the weights that each evaluation saw."""
    seen: list[dict[str, Tensor]] = []

    def scripted(table: object) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in trainer.ranker.state_dict().items()})
        return values[len(seen) - 1]

    monkeypatch.setattr(loop, "primary_metrics", scripted)
    return seen


def _alone(*clicks: float) -> list[dict[str, float]]:
    return [{"click": value, "buy": math.nan, "watch": math.nan} for value in clicks]


def test_it_learns_and_says_what_it_did(make: Make) -> None:
    trainer = make(replace(CONFIG, epochs=8, learning_rate=0.01))

    result = trainer.fit()

    history = _history(trainer)
    assert [line["step"] for line in history] == [7 * i for i in range(1, 9)]  # 200 rows, 7 batches of 32 at most
    assert [line["rows"] for line in history] == [200 * i for i in range(1, 9)]
    assert [line["epoch"] for line in history] == list(range(1, 9))
    assert history[-1]["train_loss"]["click"] < history[0]["train_loss"]["click"]
    assert history[-1]["valid"]["click"] > 0.8
    assert history[-1]["valid"]["watch"] > 0.8
    assert history[-1]["metric"] == pytest.approx(sum(history[-1]["valid"].values()) / 3)
    assert history[-1]["weights"] == {"click": 1.0, "buy": 1.0, "watch": 1.0}
    assert (result.steps, result.rows) == (56, 1_600)
    assert result.best == max(line["metric"] for line in history)
    assert result.best_step == max(history, key=lambda line: line["metric"])["step"]
    assert [line["best"] for line in history] == [
        line["metric"] > max([earlier["metric"] for earlier in history[:i]], default=0)
        for i, line in enumerate(history)
    ]


def test_training_again_gives_the_same_bits_and_another_seed_does_not(make: Make) -> None:
    found = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        trainer = make(replace(CONFIG, seed=seed), name)
        trainer.fit()
        found.append(_weights(trainer, "last"))

    first, again, other = found
    assert _same(first, again)
    assert not _same(first, other)


def test_what_an_earlier_training_froze_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search trains one model after another in one process: with the collector frozen each would stay."""
    monkeypatch.setattr("polyrank.training.loop.gc", gc)

    class Model:
        """Holds itself, as a ranker does by its hooks."""

    model = Model()
    model.me = model  # type: ignore[attr-defined]
    held = weakref.ref(model)
    gc.freeze()
    del model
    make(replace(CONFIG, epochs=1)).fit()
    assert held() is None


def test_training_loss_is_the_mean_over_each_task_s_rows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[tuple[Tensor, Tensor]] = []
    measure = Ranker.losses

    def spy(ranker: Ranker, logits: Tensor, batch: Batch, **options: Any) -> Tensor:
        value = measure(ranker, logits, batch, **options)
        losses.append((value.detach().double(), batch.where.sum(dim=0).double()))
        return value

    monkeypatch.setattr(Ranker, "losses", spy)
    trainer = make(replace(CONFIG, epochs=2))
    trainer.fit()

    for line, epoch in zip(_history(trainer), (losses[:7], losses[7:]), strict=True):
        rows = sum(n for _, n in epoch)
        assert rows.tolist() == [200, _log()["click"].sum(), 200]
        expected = sum(value * n for value, n in epoch) / rows
        assert list(line["train_loss"].values()) == pytest.approx(expected.tolist(), rel=1e-6)


def test_training_loss_follows_row_weights(make: Make) -> None:
    """Weight 3 on the positives, and every prediction is the base rate p: Σwℓ / Σw is known."""
    log = _log()
    log["importance"] = np.where(log["click"] == 1, 3.0, 1.0)
    schema = Schema(SCHEMA.features, (Task("click", "binary", weight="importance"),))
    valid = {**_log(100, seed=1), "importance": np.ones(100)}
    trainer = make(
        replace(CONFIG, epochs=1, learning_rate=1e-30, precision="float32"), log=log, valid=valid, schema=schema
    )
    with torch.no_grad():
        trainer.ranker.towers.output.weight.zero_()
    trainer.fit()

    positives = log["click"].sum()
    p = positives / 200
    expected = -(3 * positives * math.log(p) + (200 - positives) * math.log(1 - p)) / (200 + 2 * positives)
    assert _history(trainer)[0]["train_loss"]["click"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("architecture", ["mmoe", "ple"])
def test_a_missing_label_is_a_label_of_weight_0(make: Make, architecture: str) -> None:
    """Half of one task's labels hidden, or there with weight 0: the same training, bit for bit."""
    features, (click, _, watch) = SCHEMA.features, SCHEMA.tasks
    log, valid = _log(), _log(100, seed=1)
    runs = []
    for name, column in (("null", "click"), ("weight", "click")):
        schema = Schema(features, (replace(click, column=column, weight="w" if name == "weight" else ""), watch))
        tables = []
        for table in (log, valid):
            hidden = np.random.default_rng(7).random(len(table["item"])) < 0.5
            shown = {"w": np.where(hidden, 0.0, 1.0)}
            if name == "null":
                shown["click"] = pa.array(table["click"], mask=hidden)
            tables.append({**table, **shown})
        config = replace(CONFIG, metric="watch", evaluations_per_epoch=2)
        trainer = make(config, name, log=tables[0], valid=tables[1], schema=schema, architecture=architecture)
        trainer.fit()
        runs.append(trainer)

    null, weight = ([{k: v for k, v in line.items() if k != "seconds"} for line in _history(t)] for t in runs)
    assert len(null) == 6
    assert null == weight
    for which in ("best", "last"):
        assert _same(_weights(runs[0], which), _weights(runs[1], which))


def test_a_penalty_joins_the_objective_but_no_task_s_loss(make: Make) -> None:
    config = replace(CONFIG, epochs=12, learning_rate=0.01)
    distances, losses = {}, {}
    for strength in (0.0, 10.0):
        trainer = make(config, f"run-{strength}", architecture="soft_sharing")
        trainer.ranker.architecture.strength = strength
        trainer.fit()
        trainer.ranker.architecture.strength = 1.0
        distances[strength] = trainer.ranker.penalty().item()
        losses[strength] = _history(trainer)[0]["train_loss"]
    assert distances[10.0] < 0.1 * distances[0.0]
    for task, loss in losses[10.0].items():  # a distance of tens at a strength of ten would show
        assert loss == pytest.approx(losses[0.0][task], rel=0.5)


def test_a_second_trainer_of_the_same_ranker_trains_all_of_it(make: Make) -> None:
    ranker = make(CONFIG, "first").ranker
    trainer = make(CONFIG, "second")
    again = Trainer(
        ranker,
        build_balancer("static", SCHEMA.task_names, StaticConfig()),
        trainer.train,
        trainer.valid,
        CONFIG,
        trainer.run,
        trainer.progress,
    )
    before = {name: parameter.detach().clone() for name, parameter in ranker.named_parameters()}
    again.fit()
    still = [name for name, parameter in ranker.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_the_hidden_label_itself_does_not_matter(make: Make) -> None:
    """What stands in a row of weight 0 is never looked at."""
    schema = Schema(SCHEMA.features, (replace(SCHEMA.tasks[0], weight="w"), SCHEMA.tasks[2]))
    hidden = np.random.default_rng(7).random(200) < 0.5
    finals = []
    for flip in (0, 1):
        log = {**_log(), "w": np.where(hidden, 0.0, 1.0)}
        log["click"] = np.where(hidden, log["click"] ^ flip, log["click"])
        trainer = make(log=log, valid={**_log(100, seed=1), "w": np.ones(100)}, schema=schema)
        trainer.fit()
        finals.append(_weights(trainer, "last"))

    assert _same(*finals)


def test_no_missing_label_and_no_row_outside_a_sample_space_reaches_a_loss(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _log()
    log["watch"] = pa.array(log["watch"], mask=np.arange(200) % 2 == 0)
    log["click"] = pa.array(log["click"], mask=np.arange(200) % 5 == 0)
    seen: list[tuple[Tensor, Tensor]] = []
    measure = heads.row_losses
    masks: list[Tensor] = []
    losses = Ranker.losses

    def spy(logits: Tensor, targets: Tensor, kinds: Any) -> Tensor:
        seen.append((targets, masks[-1]))
        return measure(logits, targets, kinds)

    def look(ranker: Ranker, logits: Tensor, batch: Batch, **options: Any) -> Tensor:
        masks.append(batch.where)
        return losses(ranker, logits, batch, **options)

    monkeypatch.setattr(heads, "row_losses", spy)
    monkeypatch.setattr(Ranker, "losses", look)
    trainer = make(replace(CONFIG, epochs=1), log=log)
    trainer.fit()

    targets, where = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert torch.isfinite(targets).all()
    assert targets[~where].count_nonzero() == 0
    clicked = log["click"].to_numpy(zero_copy_only=False) == 1
    assert where.sum(dim=0).tolist() == [160, clicked.sum(), 100]
    assert targets[:, 2][where[:, 2]].mean().item() == pytest.approx(0, abs=1e-5)  # standardised
    assert targets[:, 2][where[:, 2]].std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_a_batch_without_a_row_of_a_task_leaves_that_task_s_tower_alone(make: Make) -> None:
    trainer = make()
    trainer.ranker.train()
    batch = next(iter(trainer.train.epoch(0)))
    alone = replace(batch, where=batch.where & torch.tensor([True, False, True]))
    trainer.dense.param_groups[0]["weight_decay"] = 0.0
    before = trainer.ranker.towers.output.weight.detach().clone()

    trainer._step(alone)

    moved = (trainer.ranker.towers.output.weight.detach() - before).flatten(1).abs().sum(dim=1) > 0
    assert moved.tolist() == [True, False, True]
    assert trainer.sums[1].tolist() == [32.0, 0.0, 32.0]
    assert trainer.sums[0, 1] == 0.0


def test_best_is_the_best_evaluation_and_patience_counts_from_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=9, patience=2))
    seen = _script(monkeypatch, trainer, _alone(0.6, 0.5, 0.7, 0.7, 0.65, 0.9))

    result = trainer.fit()

    assert len(seen) == 5  # 0.7 again is no new best; two without one, and it stops before the 0.9
    assert (result.best, result.best_step, result.steps) == (0.7, 21, 35)
    assert _same(_weights(trainer, "best"), seen[2])
    assert _same(_weights(trainer, "last"), seen[4])
    assert not _same(seen[2], seen[4])
    assert [line["best"] for line in _history(trainer)] == [True, False, True, False, False]
    assert _history(trainer)[0]["valid"] == {"click": 0.6, "buy": None, "watch": None}


def test_patience_0_never_stops(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=5))
    seen = _script(monkeypatch, trainer, _alone(0.9, 0.5, 0.5, 0.5, 0.5))

    assert trainer.fit().steps == 35
    assert _same(_weights(trainer, "best"), seen[0])


@pytest.mark.parametrize(("metric", "best"), [("mean", 2), ("click", 1), ("buy", 0)])
def test_the_metric_chooses(make: Make, monkeypatch: pytest.MonkeyPatch, metric: str, best: int) -> None:
    values = [(0.5, 0.8, 0.5), (0.7, 0.5, 0.5), (0.6, 0.7, 0.6)]
    trainer = make(replace(CONFIG, metric=metric))
    seen = _script(monkeypatch, trainer, [dict(zip(SCHEMA.task_names, each, strict=True)) for each in values])

    result = trainer.fit()

    assert _same(_weights(trainer, "best"), seen[best])
    expected = sum(values[best]) / 3 if metric == "mean" else values[best][SCHEMA.task_names.index(metric)]
    assert result.best == pytest.approx(expected)
    assert [line["metric"] for line in _history(trainer)][best] == result.best


def test_an_unknown_metric(make: Make) -> None:
    with pytest.raises(UserError, match=r"received: +clicks\n.*one of: mean, click, buy, watch"):
        make(replace(CONFIG, metric="clicks"))
    with pytest.raises(UserError, match=r"received: +buy\n.*one of: mean, watch, click"):
        make(replace(CONFIG, metric="buy"), tasks=("watch", "click"))


@pytest.mark.parametrize(
    ("parts", "steps"),
    [
        (1, [7, 14]),
        (2, [4, 7, 11, 14]),
        (3, [3, 5, 7, 10, 12, 14]),
        (7, list(range(1, 15))),
        (50, list(range(1, 15))),  # not more often than there are batches
    ],
)
def test_evaluations_per_epoch(make: Make, parts: int, steps: list[int]) -> None:
    trainer = make(replace(CONFIG, epochs=2, evaluations_per_epoch=parts))
    trainer.fit()

    history = _history(trainer)
    assert [line["step"] for line in history] == steps
    assert [line["epoch"] for line in history] == pytest.approx([step / 7 for step in steps])


def test_evaluating_often_does_not_change_training(make: Make) -> None:
    found = []
    for times in (1, 5):
        trainer = make(replace(CONFIG, evaluations_per_epoch=times), str(times))
        trainer.fit()
        found.append(_weights(trainer, "last"))

    assert _same(*found)


def test_a_task_that_validation_cannot_rank_is_left_out_of_the_mean(make: Make) -> None:
    valid = _log(100, seed=1)
    valid["click"] = np.ones(100, np.int8)
    trainer = make(valid=valid)
    said: list[str] = []
    trainer.progress.say = said.append  # type: ignore[method-assign]
    trainer.fit()

    assert len(said) == 1
    assert said[0].startswith("validation cannot rank click (one class)")

    for line in _history(trainer):
        assert line["valid"]["click"] is None
        assert line["metric"] == pytest.approx((line["valid"]["buy"] + line["valid"]["watch"]) / 2)


def test_validation_that_can_rank_nothing_is_refused(make: Make) -> None:
    valid = {**_log(100, seed=1), "watch": np.ones(100)}
    valid["click"] = np.zeros(100, np.int8)

    with pytest.raises(DataError, match=r"metric 'mean'[\s\S]*click: one class, buy: one class, watch: one class"):
        (refused := make(valid=valid)).fit()
    assert refused.place.step == 0  # before the first step, not after an epoch
    assert not refused.run.exists()
    with pytest.raises(DataError, match=r"metric 'click'[\s\S]*received: +click: one class"):
        make(replace(CONFIG, metric="click"), valid={**valid, "watch": np.arange(100.0)}).fit()


def test_clipping_holds_for_dense_parameters_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    tables: list[Tensor] = []
    for clip in (0.0, 1e-3):
        trainer = make(replace(CONFIG, clip_norm=clip))
        batch = next(iter(trainer.train.epoch(0)))
        monkeypatch.setattr(trainer.dense, "step", lambda: None)  # the gradients themselves are looked at
        torch.manual_seed(5)
        trainer._step(batch)
        gradients = [p.grad for _, p in trainer.ranker.dense_parameters() if p.grad is not None]
        assert all(p is not trainer.ranker.embeddings.table for _, p in trainer.ranker.dense_parameters())
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        tables.append(trainer.ranker.embeddings.table.clone())

    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)
    assert torch.equal(*tables)  # embeddings move as far as without clipping
    untouched = make().ranker.embeddings.table
    assert not torch.equal(tables[0], untouched)


@pytest.mark.parametrize("embedding_rate", [None, 0.5])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rates_follow_the_schedule(
    make: Make, monkeypatch: pytest.MonkeyPatch, schedule: Any, embedding_rate: float | None
) -> None:
    config = replace(CONFIG, schedule=schedule, warmup=0.2, embedding_learning_rate=embedding_rate)
    trainer = make(config)
    rates: list[tuple[float, ...]] = []
    dense, sparse = trainer.dense.step, trainer.sparse.step

    def dense_step() -> None:
        rates.append(tuple(group["lr"] for group in trainer.dense.param_groups))
        dense()

    def sparse_step(rate: float) -> None:
        rates[-1] += (rate,)
        sparse(rate)

    monkeypatch.setattr(trainer.dense, "step", dense_step)
    monkeypatch.setattr(trainer.sparse, "step", sparse_step)
    trainer.fit()

    factors = [learning_rate_factor(step, 21, 0.2, schedule) for step in range(21)]
    assert rates == [(0.003 * f, 0.003 * f, (embedding_rate or 0.003) * f) for f in factors]
    assert max(factors) == 1.0
    assert factors[0] == 0.25  # 4 of 21 steps warm up


def _spoil(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, step: int, task: int, value: float) -> None:
    """From `step` on the logits of a task are `value`."""
    forward = trainer.ranker.forward

    def spoilt(batch: Batch) -> Tensor:
        logits = forward(batch)
        if trainer.place.step < step:
            return logits
        return torch.where(torch.arange(logits.shape[1]) == task, logits * 0 + value, logits)

    monkeypatch.setattr(trainer.ranker, "forward", spoilt)


def test_divergence_names_the_task_and_keeps_the_best(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()
    _spoil(trainer, monkeypatch, 10, 1, math.nan)

    with pytest.raises(TrainingDiverged, match=r"the loss of buy is not, near step 14[\s\S]*best checkpoint so far is"):
        trainer.fit()

    assert [line["step"] for line in _history(trainer)] == [7]
    assert all(torch.isfinite(value).all() for value in _weights(trainer, "best").values())
    assert _same(_weights(trainer, "best"), _weights(trainer, "last"))


def test_divergence_is_noticed_between_evaluations(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CHECK_EVERY", 5)
    trainer = make()
    _spoil(trainer, monkeypatch, 1, 2, math.inf)

    with pytest.raises(TrainingDiverged, match="the loss of watch is not, near step 5"):
        trainer.fit()


def test_divergence_in_the_last_update_before_an_evaluation(make: Make) -> None:
    """The losses were finite; the weights they led to are not."""
    trainer = make(replace(CONFIG, batch_size=200, learning_rate=1e38, warmup=0.0, clip_norm=0.0))

    with pytest.raises(TrainingDiverged, match=r"the (loss|prediction) of .*watch is not, near step \d"):
        trainer.fit()

    assert trainer.history.read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    whole = make(CONFIG, "whole")
    whole.fit()
    cut = make(CONFIG, "cut")
    step = cut._step

    def interrupted(batch: Batch) -> None:
        step(batch)
        if cut.place.step == 10:
            signal.raise_signal(number)

    monkeypatch.setattr(cut, "_step", interrupted)
    with pytest.raises(Interrupted, match=rf"received: {number.name}\n.*step 10: .*--resume"):
        cut.fit()
    assert signal.getsignal(number) is before
    assert load_checkpoint(cut.run / "checkpoints/last.safetensors")["place"]["step"] == 10

    again = make(CONFIG, "cut")
    again.fit(resume=True)

    for which in ("best", "last"):
        assert _same(_weights(again, which), _weights(whole, which))


def test_ctrl_c_during_the_last_evaluation_is_not_swallowed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=1))

    def interrupted(table: object) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return {"click": 0.5, "buy": 0.5, "watch": 0.5}

    monkeypatch.setattr(loop, "primary_metrics", interrupted)
    with pytest.raises(Interrupted, match="--resume"):
        trainer.fit()

    assert trainer.place.finished
    assert load_checkpoint(trainer.run / "checkpoints/last.safetensors")["place"]["finished"]


def test_the_table_s_learning_rate_suits_its_optimizer(make: Make) -> None:
    assert make().embedding_rate == CONFIG.learning_rate
    assert make(replace(CONFIG, embedding_optimizer="adagrad")).embedding_rate == 0.05
    assert make(replace(CONFIG, embedding_optimizer="adagrad", embedding_learning_rate=0.3)).embedding_rate == 0.3


def test_a_second_ctrl_c_stops_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()

    def impatient(batch: Batch) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer, "_step", impatient)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_training_is_not_trained_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    result = first.fit()
    files = {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()}

    again = make()
    monkeypatch.setattr(again, "_step", None)  # would fail

    assert again.fit(resume=True) == result
    assert {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()} == files
    assert _same(again.ranker.state_dict(), _weights(first, "last"))


def test_resume_without_a_checkpoint_begins(make: Make) -> None:
    trainer = make()
    trainer.run.mkdir()
    trainer.history.write_text('{"step": 7}\n')

    assert trainer.fit(resume=True).steps == 21
    assert [line["step"] for line in _history(trainer)] == [7, 14, 21]


@pytest.mark.parametrize("name", ["history.jsonl", "best.safetensors", "last.safetensors"])
def test_a_file_that_cannot_be_written(make: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = make(CONFIG, "whole")
    whole.fit()
    trainer = make()
    replace_file = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == name and trainer.place.step > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=rf"cannot write .*{name}[\s\S]*No space left"):
            trainer.fit()

    assert [line["step"] for line in _history(trainer)][:1] == [7]
    assert list(trainer.run.rglob("*.partial")) == []
    again = make()
    again.fit(resume=True)
    for which in ("best", "last"):
        assert _same(_weights(again, which), _weights(whole, which))
    assert [line["step"] for line in _history(again)] == [7, 14, 21]


def test_tensorboard_gets_losses_and_metrics(make: Make) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = make(replace(CONFIG, tensorboard=True))
    trainer.fit()

    events = accumulator.EventAccumulator(str(trainer.run / "tensorboard")).Reload()
    history = _history(trainer)
    for name in SCHEMA.task_names:
        for part in ("train_loss", "valid"):
            found = events.Scalars(f"{part}/{name}")
            assert [event.step for event in found] == [line["rows"] for line in history]
            assert [event.value for event in found] == pytest.approx([line[part][name] for line in history])


def test_only_some_tasks(make: Make) -> None:
    trainer = make(replace(CONFIG, learning_rate=0.01), tasks=("watch", "click"), weights={"click": 2.0})
    trainer.fit()

    assert min(_history(trainer)[-1]["valid"].values()) > 0.6
    for line in _history(trainer):
        assert list(line["train_loss"]) == list(line["valid"]) == ["watch", "click"]
        assert line["weights"] == {"watch": 1.0, "click": 2.0}


def test_a_task_that_has_had_enough_stops_and_the_others_go_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=5, task_patience=2, patience=0))
    watch = iter((0.5, 0.6, 0.7, 0.8, 0.9))
    values = [{"click": click, "buy": 0.5 + click / 10, "watch": next(watch)} for click in (0.6, 0.8, 0.7, 0.7, 0.9)]
    _script(monkeypatch, trainer, values)

    result = trainer.fit()

    rows = [[line["train_loss"][task] for task in ("click", "watch")] for line in _history(trainer)]
    assert [click > 0 for click, _ in rows] == [True] * 4 + [False]  # the best of click was the second, two more came
    assert all(watch > 0 for _, watch in rows)
    assert result.bests["per_task"]["click"] == {"step": 35, "valid": 0.9}
    assert result.bests["overall"] == {"step": 35, "valid": values[-1]}


def test_training_ends_when_every_task_has_had_enough(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=9, task_patience=2, patience=0))
    _script(monkeypatch, trainer, [{"click": v, "buy": v, "watch": v} for v in (0.6, 0.5, 0.5)])
    assert trainer.fit().steps == 3 * 7


def test_the_weights_that_were_best_for_each_task_are_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=3, best_per_task=True))
    values = [{"click": c, "buy": math.nan, "watch": w} for c, w in ((0.6, 0.9), (0.9, 0.8), (0.8, 0.7))]
    seen = _script(monkeypatch, trainer, values)

    trainer.fit()

    assert _same(_weights(trainer, "best-watch"), seen[0])
    assert _same(_weights(trainer, "best-click"), seen[1])
    assert _same(_weights(trainer, "best"), seen[1])
    assert not (trainer.run / "checkpoints/best-buy.safetensors").exists()


def test_the_last_weights_are_kept_where_asked_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(replace(CONFIG, epochs=3, keep="last", patience=1))
    seen = _script(monkeypatch, trainer, _alone(0.9, 0.8, 0.7))
    assert trainer.fit().best_step == 21
    assert _same(_weights(trainer, "best"), seen[2])


def test_the_average_is_what_is_validated_and_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make(replace(CONFIG, epochs=2), "plain")
    own = _script(monkeypatch, plain, _alone(0.6, 0.7))

    plain.fit()
    trainer = make(replace(CONFIG, epochs=2, average=0.9))
    assert trainer.average is not None
    seen = _script(monkeypatch, trainer, _alone(0.6, 0.7))
    trainer.fit()

    assert _same(dict(trainer.ranker.state_dict()), own[1])  # training itself is as without
    assert not _same(seen[1], own[1])
    assert _same(_weights(trainer, "best"), seen[1])
    with trainer.average.applied():
        assert _same(dict(trainer.ranker.state_dict()), seen[1])


def test_label_smoothing_reaches_the_loss_of_binary_tasks_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[Tensor] = []
    measure = heads.row_losses

    def spy(logits: Tensor, given: Tensor, kinds: Any) -> Tensor:
        targets.append(given)
        return measure(logits, given, kinds)

    monkeypatch.setattr(heads, "row_losses", spy)
    make(replace(CONFIG, epochs=1, label_smoothing=0.1)).fit()

    found = torch.cat(targets)
    assert sorted(set(found[:, 0].tolist())) == pytest.approx([0.05, 0.95])
    assert sorted(set(found[:, 1].tolist())) == pytest.approx([0.0, 0.05, 0.95])  # 0 outside the sample space
    assert found[:, 2].unique().numel() > 100
