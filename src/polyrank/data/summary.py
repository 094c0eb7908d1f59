"""What one pass sees of a column: counts, range, list lengths; and what its name and its values together say it is."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.data.columns import TEXT, keys, list_lengths, lists, numbers
from polyrank.data.fitting import ValueCounts
from polyrank.data.layout import FeatureKind
from polyrank.data.schema import Feature

DISTINCT_LIMIT = 2_000_000
_ROW_KEY_SHARE, _ROW_KEY_ROWS = 0.95, 1_000  # more distinct values than so: each row has its own
_TOP = 5


class Summary:
    """Counts, range, mean and list lengths of one column, in one pass.

    Memory grows with the distinct values up to `limit`; then counting stops, `capped` is set, and what was counted so
    far stays: a lower bound of the distinct values, and the most frequent ones of the first rows.

    Attributes:
        rows: rows seen; `missing`: those that are null (NaN), or a list without values.
        values: values that are not null; `counted`: those of them in the table of counts.
        low: the smallest finite number; `high`: the largest; `total`: their sum; `finite`: how many they are.
        whole: every number is finite and whole.
        lengths: `[L]` rows with a list of l values, empty where the column is not a list.
        capped: there are more than `limit` distinct values.
    """

    def __init__(self, limit: int = DISTINCT_LIMIT) -> None:
        self.rows = self.missing = self.values = self.counted = self.finite = 0
        self.low, self.high, self.total = np.inf, -np.inf, 0.0
        self.whole = True
        self.lengths = np.zeros(0, np.int64)
        self.capped = False
        self._limit, self._bound = limit, 0
        self._counts = ValueCounts()
        self._table: pa.Table | None = None

    def add(self, array: pa.Array, lengths: np.ndarray | None = None) -> None:
        """Take a chunk in.

        Args:
            array: int64, float64 or large_string, null where missing; for lists the values of one list after the other.
            lengths: for lists: how many values each row has that are not null.
        """
        present = array.drop_null()
        self.rows += len(array) if lengths is None else len(lengths)
        self.values += len(present)
        if lengths is None:
            self.missing += array.null_count
        else:
            self.missing += int((lengths == 0).sum())
            seen = np.bincount(lengths, minlength=len(self.lengths))
            seen[: len(self.lengths)] += self.lengths
            self.lengths = seen
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            self._add_range(present.to_numpy(zero_copy_only=False))
        if not self.capped:
            self._count(present)

    def _add_range(self, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        self.whole &= len(finite) == len(values) and bool((np.floor(finite) == finite).all())
        self.finite += len(finite)
        if len(finite):
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
            self.total += float(finite.sum(dtype=np.float64))

    def _count(self, present: pa.Array) -> None:
        self._counts.add(present)
        self._table = None
        self.counted += len(present)
        # Each value might be new; only when so many might be too many are the distinct ones really counted.
        self._bound += len(present)
        if self._bound > self._limit:
            self._bound = self.distinct
            self.capped = self._bound > self._limit

    @property
    def table(self) -> pa.Table:
        """Columns `value` and `count`, in no particular order."""
        if self._table is None:
            self._table = self._counts.table()
        return self._table

    @property
    def distinct(self) -> int:
        """Distinct values, null not among them; a lower bound if `capped`."""
        return int(self.table.num_rows)

    @property
    def mean_length(self) -> float | None:
        """Mean number of values in a list, lists without values among them; None for other columns."""
        if not len(self.lengths):
            return None
        return float(self.lengths @ np.arange(len(self.lengths)) / self.lengths.sum())

    @property
    def row_key(self) -> bool:
        """Nearly every row has its own value."""
        return self.counted > _ROW_KEY_ROWS and self.distinct > _ROW_KEY_SHARE * self.counted

    def top(self, k: int = _TOP) -> list[tuple[Any, float]]:
        """The k most frequent values and their shares of the values counted; of equal ones the smaller first."""
        if not self.distinct:
            return []
        order = [("count", "descending"), ("value", "ascending")]
        first = self.table.take(pc.select_k_unstable(self.table, k=min(k, self.distinct), sort_keys=order))
        pairs = zip(first["value"].to_pylist(), first["count"].to_pylist(), strict=True)
        return [(value, count / self.counted) for value, count in pairs]


def feature_values(
    feature: Feature, array: pa.Array, key_type: pa.DataType | None = None
) -> tuple[pa.Array, np.ndarray | None]:
    """A feature's values as a `Summary` takes them: numbers as float64, else keys; lists flattened, with lengths."""
    if feature.kind == "number":
        return pa.array(numbers(array, feature.source), from_pandas=True), None
    if feature.kind not in ("tags", "sequence"):
        return keys(array, feature.source, key_type), None
    bags = lists(array, feature.delimiter)
    flat = bags.flatten()
    rows = np.repeat(np.arange(len(bags)), list_lengths(bags))
    present = flat.is_valid().to_numpy(zero_copy_only=False)
    return keys(flat, feature.source, key_type), np.bincount(rows[present], minlength=len(bags))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VERBS = """click view like follow comment forward share hate dislike report finish complete cart buy purchase order pay
convert install collect favorite favourite save subscribe enter skip label target visit return play watch download reply
retweet repost engage react checkout bounce unfollow block response outcome churn upvote"""
_ENDINGS = ("", "s", "es", "d", "ed")
_DOUBLED = [verb + verb[-1] + "ed" for verb in _words(_VERBS)]  # skip → skipped
_FEEDBACK = frozenset([verb + ending for verb in _words(_VERBS) for ending in _ENDINGS] + _DOUBLED) | _words(
    "bought paid conversion conversions engagement"
)
_PAST = _words("prev previous last past hist history before ever recent avg mean num cnt count rate per")
_AMOUNT = re.compile(
    r"(^|_)((play|watch|stay|view|listen|read|viewing|watching)_?(time|duration|seconds|secs?|ms|ratio)|dwell|revenue|gmv"
    r"|spend|spent|amount|ratings?|label|target|outcome)(_|$)"
)
_DURATION = _words("time duration seconds secs sec ms dwell")
_WEIGHT = re.compile(r"(^|_)((instance|sample|row|example|case|record|survey)_?weights?|propensity|pscore)(_|$)")
_PASSING = _words("request session impression log trace search exposure")
_CLOCK = _words(
    """time timestamp ts datetime date dt day ds p pt event log request server impression expose exposure local unix
    epoch utc ms us ns s sec seconds partition at created show"""
)
_TIMES = _words("time timestamp ts datetime date dt epoch unixtime at")
_ORIGIN = _words("upload publish release register registration birth signup join install update modified")
_CALENDAR = re.compile(r"(^|_)(hour|weekday|dow|month|quarter|hour_of_day|day_of_week|day_of_month)$")
_HISTORY = _words(
    """history hist seq sequence recent last past watched viewed liked clicked bought visited purchased played listened
    read followed shared commented collected ordered finished rated"""
)
_NOMINAL = _words(
    """uid iid vid pid aid sid user item video author product sku ad creative campaign advertiser merchant seller shop
    store brand category cat artist track song album movie channel publisher device query keyword city region country
    province zip zipcode postcode code type music poi article news topic tag cluster class tab genre hash key uuid guid
    index row"""
)
_SECONDS = (631_152_000, 4_102_444_800)  # 1990 to 2100
_ISO_DATE = r"^(19|20)[0-9]{2}[-/]?[01][0-9][-/]?[0-3][0-9]$"


@dataclass
class Column:
    """A column under observation.

    Attributes:
        name: its name; `type`: its Arrow type (of a dictionary: that of its values).
        summary: what has been seen of its values.
    """

    name: str
    type: pa.DataType
    summary: Summary = field(default_factory=Summary)

    # What the name says, read as tokens: "is_profile_enter" → is, profile, enter.

    @property
    def tokens(self) -> list[str]:
        """The words of its name."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name)
        return [token for token in re.split(r"[^a-z0-9]+", spaced.lower()) if token]

    @property
    def plain(self) -> str:
        """Its name in snake case."""
        return "_".join(self.tokens)

    @property
    def says_feedback(self) -> bool:
        """Something a user does now: click, bought; not a statistic of what was done before."""
        return bool(_FEEDBACK & set(self.tokens)) and not _PAST & set(self.tokens)

    @property
    def says_amount(self) -> bool:
        """An outcome that is measured: play_time, revenue, rating."""
        return bool(_AMOUNT.search(self.plain)) and not _PAST & set(self.tokens)

    @property
    def says_duration(self) -> bool:
        """An outcome that is a time: play_time_ms, dwell."""
        return self.says_amount and bool(_DURATION & set(self.tokens))

    @property
    def says_weight(self) -> bool:
        """A weight of the row, or the probability with which it was logged."""
        return bool(_WEIGHT.search(self.plain))

    @property
    def says_id(self) -> bool:
        """The last word is id."""
        return self.tokens[-1:] in (["id"], ["ids"])

    @property
    def says_name(self) -> bool:
        """Values are names, not amounts, even where they are numbers."""
        return self.says_id or bool(_NOMINAL & set(self.tokens[-1:])) or "onehot" in self.tokens

    @property
    def says_passing(self) -> bool:
        """An id of something that does not come again: a request, a session."""
        return self.says_id and bool(_PASSING & set(self.tokens))

    @property
    def says_history(self) -> bool:
        """What a user did before."""
        return bool(_HISTORY & set(self.tokens))

    @property
    def says_time(self) -> bool:
        """A time that is not the origin of something (an upload, a registration)."""
        return bool(_TIMES & set(self.tokens)) and not _ORIGIN & set(self.tokens)

    @property
    def says_clock(self) -> bool:
        """Nothing but time."""
        return bool(self.tokens) and _CLOCK.issuperset(self.tokens)

    # What the values say.

    @property
    def listed(self) -> bool:
        """Lists."""
        kind = self.type
        return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))

    @property
    def textual(self) -> bool:
        """Strings."""
        return bool(pa.types.is_string(self.type) or pa.types.is_large_string(self.type))

    @property
    def floating(self) -> bool:
        """Floats or decimals."""
        return bool(pa.types.is_floating(self.type) or pa.types.is_decimal(self.type))

    @property
    def numeric(self) -> bool:
        """Numbers or booleans, at least one of them finite."""
        return not self.textual and not self.listed and self.summary.finite > 0

    @property
    def readable(self) -> bool:
        """Whether some kind of feature takes it."""
        inner = self.type.value_type if self.listed else self.type
        named = pa.types.is_integer(inner) or pa.types.is_string(inner) or pa.types.is_large_string(inner)
        return bool(named or pa.types.is_null(inner) or self.floating or pa.types.is_boolean(self.type))

    @property
    def whole(self) -> bool:
        """Numbers, each of them whole and exact in its type."""
        s, exact = self.summary, 2.0**24 if self.type == pa.float32() else 2.0**53
        return self.numeric and (not self.floating or (s.whole and max(-s.low, s.high) <= exact))

    @property
    def zero_one(self) -> bool:
        """Numbers or booleans, 0 and 1 only."""
        s = self.summary
        return self.numeric and s.whole and s.low >= 0 and s.high <= 1

    @property
    def row_key(self) -> bool:
        """Nearly every row has its own value, which names it.

        A measured whole number may be as diverse; a key is named so, counts the rows, or is drawn from a vast range.
        """
        s = self.summary
        if not s.row_key or self.listed or not (self.textual or self.whole):
            return False
        return self.textual or self.says_name or s.high - s.low < 2 * s.distinct or s.high - s.low > 2.0**31

    @property
    def moment(self) -> bool:
        """A timestamp type, or numbers that are seconds, ms, µs or ns since 1970."""
        s, scales = self.summary, (1, 10**3, 10**6, 10**9)
        since = any(_SECONDS[0] <= s.low / scale and s.high / scale <= _SECONDS[1] for scale in scales)
        return bool(pa.types.is_timestamp(self.type) or (self.numeric and since))

    @property
    def date(self) -> bool:
        """A date type, or days as "2024-05-31", "20240531", 20240531."""
        if pa.types.is_date(self.type):
            return True
        s = self.summary
        eight = self.whole and s.low >= 19_000_101 and s.high <= 20_991_231
        if not s.distinct or not (self.textual or eight):
            return False
        return bool(pc.all(pc.match_substring_regex(keys(self.values, self.name, TEXT), _ISO_DATE)).as_py())

    @property
    def calendar(self) -> bool:
        """A place in the calendar: the hour, the day of the week."""
        s = self.summary
        named = _CALENDAR.search(self.plain) and not _PAST & set(self.tokens)
        return bool(named and self.whole and s.low >= 0 and s.high <= 31)

    @property
    def values(self) -> pa.Array:
        """Distinct values, null not among them."""
        return pa.concat_arrays(self.summary.table["value"].chunks or [pa.array([], self.summary.table["value"].type)])

    def add(self, array: pa.Array) -> None:
        """Take a chunk in: floats as they are, all else as keys."""
        kind: FeatureKind = "tags" if self.listed else "number" if self.floating else "category"
        self.summary.add(*feature_values(Feature(self.name, kind), array))

    def facts(self) -> str:
        """Type, distinct values, missing share, an example; safe in a comment."""
        s = self.summary
        example = next((repr(value)[:40] for value, _ in s.top(2) if value != ""), "")
        missing = f"{s.missing / s.rows:.1%} {'empty' if self.listed else 'missing'}"
        parts = [str(self.type), f"{'≥ ' if s.capped else ''}{s.distinct:,} distinct", missing]
        return ", ".join([*parts, f"e.g. {example}"] if example else parts)
