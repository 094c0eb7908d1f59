from polyrank.data.layout import Field, Layout

FIELDS = (
    Field("user", "id", 0, 1, "user"),
    Field("age", "number", 1, 2, "age", dense=0),
    Field("seen", "sequence", 2, 7, "item"),
    Field("price", "number", 7, 8, "price", dense=1),
)


def test_widths_are_those_of_the_matrices():
    layout = Layout(FIELDS, {"user": 9, "age": 4, "item": 5, "price": 3})
    assert layout.id_columns == 8  # 1 + 1 + 5 + 1
    assert layout.dense_columns == 2


def test_a_layout_without_fields_is_empty():
    assert (Layout((), {}).id_columns, Layout((), {}).dense_columns) == (0, 0)
