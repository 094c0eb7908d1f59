"""A run's labelled predictions as requests."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from polyrank import experiment
from polyrank.candidates import read_parts
from polyrank.config import override, read_toml
from polyrank.progress import Silent
from polyrank.scoring import load_scorable
from polyrank.settings import parse_settings


def test_requests_are_of_users_and_days_and_nulls_are_left_out(folder: Path) -> None:
    settings = parse_settings(read_toml(folder / "config.toml"), folder)
    valid = read_parts(load_scorable(folder / "run"), settings, Silent())["valid"]
    table = pq.read_table(folder / "valid.parquet")
    known = table.filter(table["day"].is_valid())
    sizes = Counter(zip(known["user"].to_pylist(), known["day"].to_pylist(), strict=True)).values()
    assert valid.requests.rows == sum(size for size in sizes if size >= 2)
    assert len(np.unique(valid.requests.requests)) == sum(size >= 2 for size in sizes)
    assert set(valid.requests.labels["no hate"]) == {0.0, 1.0}
    assert valid.requests.labels["no hate"].mean() > 0.7
    labels = valid.requests.labels
    np.testing.assert_array_equal(valid.requests.reward, labels["click"] + labels["like"])


def test_a_head_that_is_given_another_counts_times_its_chance(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    text = (run / "schema.toml").read_text()
    (run / "schema.toml").write_text(text.replace('name = "like"', 'name = "like"\ngiven = "click"'))
    settings = parse_settings(read_toml(folder / "config.toml"), folder)
    requests = read_parts(load_scorable(run), settings, Silent())["valid"].requests
    assert set(requests.joint) == {"like"}
    np.testing.assert_allclose(requests.joint["like"], requests.columns["click"] * requests.columns["like"], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(requests.labels["like"]), requests.labels["click"] == 0)


def test_without_test_data_users_are_split(folder: Path) -> None:
    table = override(read_toml(folder / "config.toml"), [])
    del table["data"]["test"]
    run = folder / "run_without_test"
    experiment.train_settings(parse_settings(table, folder), run)
    parts = read_parts(load_scorable(run), parse_settings(table, folder), Silent())
    valid, test = (set(parts[name].requests.users.tolist()) for name in ("valid", "test"))
    assert valid.isdisjoint(test)
    assert abs(len(valid) - len(test)) <= 1
    assert any("one half" in note for note in parts["valid"].notes)
