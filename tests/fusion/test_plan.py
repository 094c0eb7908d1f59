import numpy as np
import pytest

from polyrank.fusion.expression import Known, evaluate
from polyrank.fusion.parse import parse, write
from polyrank.fusion.plan import fold, ordinal
from polyrank.fusion.scope import Parameter, Scope

SCOPE = Scope({"a": "probability", "b": "probability", "n": "number"}, ("x",), {"w": Parameter(1.0, 0.1, 10.0)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a^2 * (b + 1)^w", "2 * log(a) + w * log(b + 1)"),
        ("a * b / max(x, 1)", "log(a) + log(b) - log(max(x, 1))"),
        ("a + b", "a + b"),  # not a product
        ("a * n", "a * n"),  # may be negative
        ("a * (b + 1) * n^2", "log(a) + log(b + 1) + 2 * log(n)"),
        ("a / (n * n)^1", "log(a) - 1 * log(n * n)"),
    ],
)
def test_products_become_sums_of_logarithms(text: str, expected: str) -> None:
    assert write(ordinal(parse(text), SCOPE)) == expected


def test_what_has_no_parameter_is_evaluated_once() -> None:
    rng = np.random.default_rng(0)
    columns = {"a": rng.random(30), "b": rng.random(30), "x": rng.random(30)}
    node = parse("w * log(a + 0.1) + rank(b) / 3 + 2 * w")
    folded, values = fold(node, Known(columns), {"w"})
    assert write(folded).count("#") == 2
    for w in (0.5, 2.0):
        np.testing.assert_array_equal(
            evaluate(folded, Known({**values, "w": w})), evaluate(node, Known({**columns, "w": w}))
        )
