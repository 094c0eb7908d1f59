import numpy as np
import pytest

from polyrank.fusion.formula import Formula
from polyrank.fusion.scope import Parameter, Scope
from polyrank.fusion.segments import Segmented, shrunk

SCOPE = Scope({"click": "probability", "like": "probability"}, ("active",))


def test_each_row_by_its_own_segment() -> None:
    parts = {1: Formula.parse("click * 10", SCOPE), 2: Formula.parse("rank(like) * -1", SCOPE)}
    fusion = Segmented("active", parts, Formula.parse("like", SCOPE))
    assert fusion.heads == ("like", "click")
    assert fusion.context == ("active",)
    assert fusion.within_request
    rows = {
        "click": np.array([0.1, 0.2, 0.3, 0.4]),
        "like": np.array([0.4, 0.3, 0.2, 0.1]),
        "active": np.array([1, 0, 2, 2]),
    }
    np.testing.assert_allclose(fusion.score(rows, np.array([0, 1, 2, 2])), [1.0, 0.3, -1.0, -2.0])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (1.0, 100.0), (0.5, 10.0)])
def test_weights_shrink_in_their_logarithms(share: float, expected: float) -> None:
    parameters = {"w": Parameter(1.0, 0.01, 100.0), "b": Parameter(0.0, -1.0, 1.0, log=False)}
    found = shrunk({"w": 100.0, "b": 1.0}, {"w": 1.0, "b": 0.0}, parameters, share)
    assert found == pytest.approx({"w": expected, "b": share})
