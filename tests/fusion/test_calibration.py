import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from polyrank.data.schema import Task
from polyrank.errors import DataError
from polyrank.evaluation.predict import ScoreTable
from polyrank.fusion.calibration import METHODS, Calibration, Knots, LogOdds, fit, undo_sampling
from polyrank.metrics.calibration import expected_calibration_error
from polyrank.metrics.ranking import auc


def table(p: np.ndarray, y: np.ndarray, where: np.ndarray | None = None) -> ScoreTable:
    everywhere = np.ones((len(p), 1), np.bool_) if where is None else where[:, None]
    return ScoreTable(
        (Task("click", "binary"),), p[:, None].astype(np.float32), y[:, None].astype(np.float32), everywhere, None
    )


def distorted(rows: int, seed: int, distort: LogOdds) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are wrong by a known function: the labels follow `distort(p)`."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-2, 1.2, rows))
    return p.astype(np.float32), (rng.random(rows) < distort(p)).astype(float)


@pytest.mark.parametrize(
    ("method", "truth"),
    [("temperature", LogOdds(0.5, 0.5, 0.0)), ("platt", LogOdds(0.6, 0.6, -0.8)), ("beta", LogOdds(0.5, 1.6, 0.3))],
)
def test_a_known_distortion_is_found_and_undone(method: str, truth: LogOdds) -> None:
    p, y = distorted(60_000, 0, truth)
    found = fit(table(p, y), method).tasks["click"].curve  # type: ignore[arg-type]
    assert isinstance(found, LogOdds)
    assert (found.a, found.b, found.c) == pytest.approx((truth.a, truth.b, truth.c), abs=0.15)
    grid = np.linspace(0.01, 0.9, 50)
    np.testing.assert_allclose(found(grid), truth(grid), atol=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_ece_falls_on_rows_that_fitted_nothing_and_auc_stays(method: str) -> None:
    truth = LogOdds(0.5, 0.5, 0.0) if method == "temperature" else LogOdds(0.6, 0.6, -0.8)
    calibration = fit(table(*distorted(40_000, 0, truth)), method)  # type: ignore[arg-type]
    p, y = distorted(40_000, 1, truth)
    after = calibration.apply(("click",), p[:, None])[:, 0]
    assert after.dtype == np.float32
    assert expected_calibration_error(p, y) > 0.02
    assert expected_calibration_error(after, y) < expected_calibration_error(truth(p), y) + 0.003
    assert auc(after, y) == pytest.approx(auc(p, y), abs=2e-7)
    exact = calibration.tasks["click"](p)
    assert auc(exact, y) == auc(p, y)  # in float64 not one pair is tied or turned


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 60), ties=st.booleans())
def test_every_curve_rises_strictly_whatever_the_rows(method: str, seed: int, rows: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    p = rng.choice([0.0, 0.1, 0.5, 1.0], rows) if ties else rng.random(rows)
    y = (rng.random(rows) < 0.5).astype(float)
    y[:2] = [0, 1]
    curve = METHODS[method](p, y)
    grid = np.linspace(0.005, 0.995, 100)
    found = curve(grid)
    assert (np.diff(found) > 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_isotonic_by_hand() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7])
    y = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    # Steps: {0.1, 0.2} at 0, {0.3, 0.4} at ½, {0.6, 0.7} at 1; their middles 0.15, 0.35, 0.65; half a row at 0 and 1.
    found = METHODS["isotonic"](p, y)
    assert isinstance(found, Knots)
    assert found.x == pytest.approx((0, 0.15, 0.35, 0.65, 1))
    assert found.y == pytest.approx((0, 0.5 / 3, 0.5, 1 - 0.5 / 3, 1))


def test_isotonic_gives_no_probability_of_zero_to_what_may_happen() -> None:
    p, y = np.linspace(0.01, 0.99, 200), np.repeat([0.0, 1.0], 100)
    found = METHODS["isotonic"](p, y)(p)
    assert 0 < found.min() < 0.01
    assert 0.99 < found.max() < 1


def test_sampling_is_undone_by_hand_and_on_data() -> None:
    np.testing.assert_allclose(undo_sampling(np.array([0.0, 0.5, 1.0]), 0.1), [0.0, 0.5 / 5.5, 1.0])
    rng = np.random.default_rng(0)
    x = rng.normal(size=200_000)
    truth = expit(x - 3)
    y = rng.random(len(x)) < truth
    kept = y | (rng.random(len(x)) < 0.1)  # what training saw
    seen = expit(x - 3 - np.log(0.1))  # the ideal model of it
    assert seen[kept].mean() == pytest.approx(y[kept].mean(), abs=0.01)
    np.testing.assert_allclose(undo_sampling(seen, 0.1), truth)
    with pytest.raises(ValueError, match="within"):
        undo_sampling(seen, 0.0)


def test_sampling_comes_before_the_curve() -> None:
    rng = np.random.default_rng(0)
    truth = expit(rng.normal(-3, 1, 60_000))
    y = (rng.random(len(truth)) < truth).astype(float)
    sampled = expit(logit(truth) - np.log(0.2))
    found = fit(table(sampled, y), "platt", {"click": 0.2}).tasks["click"]
    np.testing.assert_allclose(found(sampled[:100]), truth[:100], rtol=0.08)
    alone = fit(table(sampled, y), "none", {"click": 0.2}).tasks["click"]
    np.testing.assert_allclose(alone(sampled), truth, rtol=1e-6)
    assert fit(table(sampled, y), "none").tasks == {}


def test_only_the_tasks_own_rows_count() -> None:
    p, y = distorted(4_000, 0, LogOdds(0.6, 0.6, -0.8))
    mine = np.arange(len(p)) < 2_000
    wrong = np.where(mine, y, 1 - y)
    assert fit(table(p, wrong, mine), "beta") == fit(table(p[mine], y[mine]), "beta")


@pytest.mark.parametrize("method", METHODS)
def test_it_survives_json(method: str) -> None:
    calibration = fit(table(*distorted(500, 0, LogOdds(0.6, 0.6, -0.8))), method, {"click": 0.5})  # type: ignore[arg-type]
    assert Calibration.restore(json.loads(json.dumps(calibration.document()))) == calibration


def test_tasks_without_a_calibrator_keep_their_predictions() -> None:
    p = np.random.default_rng(0).random((5, 2)).astype(np.float32)
    assert Calibration().apply(("a", "b"), p) is p
    found = Calibration({"b": fit(table(*distorted(500, 0, LogOdds(2, 2, 0))), "platt").tasks["click"]}).apply(
        ("a", "b"), p
    )
    np.testing.assert_array_equal(found[:, 0], p[:, 0])
    assert (found[:, 1] != p[:, 1]).any()


def test_numbers_are_left_alone_and_one_class_is_refused() -> None:
    p, y = np.full(3, 0.5), np.ones(3)
    with pytest.raises(DataError, match="'click'"):
        fit(table(p, y), "isotonic")
    numeric = ScoreTable((Task("watch", "regression"),), p[:, None], y[:, None], np.ones((3, 1), np.bool_), None)
    assert fit(numeric, "isotonic").tasks == {}
