"""The only training loop: batches in, checkpoints and a history out; resumes exactly, keeps the best."""

import gc
import json
import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from polyrank.balancing.balancer import Balancer
from polyrank.data.loader import Batch, Loader
from polyrank.errors import Interrupted, TrainingDiverged
from polyrank.evaluation.predict import ScoreTable, primary_metrics, score_table
from polyrank.files import write_text
from polyrank.models.ranker import Ranker
from polyrank.progress import Bar, Progress
from polyrank.training.averaging import WeightAverage
from polyrank.training.balancing import Balancing
from polyrank.training.bests import TaskBests
from polyrank.training.board import tensorboard
from polyrank.training.checkpoint import load_checkpoint, save_checkpoint
from polyrank.training.interruptions import said_if_slow, stop_requests
from polyrank.training.optimizers import (
    EMBEDDING_OPTIMIZERS,
    Schedule,
    clip_norm,
    dense_optimizer,
    learning_rate_factor,
)
from polyrank.training.precision import Precision, computing_in, resolve
from polyrank.training.sums import Sums
from polyrank.training.validation import check_plan, check_validation, chosen

_CHECK_EVERY = 200  # steps between looks at whether the loss is still finite
_COMPILING = "compiling kernels for this processor: half a minute or so, once after installation"
_SHOW_EVERY = 0.2  # seconds between updates of the bar


@dataclass(frozen=True)
class TrainConfig:
    """How a ranker is trained.

    Attributes:
        epochs: passes over the data at most.
        batch_size: rows a step.
        learning_rate: of the dense parameters, after warm-up.
        embedding_learning_rate: of the embedding table; None for the same with `adam`, 0.05 with `adagrad`.
        embedding_optimizer: `adam` (lazy Adam) or `adagrad` (row-wise); both touch the rows of the batch only.
        weight_decay: AdamW's, on dense weights (never on biases or embeddings).
        schedule: of the learning rate after warm-up: `cosine` falls to 0, `constant` stays; `one_cycle` rises and falls
            along cosines.
        warmup: the share of all steps in which the learning rate rises (`one_cycle`: 0.3 is usual).
        average: the decay of an exponential moving average of all weights, which is then what is validated and kept; 0
            for none. 0.999 looks back about a thousand steps.
        label_smoothing: ε: binary labels become y·(1 − ε) + ε/2 in the loss. Probabilities then lean towards ½.
        clip_norm: the norm to which the dense parameters' gradient is clipped; 0 for none.
        metric: what the best checkpoint is best at on validation: `mean` over the tasks' AUC or XAUC, or a task's name.
        patience: evaluations without a new best after which training stops; 0 for never.
        task_patience: evaluations without a new best of its own after which a task stops training, while the others go
            on; 0 for never.
        best_per_task: also keep the weights that were best for each task, `checkpoints/best-<task>.safetensors`, and
            measure each task with its own: what one model for all gives away.
        keep: which weights are kept: the `best` on validation data, or the `last`: for a training on all data, after
            another one, validated, has said how long. Validation then only reports.
        evaluations_per_epoch: how often validation looks.
        seed: of initial weights, dropout and shuffling.
        save_seconds: time between checkpoints to resume from (one is also written at every evaluation).
        threads: processor threads; 0 for all.
        precision: of the matrix products in training: `bf16`, `float32`, or `auto`: bf16 where the processor multiplies
            matrices of it clearly faster. Evaluation and scoring are float32.
        warm_start: a finished run, to whose model the schema's further tasks are added (see `polyrank.warm_start`).
        freeze: `shared` trains the new tasks alone, the old model stays as it is; `none` trains all.
        tensorboard: also write TensorBoard event files into the run (`pip install polyrank[tensorboard]`).
    """

    epochs: Annotated[int, Gt(0)] = 8
    batch_size: Annotated[int, Gt(0)] = 1024
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    embedding_learning_rate: Annotated[float, Gt(0)] | None = None
    embedding_optimizer: Literal["adam", "adagrad"] = "adam"
    weight_decay: Annotated[float, Ge(0)] = 1e-5
    schedule: Schedule = "cosine"
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.02
    average: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Ge(0)] = 5.0
    metric: str = "mean"
    patience: Annotated[int, Ge(0)] = 3
    task_patience: Annotated[int, Ge(0)] = 0
    best_per_task: bool = False
    keep: Literal["best", "last"] = "best"
    evaluations_per_epoch: Annotated[int, Gt(0)] = 1
    seed: Annotated[int, Ge(0)] = 0
    save_seconds: Annotated[float, Ge(0)] = 60.0
    threads: Annotated[int, Ge(0)] = 0
    precision: Precision = "auto"
    warm_start: str = ""
    freeze: Literal["none", "shared"] = "none"
    tensorboard: bool = False


@dataclass
class _Place:
    """Where training stands; everything that is not a tensor and must survive a resume."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_step: int = -1
    since_best: int = 0
    records: int = 0
    finished: bool = False


@dataclass(frozen=True)
class TrainResult:
    """What a training came to: the best value of the metric and its step, steps, rows, and seconds spent in steps.

    `bests` says what validation found at the best step overall, and for each task at its own.
    """

    best: float
    best_step: int
    steps: int
    rows: int
    seconds: float
    bests: dict[str, Any]


class Trainer:
    """Trains one ranker in one run directory.

    Writes `checkpoints/best.safetensors` (weights of the best evaluation), `checkpoints/last.safetensors` (everything)
    and `history.jsonl` (one line an evaluation). A killed and resumed training gives the same weights, bit for bit, as
    one that was never interrupted, on the same machine with the same number of threads.

    Args:
        ranker: freshly built; its random generator is torch's global one.
        balancer: combines the task losses.
        train: what it learns from.
        valid: what chooses the best checkpoint.
        config: the knobs.
        run: the run directory.
        progress: where to report.
        observer: is given every line of the history; an exception of its own ends the training.
    """

    def __init__(
        self,
        ranker: Ranker,
        balancer: Balancer,
        train: Loader,
        valid: Loader,
        config: TrainConfig,
        run: Path,
        progress: Progress,
        observer: Callable[[dict[str, Any]], None] = lambda record: None,
    ) -> None:
        self.ranker, self.train, self.valid, self.observer = ranker, train, valid, observer
        self.config, self.run, self.progress = config, run, progress
        self.tasks = [train.schema.task_names[position] for position in train.task_positions]
        check_plan(config.metric, self.tasks, config.label_smoothing, ranker.space.training)
        self.dense_parameters = [parameter for _, parameter in ranker.dense_parameters()]
        self.dense = dense_optimizer(ranker, config.learning_rate, config.weight_decay)
        self.average = WeightAverage(ranker, config.average) if config.average else None
        self.sparse = EMBEDDING_OPTIMIZERS[config.embedding_optimizer](self.average or ranker.embeddings)
        self.bests = TaskBests(self.tasks, config.task_patience)
        self.embedding_rate = config.embedding_learning_rate or self.sparse.usual_rate or config.learning_rate
        self.precision = resolve(config.precision)
        self.balancing = Balancing(ranker, balancer, self.tasks, train.batches_in(0))
        self.began_at, self.waited = 0, 0.0  # seconds that steps have waited for data
        self.place = _Place()
        # By task since the last evaluation: loss × weight, weight, and how many losses were finite.
        self.sums = Sums(lambda losses, mass: (losses * mass, mass, torch.isfinite(losses)), 3, len(self.tasks))
        self.total_steps = sum(train.batches_in(epoch) for epoch in range(config.epochs))
        self.history = run / "history.jsonl"
        self._saved_at = time.monotonic()

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Train to the end, or on from where an earlier call was cut off.

        Raises:
            TrainingDiverged: a loss or a prediction is not finite.
            Interrupted: ctrl-C or SIGTERM; the place is saved.
            DataError: validation data cannot rank by the declared metric.
            StorageError: a checkpoint or the history cannot be written.
        """
        check_validation(self.valid, self.tasks, self.config.metric, self.progress)
        if resume and (self.run / "checkpoints/last.safetensors").exists():
            self._restore()
        else:
            write_text(self.history, "")
        self.began_at = self.place.step
        gc.unfreeze()  # what an earlier training in this process froze, and nobody holds any more
        gc.collect()
        gc.freeze()  # a step leaves garbage that counts as new: without this all that was ever imported is searched too
        with (
            stop_requests() as stop,
            tensorboard(self.run / "tensorboard", wanted=self.config.tensorboard) as board,
            self.progress.bar("training", self.config.epochs * self.train.data.rows) as bar,
        ):
            bar.advance(self.place.rows)
            while not self.place.finished:
                self._epoch(stop, bar, board)
        place = self.place
        return TrainResult(place.best, place.best_step, place.step, place.rows, place.seconds, self.bests.summary())

    def _epoch(self, stop: list[int], bar: Bar, board: Any) -> None:
        place, config = self.place, self.config
        batches = self.train.batches_in(place.epoch)
        parts = config.evaluations_per_epoch
        looks = {-(-batches * part // parts) for part in range(1, parts + 1)}
        self.ranker.train()
        began = shown = time.perf_counter()
        rows_shown = place.rows
        with self.train.epoch(place.epoch, start=place.batch) as loaded:
            for batch in loaded:
                with said_if_slow(self.progress, _COMPILING) if place.step == self.began_at else nullcontext():
                    self._step(batch)
                now = time.perf_counter()
                if now - shown > _SHOW_EVERY:
                    bar.advance(place.rows - rows_shown)
                    shown, rows_shown = now, place.rows
                if place.step % _CHECK_EVERY == 0:
                    self._check_losses()
                if place.batch in looks:
                    place.seconds += now - began
                    bar.advance(place.rows - rows_shown, self._evaluate(board))
                    rows_shown = place.rows
                    self._turn_epoch(batches)
                    self._save()
                    began = time.perf_counter()
                elif stop or time.monotonic() - self._saved_at > config.save_seconds:
                    place.seconds += now - began
                    self._save()
                    began = time.perf_counter()
                if stop:
                    raise Interrupted(
                        "training was interrupted",
                        received=signal.Signals(stop[0]).name,
                        mend=f"all is saved at step {place.step:,}: the same command with --resume goes on from there",
                    )
                if place.finished:
                    break
        self.waited += loaded.waited

    def _step(self, batch: Batch) -> None:
        """Forward, balanced backward, update."""
        place, config = self.place, self.config
        factor = learning_rate_factor(place.step, self.total_steps, config.warmup, config.schedule)
        views = self.ranker.views(batch)
        self.balancing.before()
        losses, logits = self._losses(batch, views)
        mass = self.ranker.mass(views)
        if any(self.bests.stopped.values()):
            going_on = ~torch.tensor(list(self.bests.stopped.values()))
            losses, mass = torch.where(going_on, losses, 0.0), mass * going_on
        present = mass > 0
        self.sums.add(losses.detach(), mass)
        for parameter in self.dense_parameters:
            parameter.grad = None
        self.balancing.backward(losses, present, logits, views, place.step + 1)
        if config.clip_norm:
            clip_norm(self.dense_parameters, config.clip_norm)
        for group in self.dense.param_groups:
            group["lr"] = config.learning_rate * factor
        self.dense.step()
        self.sparse.step(self.embedding_rate * factor)
        if self.average is not None:
            self.average.step()
        self.balancing.after(lambda: self._losses(batch, views)[0], present)
        place.batch, place.step, place.rows = place.batch + 1, place.step + 1, place.rows + batch.rows

    def _losses(self, batch: Batch, views: Batch) -> tuple[Tensor, Tensor]:
        """Every task's loss, `[T]`, and the logits."""
        with computing_in(self.precision):
            logits = self.ranker(batch)
        return self.ranker.losses(logits, views, smoothing=self.config.label_smoothing), logits

    def _evaluate(self, board: Any) -> str:
        """Validate, write history, keep the best; a note for the bar."""
        self._check_losses()
        place = self.place
        with self.average.applied() if self.average else nullcontext():
            table = score_table(self.ranker, self.valid)
            value, values = self._kept(table)
        self.ranker.train()
        mean = self.sums[0] / torch.where(self.sums[1] > 0, self.sums[1], 1.0)
        losses = dict(zip(self.tasks, mean.tolist(), strict=True))
        record = {
            "step": place.step,
            "epoch": place.epoch + place.batch / self.train.batches_in(place.epoch),
            "rows": place.rows,
            "train_loss": losses,
            "valid": {name: None if math.isnan(v) else v for name, v in values.items()},
            "metric": value,
            "best": place.since_best == 0,
            "weights": self.balancing.by_task(),
            "balance": self.balancing.log.take(place.step),
            "seconds": round(place.seconds, 3),
        }
        place.records += 1
        self.sums.clear()
        # Written anew each time (it is short): a full disk cannot leave half a line behind.
        write_text(self.history, self.history.read_text(encoding="utf-8") + json.dumps(record) + "\n")
        for name in self.tasks if board is not None else ():
            board.add_scalar(f"train_loss/{name}", losses[name], place.rows)
            board.add_scalar(f"valid/{name}", values[name], place.rows)
        self.observer(record)
        return f"{self.config.metric} {value:.4f} (best {place.best:.4f})"

    def _kept(self, table: ScoreTable) -> tuple[float, dict[str, float]]:
        """The metric and each task's, after keeping the weights if they are the best so far."""
        place, folder = self.place, self.run / "checkpoints"
        # The last update may have spoilt the weights after a loss that was still finite.
        usable = np.isfinite(table.predictions).all(axis=0)
        if not usable.all():
            raise self._diverged("prediction", ~usable)
        values = primary_metrics(table)
        value = chosen(values, self.config.metric)
        place.since_best += 1
        is_best = value > place.best or self.config.keep == "last"
        better = self.bests.note(values, place.step, overall=is_best)
        weights = {"model": self.ranker.state_dict()}
        if is_best:
            place.best, place.best_step, place.since_best = value, place.step, 0
            save_checkpoint(folder / "best.safetensors", weights)
        for task in better if self.config.best_per_task else ():
            save_checkpoint(folder / f"best-{task}.safetensors", weights)
        return value, values

    def _turn_epoch(self, batches: int) -> None:
        """At the end of an epoch begin the next; decide whether all is done."""
        place = self.place
        if place.batch == batches:
            place.epoch, place.batch = place.epoch + 1, 0
        patience = self.config.patience
        done = 0 < patience <= place.since_best or all(self.bests.stopped.values())
        place.finished = place.epoch == self.config.epochs or done

    def _check_losses(self) -> None:
        total, _, finite = self.sums.total().numpy()
        if not np.isfinite(total).all():
            # A step later all tasks that share anything are spoilt; the one to look at was the first.
            raise self._diverged("loss", finite == finite.min())

    def _diverged(self, what: str, bad: np.ndarray) -> TrainingDiverged:
        names = ", ".join(name for name, is_bad in zip(self.tasks, bad, strict=True) if is_bad)
        return TrainingDiverged(
            "losses and predictions must stay finite",
            received=f"the {what} of {names} is not, near step {self.place.step:,}",
            mend="lower train.learning_rate, or look for extreme labels; the best checkpoint so far is kept",
        )

    def _save(self) -> None:
        save_checkpoint(
            self.run / "checkpoints/last.safetensors",
            {
                "model": self.ranker.state_dict(),
                "dense": self.dense.state_dict(),
                "sparse": self.sparse.state_dict(),
                "balancing": self.balancing.state_dict(),
                "generator": torch.get_rng_state(),
                "sums": self.sums.total(),
                "bests": self.bests.state_dict(),
                "average": {} if self.average is None else self.average.state_dict(),
                "place": {k: None if v == -math.inf else v for k, v in asdict(self.place).items()},
            },
        )
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        state = load_checkpoint(self.run / "checkpoints/last.safetensors")
        self.ranker.load_state_dict(state["model"])
        dense = state["dense"]
        self.dense.load_state_dict({**dense, "state": {int(k): v for k, v in dense["state"].items()}})
        self.sparse.load_state_dict(state["sparse"])
        self.balancing.load_state_dict(state["balancing"])
        torch.set_rng_state(state["generator"])
        self.sums.load(state["sums"])
        self.bests.load_state_dict(state["bests"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        saved: dict[str, Any] = {k: -math.inf if v is None else v for k, v in state["place"].items()}
        self.place = _Place(**{field.name: saved[field.name] for field in fields(_Place)})
        # Lines written after the checkpoint will be written again.
        lines = self.history.read_text(encoding="utf-8").splitlines(keepends=True) if self.history.exists() else []
        write_text(self.history, "".join(lines[: self.place.records]))
