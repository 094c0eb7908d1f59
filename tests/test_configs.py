"""Every experiment in configs/ is read and trains: on a few hundred rows of its data, or of data like it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyrank import experiment
from polyrank.config import read_toml
from polyrank.data.schema import load_schema
from polyrank.datasets import _directory
from polyrank.models.ranker import ARCHITECTURES
from polyrank.settings import load_settings
from polyrank.simulator.shop import ShopConfig, write_shop
from polyrank.simulator.tasks import RelatedTasks, RelatedTasksConfig

FOLDER = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(path.name for path in FOLDER.glob("*.toml") if "data" in read_toml(path))
ROWS = {"train": 600, "valid": 200, "test": 200}


def like(schema, rows, seed):
    """Random columns as the schema names them."""
    rng = np.random.default_rng(seed)
    columns = {name: pa.array(rng.integers(0, 5, rows)) for name in {schema.group, schema.time} if name}
    for feature in schema.features:
        values = rng.integers(0, 9, (rows, 3))
        if feature.kind == "number":
            columns[feature.name] = pa.array(rng.exponential(5.0, rows))
        elif feature.kind in ("sequence", "tags"):
            columns[feature.name] = pa.array(values.tolist())
        else:
            columns[feature.name] = pa.array(values[:, 0])
    columns |= {task.column or task.name: pa.array(rng.integers(0, 2, rows)) for task in schema.tasks}
    return pa.table(columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data for each config, in a folder of its name; with a schema where it is made with the data."""
    root = tmp_path_factory.mktemp("configs")
    for part, rows in ROWS.items():
        source = pq.ParquetFile(_directory() / ("train.parquet" if part == "train" else "test.parquet"))
        census = next(source.iter_batches(2 * rows))
        for name in ("census_paper", "census_full", "census_best"):
            (root / name).mkdir(exist_ok=True)
            pq.write_table(
                pa.table(census[rows:] if part == "test" else census[:rows]), root / name / f"{part}.parquet"
            )
        (root / "kuairand").mkdir(exist_ok=True)
        table = like(load_schema(FOLDER / "kuairand_schema.toml"), rows, len(part))
        pq.write_table(table, root / "kuairand" / f"{part}.parquet")
    write_shop(root / "shop", ShopConfig(exposures=1_000, users=20, items=10))
    RelatedTasks(RelatedTasksConfig(0.0, tasks=4, width=4)).write(root / "conflict", ROWS)
    return root


def test_there_are_configs_for_each_data_set():
    assert {"census_paper.toml", "census_full.toml", "kuairand.toml", "shop.toml"} <= set(EXPERIMENTS)


def test_censuss_two_protocols_read_what_their_names_say():
    assert load_settings(FOLDER / "census_paper.toml").data.schema == "builtin:census/paper"
    assert load_settings(FOLDER / "census_full.toml").data.schema == "builtin:census/full"


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["its own", "all it configures"]
)
def test_it_trains(name, every, folder, tmp_path):
    settings, data = load_settings(FOLDER / name), folder / Path(name).stem
    sets = [f"data.{part}={data / part}.parquet" for part in ROWS]
    if (data / "schema.toml").exists():
        sets.append(f"data.schema={data / 'schema.toml'}")
    sets += ["train.epochs=1", "train.batch_size=128", "data.leak_guard=false", "train.precision=float32"]
    if settings.data.leaves.trees:
        sets.append("data.leaves.trees=2")
    configured = [key for key in read_toml(FOLDER / name)["model"] if key in ARCHITECTURES and key != "single_task"]
    for architecture in configured if every else [settings.model.architecture]:
        out = tmp_path / architecture
        found = experiment.train(FOLDER / name, [*sets, f"model.architecture={architecture}"], out, resume=False)
        assert found["rows"] == ROWS["test"] if "conflict" in name or "census" in name else found["rows"] > 0
        assert set(found["tasks"]) == set(load_schema(out / "schema.toml").task_names)
        assert architecture in configured
