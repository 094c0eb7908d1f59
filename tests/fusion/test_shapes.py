import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrank.errors import ConfigError
from polyrank.fusion.expression import Known, evaluate
from polyrank.fusion.parse import parse
from polyrank.fusion.scope import Parameter, Scope
from polyrank.fusion.shapes import analyse

SCOPE = Scope(
    {"click": "probability", "hate": "probability", "watch": "amount", "logits": "number"},
    ("seconds",),
    {"w": Parameter(1.0, 0.1, 10.0), "v": Parameter(0.0, -1.0, 1.0, log=False)},
)


@pytest.mark.parametrize(
    ("text", "directions"),
    [
        ("click^0.9 * (watch + 1e-4)^0.2 * log1p(seconds)", {"click": 1, "watch": 1}),
        ("click * (1 - hate)^w", {"click": 1, "hate": -1}),
        ("click - w * hate", {"click": 1, "hate": -1}),
        ("click^v", {"click": 0}),
        ("click * seconds", {"click": 0}),
        ("click * max(seconds, 0)", {"click": 1}),
        ("click * (1 - click)", {"click": 0}),
        ("click * logits", {"click": 0, "logits": 1}),
        ("1 / (rank(click) + 10)", {"click": 1}),
        ("click / max(seconds, 1)", {"click": 1}),
        ("1 / watch", {"watch": -1}),
        ("where(seconds > 10, watch, 1) * click", {"watch": 1, "click": 1}),
        ("where(seconds > 10, click, 1 - click)", {"click": 0}),
        ("quantile(watch, seconds) + learned(click)", {"watch": 1, "click": 1}),
        ("band(click - hate, 1, 2, 0.1)", {"click": 1, "hate": -1}),
        ("-logit(click) + clip(hate, 0, 0.5)", {"click": -1, "hate": 1}),
    ],
)
def test_which_way_a_formula_moves(text: str, directions: dict[str, int]) -> None:
    assert analyse(parse(text), SCOPE).directions == directions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clik", "did you mean 'click'"),
        ("logit(watch)", "probability"),
        ("click / logits", "divisor"),
        ("click / seconds", "divisor"),
        ("click^hate", "exponent"),
        ("where(click > 0.5, watch, 0)", "condition"),
        ("where(click, watch, 0)", "comparison"),
        ("(seconds > 1) + click", "comparison"),
        ("clip(click, 0, hate)", "clip"),
        ("rank(w * click)", "without parameters"),
        ("quantile(watch, click)", "bucket"),
        ("rank(3) + click", "takes a column"),
    ],
)
def test_types_are_checked_before_any_row(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        analyse(parse(text), SCOPE)
    assert words in str(caught.value)


EXPRESSIONS = [
    "w * click - v * hate", "click^w * (1 - hate)^v", "(1 + w * watch)^v / (click + 0.5)", "log(click + w) * v",
    "min(click, hate) - max(v, click) * w", "sigmoid(logits) * exp(v) + log1p(watch)", "clip(logits, -1, w) * click",
]  # fmt: skip


@given(st.sampled_from(EXPRESSIONS), st.integers(0, 10_000))
def test_ranges_and_directions_hold_on_data(text: str, seed: int) -> None:
    """The proof against the fact: values stay in the range, and a raised head moves them the promised way."""
    rng, node = np.random.default_rng(seed), parse(text)
    shape = analyse(node, SCOPE)
    columns = {
        "click": rng.random(50), "hate": rng.random(50), "watch": rng.exponential(5, 50), "logits": rng.normal(size=50),
        "w": 10 ** rng.uniform(-1, 1), "v": rng.uniform(-1, 1),
    }  # fmt: skip
    before = np.asarray(evaluate(node, Known(columns)))
    assert (before >= shape.low - 1e-9).all()
    assert (before <= shape.high + 1e-9).all()
    for head, direction in shape.directions.items():
        raised = columns | {head: np.minimum(columns[head] + rng.random(50), 1 if head in ("click", "hate") else 1e9)}
        moved = np.asarray(evaluate(node, Known(raised))) - before
        assert (direction * moved >= -1e-12).all()
