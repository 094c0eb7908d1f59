import numpy as np
import pytest

from polyrank.fusion.fusion import Document, Fusion, read_columns


class Constant(Fusion):
    kind, heads = "constant", ("click",)

    def score(self, rows: object, requests: object = None) -> np.ndarray:
        return np.array([1.0, 3.0, 1.0, 3.0])

    def document(self) -> Document:
        return {}

    @classmethod
    def restore(cls, document: Document, arrays: object) -> "Constant":
        return cls()


def test_the_best_comes_first_and_equals_keep_their_order() -> None:
    assert Constant().rank({}).tolist() == [1, 3, 0, 2]
    assert Constant().arrays() == {}


def test_columns_are_float64_and_checked() -> None:
    found = read_columns({"a": np.array([1, 2], np.int8), "b": np.zeros(2, np.float32), "c": None}, ["a", "b"])
    assert {name: column.dtype for name, column in found.items()} == {"a": float, "b": float}
    with pytest.raises(ValueError, match="'d'"):
        read_columns({}, ["d"])
    with pytest.raises(ValueError, match="shape"):
        read_columns({"a": np.zeros(2), "b": np.zeros(3)}, ["a", "b"])
    with pytest.raises(ValueError, match="shape"):
        read_columns({"a": np.zeros((2, 2))}, ["a"])
    with pytest.raises(ValueError, match="finite"):
        read_columns({"a": np.array([0.0, np.inf])}, ["a"])
    assert read_columns({"a": np.array([1e308, 1e308])}, ["a"])["a"][0] == 1e308  # the sum overflows, no value does
