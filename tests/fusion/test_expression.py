import numpy as np
import pytest

from polyrank.fusion.expression import Known, evaluate, names, substitute
from polyrank.fusion.parse import parse, write


def value(text: str, **columns: object) -> np.ndarray:
    return np.asarray(evaluate(parse(text), Known({n: np.asarray(c, float) for n, c in columns.items()})))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + 2 * b", [4.5, 2.0]),
        ("a - b / 2", [-0.5, 0.75]),
        ("a^2", [0.25, 1.0]),
        ("-a", [-0.5, -1.0]),
        ("log(a)", [np.log(0.5), 0.0]),
        ("log1p(b)", [np.log(3.0), np.log(1.5)]),
        ("exp(a)", [np.exp(0.5), np.e]),
        ("sigmoid(a - a)", [0.5, 0.5]),
        ("logit(a / 2)", [np.log(1 / 3), 0.0]),
        ("min(a, b)", [0.5, 0.5]),
        ("max(a, b)", [2.0, 1.0]),
        ("clip(b, 0.75, 1.5)", [1.5, 0.75]),
        ("where(b > 1, a, 7)", [0.5, 7.0]),
        ("where(b <= 0.5, a, 7)", [7.0, 1.0]),
        ("rank(a)", [2.0, 1.0]),
        ("band(a - b, 1, 2, 0.1)", [(0.5 - 2 + 1) / 2 * 0.1, 0.6]),
    ],
)
def test_values_by_hand(text: str, expected: list[float]) -> None:
    np.testing.assert_allclose(value(text, a=[0.5, 1.0], b=[2.0, 0.5]), expected, rtol=1e-12)


def test_names_and_numbers_in_their_place() -> None:
    node = parse("w * b + log(a) * w")
    assert names(node) == ("w", "b", "a")
    assert write(substitute(node, {"w": 0.25})) == "0.25 * b + log(a) * 0.25"
