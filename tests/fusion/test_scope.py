import math

import pytest

from polyrank.data.schema import Task
from polyrank.errors import ConfigError
from polyrank.fusion.scope import Parameter, Scope, head_kind


def test_names_mean_one_thing() -> None:
    with pytest.raises(ConfigError, match="'click'"):
        Scope({"click": "probability"}, ("click",))


@pytest.mark.parametrize("bounds", [(1.0, 2.0, 3.0), (1.0, 1.0, 1.0), (math.nan, 0.0, 1.0), (0.0, 0.0, 1.0)])
def test_a_parameter_checks_its_bounds(bounds: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        Parameter(*bounds)


def test_tasks_say_what_their_predictions_are() -> None:
    assert head_kind(Task("a", "binary")) == "probability"
    assert head_kind(Task("a", "regression")) == "number"
    assert head_kind(Task("a", "regression")) == "number"
    assert head_kind(Task("a", "duration")) == "amount"
