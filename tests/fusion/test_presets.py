import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrank.errors import ConfigError
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.parse import parse, write
from polyrank.fusion.presets import PRESETS, preset
from polyrank.fusion.scope import HeadKind

HEADS: dict[str, HeadKind] = {
    "click": "probability", "comment-stay": "probability", "watch": "amount", "hate": "probability",
}  # fmt: skip


def made(name: str) -> Template:
    return preset(name, HEADS, ["hate"], "" if PRESETS[name].context == "none" else "seconds")


def candidates(rng: np.random.Generator, n: int = 12) -> dict[str, np.ndarray]:
    edges = np.array([0.0, 1.0, 1e-30, 0.5])
    some = {h: np.where(rng.random(n) < 0.4, rng.choice(edges, n), rng.random(n)) for h in HEADS}
    return some | {"watch": rng.exponential(30, n) * (rng.random(n) < 0.8), "seconds": rng.integers(0, 300, n)}


def bound(template: Template, rng: np.random.Generator) -> Formula:
    """The template with random parameters, often at their ends."""
    values = {}
    for name, parameter in template.parameters.items():
        u = rng.choice([0.0, 1.0, rng.random()])
        low, high = (
            (np.log(parameter.low), np.log(parameter.high)) if parameter.log else (parameter.low, parameter.high)
        )
        value = low + u * (high - low)
        values[name] = float(np.clip(np.exp(value) if parameter.log else value, parameter.low, parameter.high))
    return template.bind(values)


@pytest.mark.parametrize("name", PRESETS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_raising_a_head_moves_no_score_the_wrong_way(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    formula, data = bound(made(name), rng), candidates(rng)
    assert np.isfinite(formula.score(data)).all()
    row = int(rng.integers(len(data["click"])))
    for head, kind in HEADS.items():
        raised = {n: c.copy() for n, c in data.items()}
        raised[head][row] = min(raised[head][row] + rng.exponential(), 1.0 if kind == "probability" else 1e9)
        for value in (formula.score, formula.order):
            change = value(raised)[row] - value(data)[row]
            scale = 1e-12 * abs(value(data)[row])
            assert change <= scale if head == "hate" else change >= -scale


@pytest.mark.parametrize("name", PRESETS)
def test_the_direction_is_proved_as_well(name: str) -> None:
    assert made(name).bind().directions == {"click": 1, "comment-stay": 1, "watch": 1, "hate": -1}


@pytest.mark.parametrize("name", PRESETS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_presets_are_finite_at_the_edges_and_survive_printing(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    formula = bound(made(name), rng)
    edges = {h: np.array([0.0, 1.0, 0.0, 1.0]) for h in HEADS} | {"seconds": np.array([0.0, 0.0, 60.0, 1e6])}
    assert np.isfinite(formula.score(edges)).all()
    assert np.isfinite(formula.order(edges)).all()
    assert parse(str(formula)) == formula.expression
    again = Formula.restore(formula.document(), {})
    np.testing.assert_array_equal(again.score(edges), formula.score(edges))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_the_product_ranks_as_the_sum_of_its_logarithms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads: dict[str, HeadKind] = {f"h{i}": "probability" for i in range(5)}
    w = (10 ** rng.uniform(-1, 1, 5)).tolist()
    data = {h: np.where(rng.random(50) < 0.05, 0.0, rng.random(50)) for h in heads}
    product = preset("ple", heads).bind({f"w_h{i}": w[i] / w[0] for i in range(1, 5)})
    logs = " + ".join(f"{w[i] / w[0]!r} * log(h{i})" for i in range(5))
    by_sum = Formula.parse(logs, product.scope)
    # Two roundings of one number: compare the orders where they differ by more than that.
    a, b = product.order(data), by_sum.score(data)
    np.testing.assert_allclose(a, b, rtol=1e-12)
    gap = np.abs(b[:, None] - b[None, :]) > 1e-9
    assert (np.sign(a[:, None] - a[None, :]) == np.sign(b[:, None] - b[None, :]))[gap].all()


def test_formulas_as_they_are_written() -> None:
    heads: dict[str, HeadKind] = {"ctr": "probability", "cvr": "probability"}
    assert write(preset("ple", heads, context="len").expression) == "ctr * cvr^w_cvr * log1p(len)^w_length"
    assert write(preset("ecommerce", heads, context="price").expression) == "ctr * cvr^w_cvr * price^w_price"
    assert write(preset("weighted_sum", heads, ["cvr"]).expression) == "ctr - w_cvr * cvr"
    assert write(preset("log_sum", heads).expression) == "log(ctr + 0.0001) + w_cvr * log(cvr + 0.0001)"
    assert write(preset("product_plus", heads).expression) == "(1 + w_ctr * ctr) * (1 + w_cvr * cvr)^a_cvr"
    assert (
        write(preset("ensemble_sort", heads).expression)
        == "1 / (rank(ctr)^a_ctr + beta) + w_cvr / (rank(cvr)^a_cvr + beta)"
    )


@pytest.mark.parametrize(
    ("name", "negative", "context", "words"),
    [
        ("pel", (), "", "did you mean 'ple'"),
        ("ple", ("click",), "", "positive one first"),
        ("ple", ("watch",), "", "binary"),
        ("ecommerce", (), "", "needs a context"),
        ("weighted_sum", (), "seconds", "has no context"),
    ],
)
def test_what_does_not_suit_a_preset(name: str, negative: tuple[str, ...], context: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(name, HEADS, negative, context)
    assert words in str(caught.value)


def test_every_preset_says_where_it_comes_from() -> None:
    assert {"ple", "ensemble_sort", "weighted_sum", "product_plus", "ecommerce"} <= set(PRESETS)
    assert all(":" in entry.source for entry in PRESETS.values())
