import pytest

from polyrank.data.schema import Feature, Schema, Task
from polyrank.errors import ConfigError

A = Feature("a", "id")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("t", "regression", head="cread"), "head is for duration tasks"),
        (Task("t", "count", item_duration="length"), "item_duration is for duration tasks"),
        (Task("t", "duration", item_duration="length"), "item_duration is for the head d2q"),
        (Task("t", "duration", head="d2q"), r"needs item_duration[\s\S]*one of: length"),
        (Task("t", "duration", head="d2q", item_duration="lenght"), r"needs item_duration[\s\S]*did you mean 'length'"),
        (Task("t", "duration", head="d2q", item_duration="a"), "the number feature"),  # an id has no quantile bins
    ],
)
def test_what_only_durations_have(task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schema((A, Feature("length", "number")), (task,))
