import numpy as np
import pyarrow as pa

from polyrank.data.groups import NO_GROUP
from polyrank.data.labels import read_groups
from polyrank.data.schema import Feature, Schema, Task
from polyrank.metrics.bootstrap import group_weights
from polyrank.metrics.ranking import gauc

SCHEMA = Schema(features=(Feature("x", "number"),), tasks=(Task("y", "binary"),), group="user")


def test_null_is_no_group_and_every_other_value_is_one() -> None:
    batch = pa.record_batch({"user": pa.array([7, None, -1, 0, None], pa.int64())})

    assert read_groups(SCHEMA, batch).tolist() == [7, NO_GROUP, -1, 0, NO_GROUP]


def test_rows_without_a_group_are_strangers_to_one_another() -> None:
    groups = np.array([1, 1, NO_GROUP, NO_GROUP, NO_GROUP])
    scores, labels = np.array([0.1, 0.9, 0.9, 0.1, 0.5]), np.array([0.0, 1.0, 0.0, 1.0, 1.0])

    assert gauc(scores, labels, groups).value == 1.0  # the three strangers, ranked wrongly, form no group
    drawn = np.array(list(group_weights(groups, 5, 200, seed=0)))
    assert (drawn[:, 0] == drawn[:, 1]).all()  # a user's rows are drawn together
    assert (drawn[:, 2] != drawn[:, 3]).any()  # strangers are not
    assert (drawn[:, 3] != drawn[:, 4]).any()
