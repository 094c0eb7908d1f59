"""The worker of Polyrank: its real training loop (`Trainer`), its `predict`, and its ranker on one request.

python -m peer_bench.ours THREADS
"""

import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peer_bench.protocol import Inputs, peak, read, request_of, serve, shape
from peer_bench.roofline import Products
from polyrank.allocator import keep_memory
from polyrank.balancing.balancer import BALANCERS, build_balancer
from polyrank.data.encoders import TaskStatistics
from polyrank.data.layout import Field, Layout
from polyrank.data.loader import Batch, Loader
from polyrank.data.prefetch import Prefetched
from polyrank.data.schema import Feature, Schema, Task
from polyrank.data.store import EncodedData
from polyrank.evaluation.predict import predict
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.progress import Silent
from polyrank.training.loop import TrainConfig, Trainer
from polyrank.training.precision import resolve

OPTIONS: dict[str, dict[str, Any]] = {
    "mmoe": {"experts": 8, "widths": (128, 64)},
    "ple": {"levels": 2, "specific_experts": 2, "shared_experts": 2, "widths": (128, 64)},
}
VALIDATION_ROWS = 4_096  # the loop insists on validating; it counts no seconds for it


class Worker:
    """Obeys the benchmark's commands."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def build(
        self,
        folder: str,
        model: str,
        batch: int,
        seed: int,
        embedding_optimizer: str,
        tasks: int | None = None,
        precision: str = "",
        **_: Any,
    ) -> dict[str, Any]:
        """Make a fresh ranker; what concerns the peers alone is not looked at."""
        self.folder, self.batch, self.tasks = folder, batch, tasks
        self.ranker: Any = None  # the old table goes before the new one comes
        labels = np.load(Path(folder) / "train_labels.npy")[:, :tasks]
        self.names = [f"task_{i}" for i in range(labels.shape[1])]
        form = shape(folder)
        columns = [(f"s{i}", "category" if d < 0 else "number") for i, d in enumerate(form["dense"])]
        goals = tuple(Task(name, "binary") for name in self.names)
        self.schema = Schema(tuple(Feature(name, kind) for name, kind in columns), goals)  # type: ignore[arg-type]
        layout = Layout(
            tuple(
                Field(name, kind, i, i + 1, name, dense)  # type: ignore[arg-type]
                for i, ((name, kind), dense) in enumerate(zip(columns, form["dense"], strict=True))
            ),
            {name: size for (name, _), size in zip(columns, form["sizes"], strict=True)},
        )
        statistics = [TaskStatistics(len(labels), float(y.mean()), float(y.std())) for y in labels.T]
        torch.manual_seed(seed)
        config = RankerConfig(architecture=model, embedding_width=8, towers=(32,))
        options = ARCHITECTURES[model].config(**OPTIONS[model])
        self.ranker = Ranker(goals, statistics, layout, config, options)
        self.knobs: dict[str, Any] = {"embedding_optimizer": embedding_optimizer, "seed": seed}
        if precision:
            self.knobs["precision"] = precision
        self.in_width = 8 * len(columns) + layout.dense_columns
        return {"parameters": self.ranker.parameter_count()}

    def train(self, rows: int | None = None, epochs: int = 1) -> dict[str, Any]:
        """Train on the first rows by the real loop; seconds are those it spent in steps, loading included."""
        config = TrainConfig(
            epochs=epochs,
            batch_size=self.batch,
            learning_rate=1e-3,
            weight_decay=0.0,
            schedule="constant",
            warmup=0.0,
            patience=0,
            save_seconds=1e9,
            threads=self.threads,
            **self.knobs,
        )
        balancer = build_balancer("static", self.names, BALANCERS["static"].config())
        train = self._loader(read(self.folder, "train", rows, self.tasks), self.batch)
        plain = self._loader(read(self.folder, "valid", VALIDATION_ROWS, self.tasks), VALIDATION_ROWS)
        valid = Watched(plain.schema, plain.data, VALIDATION_ROWS)
        with tempfile.TemporaryDirectory() as run:
            trainer = Trainer(self.ranker, balancer, train, valid, config, Path(run), Silent())
            result = trainer.fit()
        used = getattr(trainer, "precision", None) or getattr(config, "precision", "float32")
        return {
            "rows": result.rows,
            "seconds": result.seconds,
            "steps": result.steps,
            "waited": trainer.waited,
            "precision": str(used),
            "peak_in_steps": valid.peaks[1] if len(valid.peaks) > 1 else None,
        }

    def predict(self, part: str, batch: int, rows: int | None = None, save: str | None = None) -> dict[str, Any]:
        """Predict the first rows of a part; the predictions go to `save`."""
        loader = self._loader(read(self.folder, part, rows, self.tasks), batch)
        began = time.perf_counter()
        found = predict(self.ranker, loader.in_order(), len(self.names))
        seconds = time.perf_counter() - began
        if save:
            np.save(save, found)
        return {"rows": len(found), "seconds": seconds}

    def latency(self, rows: int, calls: int) -> dict[str, Any]:
        """The median milliseconds of `ranker.predict` on one request that lies ready as a batch."""
        data = request_of(read(self.folder, "test", rows, self.tasks), rows)
        batch = next(iter(self._loader(data, rows).in_order()))
        self.ranker.eval()
        times = []
        with torch.inference_mode():
            for _ in range(calls + 20):
                began = time.perf_counter()
                self.ranker.predict(batch)
                times.append(time.perf_counter() - began)
        return {"milliseconds": float(np.median(times[20:])) * 1e3}

    def products(self, repeats: int, dtype: str) -> dict[str, Any]:
        """The seconds of the bare matrix products of one step of the MMoE that was built."""
        products = Products(self.batch, self.in_width, len(self.names), getattr(torch, dtype))
        return {"seconds": products.seconds(repeats)}

    def _loader(self, data: Inputs, batch: int) -> Loader:
        rows = len(data.ids)
        none = np.zeros((rows, 0), np.float32)
        encoded = EncodedData(data.ids, data.numbers, data.labels, none, np.zeros(0, np.int64), maps=())
        return Loader(self.schema, encoded, batch, int(self.knobs["seed"]))


@dataclass(frozen=True)
class Watched(Loader):
    """Remembers the peak memory whenever it is read: before the first step, and after the last one to validate."""

    peaks: list[int] = field(default_factory=list)

    def in_order(self) -> Prefetched[Batch]:
        """All rows in file order."""
        self.peaks.append(peak()["peak"])
        return super().in_order()


def main() -> None:
    """Serve."""
    threads = int(sys.argv[1])
    keep_memory()  # as the command line does
    torch.set_num_threads(threads)
    worker = Worker(threads)
    packages = ("polyrank", "torch", "numpy")
    serve(
        {
            "build": worker.build,
            "train": worker.train,
            "predict": worker.predict,
            "latency": worker.latency,
            "products": worker.products,
            "peak": peak,
            "versions": lambda: {name: version(name) for name in packages} | {"precision": resolve("auto")},
        }
    )


if __name__ == "__main__":
    main()
