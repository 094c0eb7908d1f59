import numpy as np

from polyrank.data.layout import Field, Layout
from polyrank.data.tabular import tree_columns, tree_matrix

LAYOUT = Layout(
    (
        Field("user", "id", 0, 1, "user"),
        Field("sex", "category", 1, 2, "sex"),
        Field("city", "category", 2, 3, "city"),
        Field("tags", "tags", 3, 5, "tags"),
        Field("age", "number", 5, 6, "age", dense=0),
        Field("leaves of y 1", "tags", 6, 8, "leaves of y 1", derived=True),
    ),
    {"user": 9, "sex": 3, "city": 5_000, "tags": 4, "age": 8, "leaves of y 1": 9},
)


def test_short_categories_are_categories_and_leaves_are_left_out():
    kinds = [kind for _, kind in tree_columns(LAYOUT)]
    assert kinds == ["number", "category", "number", "number", "number", "number"]


def test_bags_by_length_and_last_value_and_missing_numbers_as_missing():
    ids = np.array([[4, 2, 77, 3, 1, 0, 5, 6], [5, 0, 78, 0, 0, 7, 1, 2]], np.int32)
    matrix = tree_matrix(LAYOUT, ids, np.array([[0.5], [-1.0]], np.float32))
    np.testing.assert_array_equal(matrix, [[4, 2, 77, 2, 1, np.nan], [5, 0, 78, 0, 0, -1.0]])
