"""The input written out is the lookup by hand."""

import numpy as np
import pytest
import torch

from polyrank.nn.inputs import InputColumns, Inputs, Narrow


def narrow_of(tables, begins, ids):
    rows, columns = ids.shape
    none = np.zeros(0, np.int64)
    return Narrow(tables, begins, ids, none, none, np.zeros((rows, columns), np.int32), none)


TABLES = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]])
NARROW = narrow_of(TABLES, torch.tensor([0, 2, 5]), torch.tensor([[0, 2], [1, 0], [1, 1]], dtype=torch.int32))


def test_ids_are_local_to_their_tables():
    # Rows 0, 1 are the first table's, 2, 3, 4 the second's.
    assert NARROW.written().tolist() == [[1.0, 2.0, 9.0, 10.0], [3.0, 4.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]


def test_the_narrow_part_comes_first():
    wide = torch.tensor([[-1.0], [-2.0], [-3.0]])
    inputs = Inputs(wide, NARROW)
    assert inputs.rows == 3
    assert torch.equal(inputs.written(), torch.cat([NARROW.written(), wide], dim=1))


def test_without_a_narrow_part_it_is_the_wide_one():
    wide = torch.randn(4, 2)
    assert Inputs(wide).written() is wide
    assert Inputs(wide).rows == 4


@pytest.mark.parametrize("columns", [0, 2])
def test_gradients_reach_tables_and_numbers(columns):
    tables, wide = TABLES.clone().requires_grad_(), torch.zeros(3, columns, requires_grad=True)
    Inputs(wide, narrow_of(tables, NARROW.begins, NARROW.ids)).written().sum().backward()
    assert tables.grad[:, 0].tolist() == [1.0, 2.0, 1.0, 1.0, 1.0]  # how often each row is read
    assert wide.grad.tolist() == [[1.0] * columns] * 3


def test_columns_by_name():
    columns = InputColumns({"user": (0, 1), "age": (2, 3, 8), "video": (4, 5)}, [(0, 1)])
    assert columns.of(["age", "user"]) == [0, 1, 2, 3, 8]
    assert columns.of([]) == []
    with pytest.raises(ValueError, match=r"Received: 'vide'; did you mean 'video'\?"):
        columns.of(["user", "vide"])
    with pytest.raises(ValueError, match=r"Received: '\?'; there are: user, age, video"):
        columns.of(["?"])
