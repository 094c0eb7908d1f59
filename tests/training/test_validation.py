import pytest

from polyrank.training.validation import chosen

NAN = float("nan")


@pytest.mark.parametrize(
    ("metric", "value"), [("mean", 0.7), ("a", 0.6), ("b", 0.8)], ids=["mean over those known", "a", "b"]
)
def test_the_declared_metric(metric, value):
    assert chosen({"a": 0.6, "b": 0.8, "c": NAN}, metric) == pytest.approx(value)
