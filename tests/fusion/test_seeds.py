from collections.abc import Callable

import numpy as np
import pytest

from polyrank.evaluation.fused import JudgeConfig
from polyrank.evaluation.requests import Requests
from polyrank.fusion.formula import Formula, Template
from polyrank.fusion.objective import Objective
from polyrank.fusion.presets import PRESETS, preset
from polyrank.fusion.scope import HeadKind, Parameter, Scope
from polyrank.fusion.seeds import centred, equal_contribution, heads_alone, match, prepared, within

HEADS: dict[str, HeadKind] = {"click": "probability", "like": "probability", "hate": "probability"}
ROWS = {"click": np.array([0.2, 0.6]), "like": np.array([0.01, 0.03]), "hate": np.array([0.0, 0.1])}


def test_terms_of_a_sum_get_equal_means() -> None:
    found = equal_contribution(preset("weighted_sum", HEADS, ["hate"]), ROWS)
    assert found == pytest.approx({"w_like": 0.4 / 0.02, "w_hate": 0.4 / 0.05})


def test_factors_of_a_product_get_equal_spreads() -> None:
    found = equal_contribution(preset("ple", HEADS), ROWS | {"hate": np.array([0.1, 0.4])})
    assert found == pytest.approx({"w_like": 1.0, "w_hate": np.log(3) / np.log(4)})


def test_weights_inside_make_their_product_one() -> None:
    found = equal_contribution(preset("product_plus", HEADS), ROWS)
    assert (found["w_click"], found["w_like"]) == pytest.approx((1 / 0.4, 1 / 0.02))
    spread = [np.log(1 + found[f"w_{head}"] * ROWS[head]).std() for head in HEADS]
    assert (found["a_like"], found["a_hate"]) == pytest.approx((spread[0] / spread[1], spread[0] / spread[2]))


def test_a_constant_head_keeps_its_weight() -> None:
    assert equal_contribution(preset("ple", HEADS), ROWS | {"like": np.full(2, 0.5)})["w_like"] == 1.0


@pytest.mark.parametrize("name", PRESETS)
def test_with_a_head_alone_the_list_is_its_own(name: str, requests: Callable[..., Requests]) -> None:
    """Thirtyfold over equal contributions, in all presets: nearly the head's own order."""
    context = "" if PRESETS[name].context == "none" else "seconds"
    data = requests(60, size=60)
    template = preset(name, HEADS, ["hate"], context)
    template = centred(template, equal_contribution(template, data.columns))
    alone = heads_alone(template)
    assert set(alone) == set(HEADS)
    for head, values in alone.items():
        scores = template.bind(within(template, values)).order(data.columns)
        found = abs(np.corrcoef(np.argsort(np.argsort(scores)), np.argsort(np.argsort(data.columns[head])))[0, 1])
        assert found > (0.75 if name == "ecommerce" else 0.9)  # the price has its weight there


def test_a_formula_in_production_is_recognised() -> None:
    scope = Scope(HEADS, (), {"w": Parameter(1.0, 0.1, 10.0)})
    template = Template.parse("click^w * (like + 1e-4)^w", scope)

    def known(text: str) -> dict[str, float] | None:
        return match(template, Formula.parse(text, Scope(HEADS)))

    assert known("click^0.5 * (like + 1e-4)^0.5") == {"w": 0.5}
    assert known("click^0.5 * (like + 1e-4)^0.6") is None  # w is one number
    assert known("click^0.5 * (like + 1e-3)^0.5") is None
    assert known("click^0.5") is None


def test_values_are_moved_into_their_bounds() -> None:
    template = preset("ple", HEADS)
    assert within(template, {"w_like": 1e9}) == {"w_like": 30.0, "w_hate": 1.0}


def test_the_best_head_has_the_fixed_weight(planted: Callable[..., tuple[Requests, np.ndarray]]) -> None:
    data, _ = planted()
    objective = Objective(data, "composite", JudgeConfig())
    template = prepared("log_sum", dict.fromkeys("acb", "probability"), (), "", data, objective)
    assert list(template.parameters) == ["w_a", "w_c"] or list(template.parameters) == ["w_c", "w_a"]
    assert all(p.low == pytest.approx(p.value / 30) and p.high == pytest.approx(p.value * 30)
               for p in template.parameters.values())  # fmt: skip
