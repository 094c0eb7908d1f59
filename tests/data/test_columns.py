import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrank.data.columns import INTEGER, TEXT, distinct, hash64, keys, list_lengths, lists, missing, numbers, padded
from polyrank.errors import DataError

MASK = 2**64 - 1


def _splitmix(x: int) -> int:
    """SplitMix64's next(), one integer at a time."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def _fnv1a(data: bytes) -> int:
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def test_reference_hashes_have_their_published_values() -> None:
    """SplitMix64 from seed 0, as in its reference implementation; FNV-1a's test vectors."""
    assert _splitmix(0) == 0xE220A8397B1DCDAF
    assert _splitmix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
    assert [_fnv1a(b""), _fnv1a(b"a"), _fnv1a(b"foobar")] == [
        0xCBF29CE484222325,
        0xAF63DC4C8601EC8C,
        0x85944171F73967E8,
    ]


def test_hashes_never_change() -> None:
    """Written down: a hash that changes makes every trained model wrong in silence."""
    integers = hash64(pa.array([0, 1, -1, 2**63 - 1, None], INTEGER)).tolist()
    texts = hash64(pa.array(["", "a", "foobar", "Δ", None], TEXT)).tolist()

    assert integers == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20, 0x2A67D7552E039EA7, 0]
    assert texts == [0xC3817C016BA4FF30, 0x5F29C2AADD9B8527, 0x5DF295413403DE4F, 0x616BB79817F48653, 0]


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=30), st.integers(0, 5))
def test_text_hash_is_the_reference_even_of_a_slice(values: list[str | None], start: int) -> None:
    array = pa.array(values, TEXT)[start:]

    expected = [0 if v is None else _splitmix(_fnv1a(v.encode())) for v in values[start:]]
    assert hash64(array).tolist() == expected


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30), st.integers(0, 5))
def test_integer_hash_is_the_reference_even_of_a_slice(values: list[int | None], start: int) -> None:
    expected = [0 if v is None else _splitmix(v & MASK) for v in values[start:]]

    assert hash64(pa.array(values, INTEGER)[start:]).tolist() == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([2**24, 2**24 + 1, 2**31, 2**53 + 1, None]), [2**24, 2**24 + 1, 2**31, 2**53 + 1, None]),
        (pa.array([2**24 + 1, 2**53 - 1, None, np.nan, -0.0]), [2**24 + 1, 2**53 - 1, None, None, 0]),
        (pa.array([2**24 - 1, -3, None], pa.float32()), [2**24 - 1, -3, None]),
        (pa.array([2**63, 2**64 - 1, 5], pa.uint64()), [-(2**63), -1, 5]),
        (pa.array([-1, 127], pa.int8()), [-1, 127]),
        (pa.array([True, False, None]), [1, 0, None]),
        (pa.array([decimal.Decimal(12), None], pa.decimal128(20, 2)), [12, None]),
        (pa.nulls(2), [None, None]),
        (pa.array([5, 6, None, 5]).dictionary_encode(), [5, 6, None, 5]),
    ],
)
def test_keys_of_numbers_are_exact(array: pa.Array, expected: list[int | None]) -> None:
    result = keys(array, "x")

    assert result.type == INTEGER
    assert result.to_pylist() == expected


@pytest.mark.parametrize(
    "array",
    [
        pa.array([2.0**24], pa.float32()),  # may have been 2**24 + 1
        pa.array([16777218.0], pa.float32()),
        pa.array([2.0**53]),
        pa.array([1e300]),
        pa.array([np.inf]),
        pa.array([1.5]),
        pa.array(np.array([2048], np.float16)),
        pa.array([decimal.Decimal(2**53 + 1)]),
        pa.array([decimal.Decimal("1.5")]),
    ],
)
def test_keys_refuse_floats_that_may_have_collided(array: pa.Array) -> None:
    with pytest.raises(DataError, match=r"whole numbers or strings[\s\S]*column 'x' holds"):
        keys(array, "x")


def test_keys_of_text() -> None:
    for type_ in (pa.string(), pa.large_string(), pa.string_view()):
        result = keys(pa.array(["a", None, "", "7"], type_), "x")
        assert result.type == TEXT
        assert result.to_pylist() == ["a", None, "", "7"]


def test_keys_across_types() -> None:
    """Types drift between training and scoring: 7, 7.0 and "7" are one id; "007" and "7.0" are not."""
    assert keys(pa.array([7, -7, None]), "x", TEXT).to_pylist() == ["7", "-7", None]
    assert keys(pa.array([7.0, None]), "x", TEXT).to_pylist() == ["7", None]
    same = ["7", "-7", "0", str(2**63 - 1), "1234567890123456789", "-999999999999999999"]
    assert keys(pa.array(same), "x", INTEGER).to_pylist() == [int(v) for v in same]
    other = ["007", "-0", "7.0", " 7", "7\n", "+7", "", "x", str(2**63), "9" * 30, "٧", None]
    assert keys(pa.array(other), "x", INTEGER).to_pylist() == [None] * len(other)


def test_missing_is_null_or_nan_also_behind_a_dictionary() -> None:
    assert missing(pa.array([1.0, None, np.nan])).tolist() == [False, True, True]
    assert missing(pa.array(["a", None])).tolist() == [False, True]
    assert missing(pa.nulls(1)).tolist() == [True]
    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2]), pa.array([1.0, None, np.nan]))
    assert missing(hidden).tolist() == [False, True, True, True]


KINDS = st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.int8(), pa.int64(), pa.uint64()])


@given(KINDS, st.lists(st.none() | st.integers(0, 9), max_size=60), st.integers(0, 9), st.booleans())
def test_distinct_values_and_their_places_are_the_column(
    kind: pa.DataType, rows: list[int | None], start: int, coded: bool
) -> None:
    array = pa.array([None if row is None else str(row) for row in rows], pa.string()).cast(kind)
    coded = coded and kind != pa.string_view()  # of those Arrow cannot take one back out of a dictionary
    array = (array.dictionary_encode() if coded else array).slice(start)

    values, places = distinct(array)

    column = values.to_pylist() if places is None else [values.to_pylist()[place] for place in places]
    assert column == array.to_pylist()
    if places is not None:
        assert 2 * len(values) <= len(array) + 2  # and one for null


@pytest.mark.parametrize("repeats", [1, 2])
def test_distinct_pays_where_values_repeat(repeats: int) -> None:
    for kind in (pa.string(), pa.int32()):
        values, places = distinct(pa.array(list(range(50)) * repeats).cast(kind))
        assert (len(values), places is None) == (50, repeats == 1)
    for other in (pa.array([1.5] * 9), pa.array([True] * 9), pa.array([[1]] * 9), pa.nulls(9)):
        assert distinct(other) == (other, None)


def test_a_dictionary_larger_than_its_rows_is_left_aside() -> None:
    words = pa.array([f"word {i}" for i in range(1000)])
    places = pa.array([7, None, 7, 9, 7, None], pa.int32())

    values, found = distinct(pa.DictionaryArray.from_arrays(places, words))

    assert values.to_pylist() == ["word 7", "word 9", None]
    assert found is not None
    assert found.tolist() == [0, 2, 0, 1, 0, 2]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.uint64()])
def test_places_of_any_type(kind: pa.DataType) -> None:
    words = pa.array([f"word {i}" for i in range(128)])
    places = pa.array([*range(127), 127, None] * 2, kind)

    values, found = distinct(pa.DictionaryArray.from_arrays(places, words))

    assert found is not None
    assert found.tolist() == [*range(128), 128] * 2
    assert values.take(pa.array(found)).to_pylist() == [*words.to_pylist(), None] * 2


def test_numbers() -> None:
    for array in (pa.array([1, None]), pa.array([True, None]), pa.array([1.0, np.nan]), pa.array(["1", None])):
        np.testing.assert_array_equal(numbers(array, "x"), [1, np.nan])
    np.testing.assert_array_equal(numbers(pa.array([2.5, None, 2.5]).dictionary_encode(), "x"), [2.5, np.nan, 2.5])
    np.testing.assert_array_equal(numbers(pa.nulls(1), "x"), [np.nan])
    for bad in (pa.array(["a"]), pa.array([[1]]), pa.array([datetime.date(2026, 1, 1)])):
        with pytest.raises(DataError, match="column 'x' must hold numbers"):
            numbers(bad, "x")


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
def test_tags_are_split_and_trimmed(type_: pa.DataType) -> None:
    array = pa.array(["skipped", " a ,b", "", None, "b,,\tc ", ",", "a b"], type_)[1:]

    assert lists(array, ",").to_pylist() == [["a", "b"], [None], None, ["b", None, "c"], [None, None], ["a b"]]


def test_delimiter_is_no_pattern() -> None:
    assert lists(pa.array(["a.b", "a||b"]), ".").to_pylist() == [["a", "b"], ["a||b"]]
    assert lists(pa.array(["a.b", "a||b"]), "||").to_pylist() == [["a.b"], ["a", "b"]]


def test_lists_stay_lists() -> None:
    assert lists(pa.array([[1], None, []]), ",").to_pylist() == [[1], None, []]
    assert lists(pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), ",").flatten().to_pylist() == [1, 2]
    assert lists(pa.nulls(2), ",").to_pylist() == [None, None]
    assert lists(pa.array(["a,b", "a,b"]).dictionary_encode(), ",").to_pylist() == [["a", "b"]] * 2
    assert list_lengths(pa.array([[1, 2], None, []])).tolist() == [2, 0, 0]


def test_padded_by_hand() -> None:
    ids, lengths = np.array([5, 6, 7, 8, 9, 4]), np.array([3, 0, 2, 1])

    assert padded(ids, lengths, 2, newest_last=False).tolist() == [[5, 6], [0, 0], [8, 9], [4, 0]]
    assert padded(ids, lengths, 2, newest_last=True).tolist() == [[6, 7], [0, 0], [8, 9], [4, 0]]
    assert padded(np.array([0, 6, 0, 8]), np.array([3, 1]), 2, newest_last=False).tolist() == [[6, 0], [8, 0]]
    assert padded(np.zeros(0, np.int32), np.zeros(0, np.int64), 3, newest_last=True).shape == (0, 3)


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=8), st.integers(1, 5), st.booleans())
def test_padded_is_what_a_loop_gives(bags: list[list[int]], width: int, newest_last: bool) -> None:
    ids, lengths = np.array([v for bag in bags for v in bag], np.int32), np.array([len(b) for b in bags], np.int64)

    def row(bag: list[int]) -> list[int]:
        known = [v for v in bag if v]
        kept = known[-width:] if newest_last else known[:width]
        return kept + [0] * (width - len(kept))

    result: Any = padded(ids, lengths, width, newest_last=newest_last)
    assert result.dtype == np.int32
    assert result.tolist() == [row(bag) for bag in bags]
