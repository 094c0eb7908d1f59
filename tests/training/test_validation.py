import pytest

from polyrank.errors import UserError
from polyrank.training.validation import check_plan, chosen

NAN = float("nan")


@pytest.mark.parametrize(
    ("metric", "value"), [("mean", 0.7), ("a", 0.6), ("b", 0.8)], ids=["mean over those known", "a", "b"]
)
def test_the_declared_metric(metric, value):
    assert chosen({"a": 0.6, "b": 0.8, "c": NAN}, metric) == pytest.approx(value)


def test_what_training_asks_of_its_config():
    check_plan("a", ("a", "b"), 0.1, "own")
    check_plan("mean", ("a",), 0.0, "entire")
    with pytest.raises(UserError, match=r"train.metric must be 'mean' or a task's name"):
        check_plan("c", ("a", "b"), 0.0, "own")
    with pytest.raises(UserError, match=r"space.training = 'entire', whose losses are of joint labels"):
        check_plan("a", ("a", "b"), 0.1, "entire")
