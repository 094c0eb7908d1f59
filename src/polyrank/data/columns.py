"""Arrow columns → keys, hashes, numbers, padded lists; all vectorised, nothing boxed in Python."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.errors import DataError

INTEGER, TEXT = pa.int64(), pa.large_string()
_PROBE, _REPEATS = 4_096, 2  # a column repeats if, in its first rows, a value has two rows on average
# Below these, whole numbers are exact; at them, a number may already be its rounded neighbour.
_EXACT_BELOW = {pa.float16(): 2.0**11, pa.float32(): 2.0**24, pa.float64(): 2.0**53}


def keys(array: pa.Array, column: str, key_type: pa.DataType | None = None) -> pa.Array:
    """A column's values as `int64` or `large_string`, the two types that ids are looked up in.

    Integers of any width become int64 (uint64 wraps around, which is one-to-one), booleans 0 and 1. Floats are accepted
    where each is a whole number small enough to be exact, as ids with nulls often arrive from data frames.

    Args:
        array: integers, floats, booleans, strings, or a dictionary of those.
        column: its name, for messages.
        key_type: INTEGER or TEXT to convert into; None keeps the natural one. A text that is no integer becomes null.

    Raises:
        DataError: a float that is not whole, or so large that different ids have already collided.
    """
    array = plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        return array.cast(key_type or INTEGER)
    if pa.types.is_floating(kind):
        array = _whole(array, column)
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        array = array.cast(INTEGER, safe=False)
    elif pa.types.is_decimal(kind):
        array = _whole(array.cast(pa.float64()), column)
    else:
        array = array.cast(TEXT)
    if key_type is None or array.type == key_type:
        return array
    if key_type == TEXT:
        return array.cast(TEXT)
    # Only as an integer is written: "007" is not 7. Of 19 digits, the order of texts is the order of numbers.
    short = pc.match_substring_regex(array, r"^(0|-?[1-9][0-9]{0,17})$")
    long = pc.and_(
        pc.match_substring_regex(array, r"^[1-9][0-9]{18}$"), pc.less_equal(array, pa.scalar(str(2**63 - 1), TEXT))
    )
    return pc.if_else(pc.or_(short, long), array, pa.scalar(None, TEXT)).cast(INTEGER)


def plain(array: pa.Array) -> pa.Array:
    """A dictionary-encoded column as its values, any other as it is."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def distinct(array: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """The different values of texts or integers, null included, and each row's place among them.

    What is done with every row can then be done with every value. Where that promises no gain, as most rows have a
    value of their own, and for other types: the column as it is, and no places.
    """
    if not (_is_coded(array) and _REPEATS * len(array.dictionary) <= len(array)):
        array = plain(array)  # a dictionary that came with the column may hold more than its rows do
        if not (is_text(array.type) or pa.types.is_integer(array.type)):
            return array, None
        probe = array.slice(0, _PROBE)
        if _REPEATS * len(probe.unique()) > len(probe):
            return array, None
        array = array.dictionary_encode()
    values, places = array.dictionary, array.indices.cast(pa.int32())
    if places.null_count:
        places = places.fill_null(len(values))
        values = pa.concat_arrays([values, pa.nulls(1, values.type)])
    return values, places.to_numpy()


def missing(array: pa.Array) -> np.ndarray:
    """`[n]` bool: null or NaN."""
    return np.asarray(pc.is_null(plain(array), nan_is_null=True), bool)


def hash64(array: pa.Array) -> np.ndarray:
    """A 64-bit hash of each key, the same on every machine and in every run; null hashes to 0.

    Integers go through the finaliser of SplitMix64 (Steele, Lea & Flood 2014), which is one-to-one; strings through
    FNV-1a over their bytes and then the same finaliser.
    """
    if array.type == INTEGER:
        values = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    else:
        values = _fnv1a(array.fill_null(""))
    mixed = _splitmix(values)
    if array.null_count:
        mixed[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return mixed


def numbers(array: pa.Array, column: str) -> np.ndarray:
    """A numeric column as float64; null becomes NaN.

    Raises:
        DataError: the column is not numeric.
    """
    try:
        result: np.ndarray = plain(array).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        received = f"{array.type}: {error}"
        raise DataError(f"column {column!r} must hold numbers", received=received, mend="clean it") from error
    return result


def lists(array: pa.Array, delimiter: str) -> pa.Array:
    """A list column as it is; a string column split at `delimiter`, blanks around each tag removed, empty tags null."""
    array = plain(array)
    if pa.types.is_null(array.type):
        return array.cast(pa.large_list(INTEGER))
    if pa.types.is_fixed_size_list(array.type):
        return array.cast(pa.large_list(array.type.value_type))
    if not is_text(array.type):
        return array
    parts = pc.split_pattern(array.cast(TEXT), delimiter)
    flat = pc.utf8_trim_whitespace(parts.values)
    flat = pc.if_else(pc.equal(flat, ""), pa.scalar(None, TEXT), flat)
    return pa.LargeListArray.from_arrays(parts.offsets.cast(pa.int64()), flat, mask=parts.is_null())


def padded(ids: np.ndarray, lengths: np.ndarray, width: int, *, newest_last: bool) -> np.ndarray:
    """Lay the values of lists into a matrix, left-aligned, 0 where a list has ended.

    Args:
        ids: the values of all lists, one list after the other; a 0 (null) is left out, so that it takes no place.
        lengths: `[B]` values in each list.
        width: columns of the result; a longer list keeps its first values, or its last ones if `newest_last`.
        newest_last: which end of a list that is too long is kept.

    Returns:
        `[B, width]` int32.
    """
    known = ids != 0
    lengths = np.bincount(np.repeat(np.arange(len(lengths)), lengths)[known], minlength=len(lengths))
    ids = ids[known]
    taken = np.minimum(lengths, width)
    ends = np.cumsum(lengths)
    begins = ends - taken if newest_last else ends - lengths
    rows = np.repeat(np.arange(len(lengths)), taken)
    places = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    result = np.zeros((len(lengths), width), np.int32)
    result[rows, places] = ids[np.repeat(begins, taken) + places]
    return result


def list_lengths(array: pa.Array) -> np.ndarray:
    """Values in each list; a null list has none."""
    lengths: np.ndarray = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def buffers(array: pa.Array) -> Iterator[bytes | memoryview]:
    """What an array of INTEGER or TEXT without nulls holds, for digests: equal arrays give equal bytes."""
    yield f"{array.type} {len(array)}".encode()
    if array.type == INTEGER:
        yield array.to_numpy().data
    elif len(array):
        offsets, data = _text(array)
        yield (offsets - offsets[0]).data
        yield data[offsets[0] : offsets[-1]].data


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_coded(array: pa.Array) -> bool:
    return pa.types.is_dictionary(array.type) and is_text(array.type.value_type)


def _whole(array: pa.Array, column: str) -> pa.Array:
    values = array.to_numpy(zero_copy_only=False)
    limit = _EXACT_BELOW[array.type]
    known = ~np.isnan(values)
    wrong = known & ((np.abs(values) >= limit) | (np.floor(values) != values))
    if wrong.any():
        raise DataError(
            f"ids and categories must be whole numbers or strings; {array.type} is exact below {limit:,.0f}",
            received=f"column {column!r} holds {values[wrong][0]:,}",
            mend="store ids as int64 or strings, or declare the feature as kind = 'number'",
        )
    return pa.array(np.where(known, values, 0).astype(np.int64), mask=~known)


def _text(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A TEXT array's offsets `[n + 1]` into its bytes, and these bytes (of all the array that it may be a slice of)."""
    _, offsets, data = array.buffers()
    within = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return within, np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)


def _fnv1a(array: pa.Array) -> np.ndarray:
    """FNV-1a over each string's bytes: one vectorised pass per byte position, over the strings that are that long."""
    offsets, data = _text(array)
    starts, lengths = offsets[:-1], np.diff(offsets)
    result = np.full(len(array), 0xCBF29CE484222325, np.uint64)
    active = np.flatnonzero(lengths > 0)
    position = 0
    while len(active):
        byte = data[starts[active] + position].astype(np.uint64)
        result[active] = (result[active] ^ byte) * np.uint64(0x100000001B3)
        position += 1
        active = active[lengths[active] > position]
    return result


def _splitmix(values: np.ndarray) -> np.ndarray:
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
