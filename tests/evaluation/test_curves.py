import numpy as np
import pytest

from polyrank.evaluation.curves import response_curves
from polyrank.evaluation.requests import Requests


def data_of(rows=400):
    rng = np.random.default_rng(0)
    return Requests(
        columns={"click": rng.random(rows), "like": rng.random(rows), "new": (np.arange(rows) // 4 % 2).astype(float)},
        heads=("click", "like"),
        labels={"click": np.zeros(rows)},
        numeric=frozenset(),
        requests=np.arange(rows) // 4,
        users=np.arange(rows) // 4,
        reward=np.zeros(rows),
    )


def test_of_a_sum_it_is_each_term():
    curves = response_curves(data_of(), lambda c, _: 3 * c["click"] ** 2 + np.log(c["like"]))
    assert [(c["head"], c["segment"], len(c["x"])) for c in curves] == [("click", "", 21), ("like", "", 21)]
    click, like = ({key: np.array(c[key]) for key in ("x", "y")} for c in curves)
    np.testing.assert_allclose(click["y"] - click["y"][0], 3 * (click["x"] ** 2 - click["x"][0] ** 2), atol=1e-12)
    np.testing.assert_allclose(like["y"] - like["y"][0], np.log(like["x"] / like["x"][0]), atol=1e-12)


def test_each_segment_has_its_own_curve():
    data = data_of()
    curves = response_curves(data, lambda c, _: c["click"] * (1 + c["new"]), segments=data.columns["new"])
    slopes = {(c["head"], c["segment"]): (c["y"][-1] - c["y"][0]) / (c["x"][-1] - c["x"][0]) for c in curves}
    assert slopes["click", "0.0"] == pytest.approx(1)
    assert slopes["click", "1.0"] == pytest.approx(2)
    assert slopes["click", ""] == pytest.approx(1.5)
    assert slopes["like", "1.0"] == pytest.approx(0, abs=1e-12)


def test_one_candidate_moves_and_its_rivals_stay():
    # The score is the rank of click among the request's rows: from last of four to first.
    def score(columns, requests):
        lower = columns["click"][:, None] > columns["click"]
        return (lower & (requests[:, None] == requests)).sum(axis=1)

    click = response_curves(data_of(), score)[0]
    assert click["y"][-1] - click["y"][0] == pytest.approx(3, abs=0.1)
    assert (np.diff(click["y"]) >= 0).all()


def test_of_no_row_there_is_no_curve():
    assert response_curves(data_of().select(np.zeros(400, bool)), lambda c, _: c["click"]) == []
