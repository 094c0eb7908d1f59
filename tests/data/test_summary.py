import numpy as np
import pyarrow as pa
import pytest

from polyrank.data.schema import Feature
from polyrank.data.summary import Column, Summary, feature_values


def column(name, values, kind=None):
    array = pa.array(values, kind)
    seen = Column(name, array.type)
    seen.add(array)
    return seen


def test_counts_range_and_mean_of_numbers_leave_missing_and_infinite_out():
    summary = Summary()
    summary.add(pa.array([1.0, None, 4.0, float("inf")]))
    summary.add(pa.array([1.0, -2.0]))
    assert (summary.rows, summary.missing, summary.values, summary.finite) == (6, 1, 5, 4)
    assert (summary.low, summary.high, summary.total) == (-2.0, 4.0, 4.0)
    assert summary.distinct == 4
    assert summary.top(1) == [(1.0, 2 / 5)]
    assert not summary.whole
    assert summary.mean_length is None


def test_lists_count_values_and_lengths_and_an_empty_list_is_missing():
    feature = Feature("h", "sequence")
    array, lengths = feature_values(feature, pa.array([[1, 2, None], [], None, [2]]))
    assert lengths.tolist() == [2, 0, 0, 1]
    summary = Summary()
    summary.add(array, lengths)
    summary.add(*feature_values(feature, pa.array([[3, 3, 3, 3]])))
    assert (summary.rows, summary.missing, summary.values) == (5, 2, 7)
    assert summary.lengths.tolist() == [2, 1, 1, 0, 1]
    assert summary.mean_length == 7 / 5
    assert summary.top(2) == [(3, 4 / 7), (2, 2 / 7)]


def test_tags_are_split_trimmed_and_empty_ones_are_no_values():
    array, lengths = feature_values(Feature("t", "tags", delimiter="|"), pa.array(["a| b", "", None, "b||c"]))
    assert array.to_pylist() == ["a", "b", None, "b", None, "c"]
    assert lengths.tolist() == [2, 0, 0, 2]


def test_above_the_limit_counting_stops_at_a_lower_bound_and_memory_stays():
    summary = Summary(limit=10)
    summary.add(pa.array([7] * 30))
    assert not summary.capped
    summary.add(pa.array(range(20)))
    summary.add(pa.array(range(100, 200)))
    assert summary.capped
    assert (summary.distinct, summary.counted, summary.values) == (20, 50, 150)
    assert summary.top(1) == [(7, 31 / 50)]
    assert summary.high == 199


def test_the_same_however_the_stream_is_cut():
    values = pa.array([3, 1, None, 3, 2, 2, 3])
    whole, cut = Summary(), Summary()
    whole.add(values)
    for start in range(len(values)):
        cut.add(values.slice(start, 1))
    assert whole.top() == cut.top() == [(3, 0.5), (2, 2 / 6), (1, 1 / 6)]


def test_a_column_of_nulls_has_no_top():
    summary = Summary()
    summary.add(pa.nulls(3, pa.int64()))
    assert (summary.missing, summary.distinct, summary.top()) == (3, 0, [])


@pytest.mark.parametrize(
    "name", ["is_click", "long_view", "liked", "add_to_cart", "isPurchased", "label_skipped", "bought"]
)
def test_feedback_by_name(name):
    assert Column(name, pa.int64()).says_feedback


@pytest.mark.parametrize(
    "name",
    ["is_video_author", "is_live_streamer", "is_lowactive_period", "last_click", "ever_bought", "ctr", "viewer_age"],
)
def test_no_feedback_by_name(name):
    assert not Column(name, pa.int64()).says_feedback


AMOUNTS = ["play_time_ms", "comment_stay_time", "watch_ratio", "gmv", "rating"]
FEATURES = ["avg_rating", "rating_count", "prev_amount", "upload_time", "playlist"]


@pytest.mark.parametrize(("name", "expected"), [(n, True) for n in AMOUNTS] + [(n, False) for n in FEATURES])
def test_amounts_by_name(name, expected):
    assert Column(name, pa.float64()).says_amount is expected


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1_650_000_000, 1_650_000_100], None, True),
        ([1_650_000_000_000], None, True),
        ([1_650_000_000.0, None], None, True),
        ([0, 1_650_000_000], None, False),
        ([20_220_424], None, False),
        (["2022-04-24"], None, False),
        ([0], pa.timestamp("ms"), True),
    ],
)
def test_moments(values, kind, expected):
    seen = Column("t", kind) if kind else column("t", values)
    assert seen.moment is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["2022-04-24", None], True), ([20_220_424], True), (["20220424"], True), ([7], False), (["2022-44-99"], False)],
)
def test_dates(values, expected):
    assert column("d", values).date is expected


def test_a_row_key_is_named_so_counts_rows_or_is_drawn_from_a_vast_range():
    generator = np.random.default_rng(0)
    measured = generator.permutation(1_000_000)[:2000]
    assert not column("fans", measured).row_key
    assert column("fan_id", measured).row_key
    assert column("n", np.arange(2000)).row_key
    assert column("n", generator.integers(0, 2**62, 2000)).row_key
    assert column("text", [f"x{i}" for i in range(2000)]).row_key
    assert not column("text", [f"x{i}" for i in range(1000)]).row_key  # too few rows to say
    assert not column("price", generator.random(2000)).row_key


def test_whole_floats_are_exact_only_up_to_their_type():
    assert column("x", [1.0, None, 3.0]).whole
    assert not column("x", [1.5]).whole
    assert not column("x", [float("inf")]).whole
    assert not column("x", [2.0**25], pa.float32()).whole
    assert column("x", [2.0**25]).whole


def test_an_hour_is_a_place_in_the_calendar_and_a_wage_per_hour_is_not():
    assert column("hour", range(24)).calendar
    assert column("order_hour_of_day", range(24)).calendar
    assert not column("wage_per_hour", range(24)).calendar
    assert not column("hour", [100]).calendar


def test_facts_are_one_safe_line():
    seen = column("x", ["a\nb\x00", "a\nb\x00", "", None])
    assert seen.facts() == r"string, 2 distinct, 25.0% missing, e.g. 'a\nb\x00'"
