"""`polyrank calibrate`."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from polyrank import experiment
from polyrank.errors import ConfigError, RunError
from polyrank.metrics.calibration import expected_calibration_error
from polyrank.metrics.ranking import auc


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/fusion", ignore_errors=True)
    return tmp_path / "run"


def test_scores_are_calibrated_from_then_on(folder: Path, run: Path, tmp_path: Path) -> None:
    experiment.score(run, str(folder / "test.parquet"), tmp_path / "before.parquet")
    document = experiment.calibrate(run, "platt")
    experiment.score(run, str(folder / "test.parquet"), tmp_path / "after.parquet")
    truth = pq.read_table(folder / "test.parquet")["like"].to_numpy()
    before, after = (pq.read_table(tmp_path / f"{n}.parquet")["p_like"].to_numpy() for n in ("before", "after"))
    shown = document["shown"]["judged"]["tasks"]["like"]
    assert shown["before"]["ece"] == pytest.approx(expected_calibration_error(before, truth))
    assert shown["after"]["ece"] == pytest.approx(expected_calibration_error(after, truth))
    assert auc(after, truth) == pytest.approx(auc(before, truth), abs=1e-5)
    measured = experiment.evaluate(run, str(folder / "test.parquet"))["tasks"]["like"]["ece"]
    assert measured == pytest.approx(shown["after"]["ece"], abs=1e-6)
    assert "Calibration of run" in (run / "calibration.html").read_text()
    assert document["shown"]["fitted"]["data"].endswith("valid.parquet")


def test_rates_and_methods(folder: Path, run: Path) -> None:
    document = experiment.calibrate(run, "none", {"click": 0.5})
    assert list(document["tasks"]) == ["click"]
    for rates in ({"clik": 0.5}, {"click": 0.0}):
        with pytest.raises(ConfigError):
            experiment.calibrate(run, "none", rates)


def test_a_damaged_calibration_is_refused(folder: Path, run: Path, tmp_path: Path) -> None:
    (run / "calibration.json").write_text('{"format": 1, "tasks": {"click": {}}}')
    with pytest.raises(RunError, match="whole"):
        experiment.score(run, str(folder / "test.parquet"), tmp_path / "s.parquet")
