import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrank.data.columns import INTEGER, TEXT, buffers
from polyrank.data.vocabularies import Buckets, Encoder, NumberScale, Vocabulary, restore

NAN = np.nan


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_vocabulary_is_a_dictionary(known: list[int], asked: list[int]) -> None:
    known = list(dict.fromkeys(known))
    place = {value: index + 2 for index, value in enumerate(known)}
    vocabulary = Vocabulary(pa.array(known, INTEGER))

    ids = vocabulary.ids(pa.array(known + asked, INTEGER), "a")

    assert ids.dtype == np.int32
    assert ids.tolist() == [place.get(value, 1) for value in known + asked]


def test_values_of_one_hash_are_never_taken_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyrank.data.vocabularies.hash64", lambda array: np.zeros(len(array), np.uint64))
    vocabulary = Vocabulary(pa.array(["x", "y"], TEXT))

    assert vocabulary.ids(pa.array(["x", "y", "z", None]), "a").tolist() == [2, 1, 1, 0]


def test_number_scale_by_hand() -> None:
    scale = NumberScale(edges=(0.0, 10.0), mean=1.0, std=2.0)
    values = np.array([-np.inf, -1.0, 0.0, 9.9, 10.0, np.inf, NAN])

    assert scale.rows == 4
    assert scale.ids(values).tolist() == [1, 1, 2, 2, 3, 3, 0]
    s = [(-np.log(2) - 1) / 2, -0.5, (np.log(10.9) - 1) / 2, (np.log(11) - 1) / 2]
    np.testing.assert_allclose(scale.scaled(values), [-10, *s, 10, 0], rtol=1e-6)
    assert scale.scaled(values).dtype == np.float32


def test_texts_fill_all_buckets() -> None:
    texts = Buckets(7, TEXT).ids(pa.array([f"v{i}" for i in range(1000)]), "a")

    assert (texts.min(), texts.max()) == (2, 8)


@pytest.mark.parametrize(
    "encoder",
    [
        Vocabulary(pa.array([], INTEGER)),
        Vocabulary(pa.array([2**63 - 1, -(2**63), 0], INTEGER)),
        Vocabulary(pa.array(['"', "\\", "Δ\U0001f600", "", "\x00\n"], TEXT)),
        Buckets(2**31 - 3, TEXT),
        NumberScale((), 0.0, 0.0),
        NumberScale((0.1, 1 / 3, 1e300), -0.1, 5e-324),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2, 65_536])
def test_state_survives_json(encoder: Encoder, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyrank.data.vocabularies._CHUNK", chunk)

    assert restore(json.loads("".join(encoder.json()))) == encoder


@pytest.mark.parametrize(
    "values", [pa.array(range(20), INTEGER), pa.array([f"text {i}" for i in range(20)], TEXT), pa.array([], TEXT)]
)
def test_equal_arrays_have_equal_bytes_wherever_they_lie(values: pa.Array) -> None:
    part = values.slice(3, 9)
    copy = pa.array(part.to_pylist(), part.type)

    assert [bytes(b) for b in buffers(part)] == [bytes(b) for b in buffers(copy)]
    assert [bytes(b) for b in buffers(part)] != [bytes(b) for b in buffers(values.slice(4, 8))] or not len(values)


def test_texts_are_told_apart_by_where_they_end() -> None:
    one, two = (b"".join(bytes(b) for b in buffers(pa.array(v, TEXT))) for v in (["ab", "c"], ["a", "bc"]))

    assert one != two
