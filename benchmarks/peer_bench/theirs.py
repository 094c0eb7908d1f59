"""The worker of a peer: DeepCTR-Torch or torch-rechub, trained and asked by their own calls. Knows nothing of Polyrank.

    python -m peer_bench.theirs deepctr|rechub THREADS

Each is set up in its faster way: no L2 over the tables and no weight decay (both have one by default, which costs them
more passes over every table), no metrics during training, ids in the type that its loader takes quickest.
"""

import sys
import time
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch

from peer_bench.protocol import Inputs, peak, read, request_of, serve, shape

WIDTH, EXPERT, TOWER, RATE = 8, (128, 64), (32,), 1e-3


class Peer(Protocol):
    """What a peer can be asked to do."""

    def train(self, data: Inputs, epochs: int) -> float:
        """Train; the seconds it took."""

    def predict(self, data: Inputs, batch: int) -> tuple[np.ndarray, float]:
        """Predictions `[N, T]` and the seconds they took."""

    def prepared(self, data: Inputs) -> Any:
        """What `model` takes, as tensors."""

    model: Any


class DeepCTR:
    """DeepCTR-Torch 0.3.0. Everything is handed over as float32, which it turns all inputs into (ids are below 2²⁴)."""

    def __init__(self, folder: str, model: str, batch: int, tasks: int, seed: int, options: dict[str, Any]) -> None:
        from deepctr_torch.inputs import DenseFeat, SparseFeat
        from deepctr_torch.models import MMOE, PLE

        sizes, dense = shape(folder)["sizes"], max(shape(folder)["dense"]) + 1
        columns = [SparseFeat(f"s{i}", size, embedding_dim=WIDTH) for i, size in enumerate(sizes)]
        columns += [DenseFeat(f"d{i}", 1) for i in range(dense)]
        common = {
            "expert_dnn_hidden_units": EXPERT,
            "gate_dnn_hidden_units": (),
            "tower_dnn_hidden_units": TOWER,
            "task_types": ("binary",) * tasks,
            "task_names": tuple(f"task_{i}" for i in range(tasks)),
            "l2_reg_embedding": 0,
            "l2_reg_linear": 0,
            "seed": seed,
            **options,
        }
        if model == "mmoe":
            self.model: Any = MMOE(columns, num_experts=8, **common)
        else:
            self.model = PLE(columns, shared_expert_num=2, specific_expert_num=2, num_levels=2, **common)
        adam = torch.optim.Adam(self.model.parameters(), lr=RATE)
        self.model.compile(adam, loss=["binary_crossentropy"] * tasks)
        self.batch = batch

    def train(self, data: Inputs, epochs: int) -> float:
        """`fit` without per-step metrics."""
        columns = self._columns(data)
        began = time.perf_counter()
        self.model.fit(columns, data.labels, batch_size=self.batch, epochs=epochs, verbose=0)
        return time.perf_counter() - began

    def predict(self, data: Inputs, batch: int) -> tuple[np.ndarray, float]:
        """`predict`."""
        columns = self._columns(data)
        began = time.perf_counter()
        found = self.model.predict(columns, batch)
        return found, time.perf_counter() - began

    def prepared(self, data: Inputs) -> Any:
        """The one float matrix that the model takes."""
        return torch.from_numpy(np.concatenate([data.ids.astype(np.float32), data.numbers], axis=1))

    def _columns(self, data: Inputs) -> dict[str, np.ndarray]:
        columns = {f"s{i}": data.ids[:, i].astype(np.float32) for i in range(data.ids.shape[1])}
        return columns | {f"d{i}": data.numbers[:, i].copy() for i in range(data.numbers.shape[1])}


class Rechub:
    """torch-rechub 0.9.0. Its networks always have batch normalisation after every layer, gates included."""

    def __init__(self, folder: str, model: str, batch: int, tasks: int, seed: int, options: dict[str, Any]) -> None:
        from torch_rechub.basic.features import DenseFeature, SparseFeature
        from torch_rechub.models.multi_task import MMOE, PLE
        from torch_rechub.trainers import MTLTrainer

        torch.manual_seed(seed)
        sizes, dense = shape(folder)["sizes"], max(shape(folder)["dense"]) + 1
        features: list[Any] = [SparseFeature(f"s{i}", size, embed_dim=WIDTH) for i, size in enumerate(sizes)]
        features += [DenseFeature(f"d{i}") for i in range(dense)]
        kinds, expert, towers = ["classification"] * tasks, {"dims": list(EXPERT)}, [{"dims": list(TOWER)}] * tasks
        if model == "mmoe":
            self.model: Any = MMOE(features, kinds, 8, expert, towers)
        else:
            self.model = PLE(features, kinds, 2, 2, 2, expert, towers)
        self.trainer = MTLTrainer(self.model, kinds, optimizer_params={"lr": RATE, "weight_decay": 0}, **options)
        self.batch = batch

    def train(self, data: Inputs, epochs: int) -> float:
        """`train_one_epoch` over the shuffled loader of its `DataGenerator`."""
        from torch_rechub.utils.data import DataGenerator

        x, y = self._columns(data), data.labels
        loader, _, _ = DataGenerator(x, y).generate_dataloader(
            x_val=x, y_val=y, x_test=x, y_test=y, batch_size=self.batch
        )
        began = time.perf_counter()
        for _ in range(epochs):
            self.trainer.train_one_epoch(loader)
        return time.perf_counter() - began

    def predict(self, data: Inputs, batch: int) -> tuple[np.ndarray, float]:
        """`predict` over its `PredictDataset`."""
        from torch.utils.data import DataLoader
        from torch_rechub.utils.data import PredictDataset

        loader = DataLoader(PredictDataset(self._columns(data)), batch_size=batch)
        began = time.perf_counter()
        found = self.trainer.predict(self.model, loader)
        return np.array(found), time.perf_counter() - began

    def prepared(self, data: Inputs) -> Any:
        """The dict of tensors that the model takes."""
        return {name: torch.from_numpy(column) for name, column in self._columns(data).items()}

    def _columns(self, data: Inputs) -> dict[str, np.ndarray]:
        columns = {f"s{i}": data.ids[:, i].astype(np.int64) for i in range(data.ids.shape[1])}
        return columns | {f"d{i}": data.numbers[:, i].copy() for i in range(data.numbers.shape[1])}


PEERS = {"deepctr": DeepCTR, "rechub": Rechub}


class Worker:
    """Obeys the benchmark's commands with one peer."""

    def __init__(self, peer: str) -> None:
        self.kind = PEERS[peer]
        self.peer: Peer | None = None

    def build(
        self,
        folder: str,
        model: str,
        batch: int,
        seed: int,
        tasks: int | None = None,
        options: dict[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Make a fresh model; what concerns Polyrank alone is not looked at."""
        self.folder, self.tasks = folder, tasks
        self.peer = None  # the old tables go before the new ones come
        width = tasks or read(folder, "train", 1).labels.shape[1]
        self.peer = self.kind(folder, model, batch, width, seed, options or {})
        return {"parameters": sum(p.numel() for p in self.peer.model.parameters())}

    def train(self, rows: int | None = None, epochs: int = 1) -> dict[str, Any]:
        """Train on the first rows of the training part."""
        assert self.peer is not None
        data = read(self.folder, "train", rows, self.tasks)
        return {"rows": len(data.ids) * epochs, "seconds": self.peer.train(data, epochs)}

    def predict(self, part: str, batch: int, rows: int | None = None, save: str | None = None) -> dict[str, Any]:
        """Predict the first rows of a part; the predictions go to `save`."""
        assert self.peer is not None
        data = read(self.folder, part, rows, self.tasks)
        found, seconds = self.peer.predict(data, batch)
        if save:
            np.save(save, found.astype(np.float32))
        return {"rows": len(data.ids), "seconds": seconds}

    def latency(self, rows: int, calls: int) -> dict[str, Any]:
        """The median milliseconds of a forward pass over one request that lies ready as tensors."""
        assert self.peer is not None
        x = self.peer.prepared(request_of(read(self.folder, "test", rows, self.tasks), rows))
        model, times = self.peer.model.eval(), []
        with torch.no_grad():
            for _ in range(calls + 20):
                began = time.perf_counter()
                model(x)
                times.append(time.perf_counter() - began)
        return {"milliseconds": float(np.median(times[20:])) * 1e3}


def main() -> None:
    """Serve one peer."""
    torch.set_num_threads(int(sys.argv[2]))
    worker = Worker(sys.argv[1])
    packages = ("torch", "numpy", "deepctr-torch", "torch-rechub")
    serve(
        {
            "build": worker.build,
            "train": worker.train,
            "predict": worker.predict,
            "latency": worker.latency,
            "peak": peak,
            "versions": lambda: {name: version(name) for name in packages},
        }
    )


if __name__ == "__main__":
    main()
