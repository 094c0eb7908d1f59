from collections.abc import Mapping

import numpy as np
import pytest

from polyrank.errors import ConfigError
from polyrank.fusion.formula import Formula, Template, scope_of
from polyrank.fusion.scope import HeadKind, Parameter, Scope

HEADS: Mapping[str, HeadKind] = {"click": "probability", "like": "probability", "watch": "amount"}


def formula(text: str, *context: str) -> Formula:
    return Formula.parse(text, Scope(HEADS, context))


def rows(n: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "click": rng.random(n).astype(np.float32),
        "like": rng.random(n).astype(np.float32),
        "watch": rng.exponential(20, n).astype(np.float32),
        "seconds": rng.integers(1, 100, n),
    }


def test_a_score_by_hand() -> None:
    found = formula("click^2 * (like + 0.5) * log1p(seconds)", "seconds").score(
        {"click": np.array([0.5, 1.0]), "like": np.array([0.5, 0.0]), "seconds": np.array([0, 9])}
    )
    np.testing.assert_allclose(found, [0.0, 0.5 * np.log(10)])


def test_it_says_what_it_reads() -> None:
    made = formula("rank(like) * -1 + click * max(seconds, 1)", "seconds", "price")
    assert made.heads == ("like", "click")
    assert made.context == ("seconds",)
    assert made.within_request
    assert not formula("click").within_request


def test_product_and_sum_of_logarithms_rank_alike() -> None:
    data = rows(300)
    product = formula("(click + 1e-4)^0.9 * (like + 1e-4)^0.2 * (watch + 1)^1.7")
    logs = formula("0.9 * log(click + 1e-4) + 0.2 * log(like + 1e-4) + 1.7 * log(watch + 1)")
    np.testing.assert_array_equal(product.rank(data), logs.rank(data))
    np.testing.assert_array_equal(product.rank(data), np.argsort(-product.score(data), kind="stable"))


def test_ranking_a_product_survives_underflow() -> None:
    data = {"click": np.array([1e-9, 2e-9, 0.0, 3e-9]), "like": np.full(4, 1e-9)}
    made = formula("click^20 * like^20")
    assert set(made.score(data)) == {0.0}
    assert made.rank(data).tolist() == [3, 1, 0, 2]


def test_requests_in_any_order_are_ranked_by_themselves() -> None:
    data, of = rows(60), np.random.default_rng(1).integers(0, 5, 60)
    made = formula("1 / (rank(click) + 3) + 2 / (rank(like)^0.5 + 3)")
    together = made.score(data, of)
    for request in range(5):
        alone = made.score({name: column[of == request] for name, column in data.items()})
        np.testing.assert_allclose(together[of == request], alone)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(n: int) -> None:
    made = formula("click * like + rank(watch) * 0 + 0 * click")
    assert made.score(rows(n)).shape == (n,)
    assert made.rank(rows(n)).tolist() == list(range(n))


def test_columns_are_checked() -> None:
    made, data = formula("click * like"), rows(3)
    with pytest.raises(ValueError, match="reads 'like'"):
        made.score({"click": data["click"]})
    with pytest.raises(ValueError, match="finite"):
        made.score(data | {"like": np.array([0.1, np.nan, 0.2])})
    with pytest.raises(ValueError, match="shape"):
        made.score(data | {"like": np.zeros(4)})


def test_a_formula_must_read_a_task_and_bind_its_parameters() -> None:
    with pytest.raises(ConfigError, match="prediction of a task"):
        formula("seconds + 1", "seconds")
    with pytest.raises(ConfigError, match="must occur"):
        Template.parse("click", Scope(HEADS, (), {"w": Parameter(1.0, 0.5, 2.0)}))
    with pytest.raises(ValueError, match="bind"):
        Formula.parse("click^w", Scope(HEADS, (), {"w": Parameter(1.0, 0.5, 2.0)}))


def test_binding_gives_numbers_in_place_of_parameters() -> None:
    template = Template.parse("click^w * like^v", Scope(HEADS, (), dict.fromkeys("wv", Parameter(1.0, 0.5, 2.0))))
    assert str(template.bind()) == "click^1 * like^1"
    assert str(template.bind({"w": 0.75})) == "click^0.75 * like^1"


def test_fitted_transforms_need_data_first_and_keep_it() -> None:
    text, data = "quantile(watch, seconds) + learned(click) + quantile(like)", rows(500)
    bare = formula(text, "seconds")
    with pytest.raises(ValueError, match="fitted"):
        bare.score(data)
    with pytest.raises(ConfigError, match="reward"):
        bare.fit(data)
    fitted = bare.fit(data, reward=data["click"] > 0.5)
    again = Formula.restore(fitted.document(), {})
    assert again == fitted
    np.testing.assert_array_equal(again.score(rows(seed=3)), fitted.score(rows(seed=3)))


def test_fitted_transforms_may_stand_in_each_other() -> None:
    fitted = formula("quantile(quantile(watch) * click)").fit(rows(200))
    assert len(fitted.tables) == 2
    found = fitted.score(rows(200))
    np.testing.assert_allclose(np.sort(found), (np.arange(200) + 0.5) / 200, atol=0.01)


def test_a_template_keeps_its_tables_when_bound() -> None:
    template = Template.parse("w * quantile(watch)", Scope(HEADS, (), {"w": Parameter(1.0, 0.5, 2.0)})).fit(rows(50))
    assert template.bind({"w": 2.0}).score(rows(50)).max() <= 2.0


def test_names_that_are_no_heads_are_context_for_scripts() -> None:
    assert scope_of(HEADS, "click * log1p(seconds) + w", {"w": Parameter(1.0, 0.5, 2.0)}).context == ("seconds",)


def test_a_constant_part_is_a_score_for_every_row() -> None:
    assert formula("click * 0").score(rows(4)).tolist() == [0.0] * 4
