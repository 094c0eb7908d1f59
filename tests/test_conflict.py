"""What the seesaw says of four tasks with nothing in common, and of four times the same one.

Every trunk, expert and own network has one layer of six units: enough for one of these tasks, too few for four.
`benchmarks/conflict.py` is the same study with more models.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from polyrank import experiment
from polyrank.metrics.ranking import xauc
from polyrank.models.ple import PLE, PLEConfig
from polyrank.models.shared_bottom import SharedBottom, SharedBottomConfig
from polyrank.models.single_task import SingleTask, SingleTaskConfig
from polyrank.nn.inputs import Inputs
from polyrank.nn.towers import Towers
from polyrank.simulator.tasks import RelatedTasks, RelatedTasksConfig

CONFIG = Path(__file__).parents[1] / "configs/conflict.toml"
ROWS = {"train": 4_000, "valid": 2_000, "test": 3_000}
TASKS = 4


def tasks_of(cosine):
    return RelatedTasks(RelatedTasksConfig(cosine, tasks=TASKS, width=4, scale=1.5, sines=1, trend=0.0, noise=0.3))


def in_turn(jobs, workers, progress):
    """Runs one after the other in this process: one of its own would import torch first."""
    for job in jobs:
        job.work(*job.arguments, progress)


@pytest.mark.slow
@pytest.mark.parametrize("cosine", [0.0, 1.0])
def test_verdicts(cosine, tmp_path, monkeypatch):
    """`polyrank compare`, ten seeds: under conflict a loss for Shared-Bottom, none for PLE; else none for either."""
    monkeypatch.setattr("polyrank.study.run_all", in_turn)
    tasks_of(cosine).write(tmp_path, ROWS)
    places = [f"data.{name}={tmp_path / name}.parquet" for name in ROWS]
    places += [f"data.schema={tmp_path / 'schema.toml'}", 'compare.architectures=["shared_bottom", "ple"]']
    threads = torch.get_num_threads()
    try:
        study = experiment.compare(CONFIG, places, tmp_path / "out", resume=False, command="polyrank compare")
    finally:
        torch.set_num_threads(threads)
    found = {
        model["name"]: [cell["delta"]["single_task"]["verdict"] for cell in model["tasks"].values()]
        for model in study["models"]
    }
    assert len(found["ple"]) == TASKS
    assert "loss" not in found["ple"]
    if cosine:
        assert "loss" not in found["shared_bottom"]
    else:
        assert found["shared_bottom"] == ["loss"] * TASKS


UNITS, STEPS, SEEDS = 6, 250, 2
MODELS = {
    "single_task": (SingleTask, SingleTaskConfig(widths=(UNITS,))),
    "shared_bottom": (SharedBottom, SharedBottomConfig(widths=(UNITS,))),
    "ple": (PLE, PLEConfig(widths=(UNITS,))),
}


def predictions(name, columns, data, seed):
    """Test predictions `[N, tasks]` of one network after a short training."""
    (x, y), (test, _) = data
    torch.manual_seed(seed)
    kind, config = MODELS[name]
    model = kind(x.shape[1], len(columns), config)
    towers = Towers(len(columns), model.out_width, (8,), biases=[[0.0]] * len(columns))
    weights = [*model.parameters(), *towers.parameters()]
    optimizer = torch.optim.Adam(weights)
    order = np.random.default_rng(seed)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / STEPS)
        rows = torch.from_numpy(order.integers(0, len(x), 128))
        optimizer.zero_grad()
        (towers(model(Inputs(x[rows]))) - y[rows][:, columns]).square().mean(dim=0).sum().backward()
        optimizer.step()
    with torch.no_grad():
        return towers(model(Inputs(test))).numpy()


def test_what_sharing_costs_in_short():
    """Under conflict by hand, two seeds of a short training: the mean XAUC of single-task networks, less each one's."""
    data = [tuple(map(torch.from_numpy, tasks_of(0.0).sample(rows, seed))) for seed, rows in enumerate((4_000, 2_000))]
    truth, everyone = data[1][1].numpy(), list(range(TASKS))
    costs = {"shared_bottom": [], "ple": []}
    for seed in range(SEEDS):
        alone = np.concatenate([predictions("single_task", [task], data, seed) for task in everyone], axis=1)
        for name, found in costs.items():
            shared = predictions(name, everyone, data, seed)
            found.append([xauc(alone[:, t], truth[:, t]) - xauc(shared[:, t], truth[:, t]) for t in everyone])
    assert (np.mean(costs["shared_bottom"], axis=1) > 0.02).all()
    assert np.mean(costs["ple"]) < 0.01
