"""Any table → the text of a commented `schema.toml`: a proposal that loads as it stands, for a person to edit."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import tomlkit

from polyrank.data.columns import keys, list_lengths, lists, numbers
from polyrank.data.readers import Source
from polyrank.data.summary import Column, Summary
from polyrank.errors import DataError
from polyrank.progress import Progress, Silent

_FEW, _MANY, _HUGE = 20, 1_000, 1_000_000  # distinct values: a category even if whole numbers · an id · to be hashed
_FEW_ROWS = 20  # with fewer rows, a constant says nothing
_LONGEST, _SHARED, _TAGGED = (
    50,
    0.5,
    0.05,
)  # values kept of a list · of its values, known to an id · texts with a delimiter
_NESTED, _NESTED_POSITIVES, _HIGHER = 0.99, 20, 1.2

_FEW_ROWS_VERDICT = 50
_VERDICTS = frozenset({"income", "label", "target", "class", "outcome", "response"})  # of a text with two values
_YES = frozenset({"1", "yes", "y", "true", "t"})
_GROUPS = ("user_id", "uid", "user", "member_id", "customer_id", "session_id", "request_id")

_HEADER = """schema.toml proposed by `polyrank data infer` from {source}
({rows}). A guess: check it before training.
  kind    id (many values) · category (few) · number · tags (an unordered bag) · sequence (a list of ids, newest last)
  given   a task with given = "click" lives on the rows with click = 1 only: purchases are asked of clicks, say
  labels  null means that the label is missing: the row trains the other tasks; 0 means that the user did not do it
  leaks   a feature must be known when the ranking is made; a column that comes from the outcome is none"""


_Table = tuple[dict[str, Any], list[str]]  # a TOML table, and the comments below it


@dataclass
class _Proposal:
    """The file in the making.

    Attributes:
        tasks: outcomes that are tasks; `maybe`: those that the user is to confirm, written as comments.
        left_out: columns that are neither, and why.
    """

    group: str = ""
    time: str = ""
    tasks: list[_Table] = field(default_factory=list)
    maybe: list[_Table] = field(default_factory=list)
    features: list[_Table] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def infer_schema(source: Source, progress: Progress | None = None, sample_rows: int = 500_000) -> str:
    """Propose a schema for a table, from its columns' names, types and values.

    One pass over the first rows. Outcomes (feedback labels, watch times, amounts, row weights) are recognised by name
    and never become features; ids, categories, numbers, tags and sequences by type, name and number of distinct values.
    Each table says in a comment what was seen and why it was read so; columns left out are listed with the reason.

    Args:
        source: the table.
        progress: where to report.
        sample_rows: how many rows are looked at, at most.

    Returns:
        TOML that `load_schema` accepts, if at least one task and one feature were found; otherwise the first lines say
        what is to be done.

    Raises:
        DataError: a file is damaged.
    """
    # Counting the rows of Parquet is free, of CSV a pass over the file.
    total = None if isinstance(getattr(source.dataset, "format", None), ds.CsvFileFormat) else source.count_rows()
    columns, nesting, rows = _observe(source, progress or Silent(), sample_rows, total)
    if total is None:
        total = rows if rows < sample_rows else source.count_rows()
    time = _time(columns)
    proposal = _Proposal(group=_group(columns), time=time.name if time else "")
    # Lists come last: they may share the vocabulary of an id that was found before.
    for column in sorted(columns, key=lambda column: column.listed):
        if not (column is time or _outcome(column, proposal, rows) or _left_out(column, proposal, rows, total)):
            _add_feature(column, columns, proposal, total / rows)
    for table, notes in proposal.tasks:
        notes += nesting.notes(table, proposal.tasks)
    seen = f"all {rows:,} rows" if rows == total else f"the first {rows:,} of {total:,} rows"
    return _write(proposal, _HEADER.format(source=repr(source.name)[1:-1], rows=seen))


class _Nesting:
    """How often one 0/1 outcome is 1 where another is 1."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._both, self._ones = np.zeros((2, len(names), len(names)))

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a chunk."""
        if self.names:
            values = np.stack([numbers(batch.column(name), name) for name in self.names], axis=1)
            one, known = (values == 1).astype(np.float64), (~np.isnan(values)).astype(np.float64)
            self._both += one.T @ one
            self._ones += one.T @ known

    def notes(self, table: Mapping[str, Any], tasks: Sequence[_Table]) -> list[str]:
        """A `given` line for a task whose positives are nearly all positives of a commoner one: of the rarest such."""
        column = table.get("column", table["name"])
        if column not in self.names or "positive" in table:
            return []
        child, found = self.names.index(column), []
        for other, _ in tasks:
            name = other.get("column", other["name"])
            if name in self.names and name != column and "positive" not in other:
                parent = self.names.index(name)
                asked, both = self._ones[child, parent], self._both[child, parent]
                commoner = self._ones[parent, child] >= _HIGHER * asked
                if asked >= _NESTED_POSITIVES and both >= _NESTED * asked and commoner:
                    share = f"{both / asked:.1%} of its positives have {other['name']!r} = 1"
                    line = f"{tomlkit.dumps({'given': other['name']}).strip()}   # {share}: its sample space?"
                    found.append((self._ones[parent, parent], line))
        return [min(found)[1]] if found else []


def _observe(
    source: Source, progress: Progress, sample_rows: int, total: int | None
) -> tuple[list[Column], _Nesting, int]:
    """One pass over the first rows."""
    columns = [Column(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in source.schema]
    for column in columns:
        if column.floating and not column.says_name:
            column.summary = Summary(_MANY)  # with more values than so it is a number: no need to keep them all
    read = [column for column in columns if column.readable]
    feedback = [c.name for c in read if c.says_feedback and not c.listed and not c.textual]
    nesting, rows = _Nesting(feedback), 0
    with progress.bar(f"reading {source.name}", min(total or sample_rows, sample_rows)) as bar:
        for chunk in source.batches([column.name for column in read]):
            batch = chunk.slice(0, sample_rows - rows)
            rows += batch.num_rows
            for column in read:
                column.add(batch.column(column.name))
            nesting.add(batch)
            bar.advance(batch.num_rows)
            if rows >= sample_rows:
                break
    if not rows:
        raise DataError("data must hold at least one row and a column of numbers, texts or lists", received=source.name)
    return columns, nesting, rows


def _group(columns: Sequence[Column]) -> str:
    """The user, or what comes nearest to one."""
    named = {column.plain: column.name for column in columns if column.summary.values and not column.row_key}
    return next((named[name] for name in _GROUPS if name in named), "")


def _time(columns: Sequence[Column]) -> Column | None:
    """The clock: moments before days, a name that says nothing but time before others."""
    found = []
    for place, column in enumerate(columns):
        day = column.date and column.says_clock and not column.textual
        if column.says_time and (column.moment or day):
            found.append((not column.moment, not column.says_clock, place))
    return columns[min(found)[2]] if found else None


def _outcome(column: Column, proposal: _Proposal, rows: int) -> bool:
    """Put an outcome where it belongs: a task, a task to be confirmed, a row weight. False for all other columns."""
    s = column.summary
    table, note = _task(column, proposal), column.facts() if s.rows else ""
    number = column.numeric and not column.says_name
    verdict = column.says_feedback or bool(_VERDICTS & set(column.tokens))
    if number and column.says_weight:
        shown = tomlkit.item(column.name).as_string()
        proposal.left_out[column.name] = f"a row weight; set weight = {shown} on the tasks that it is for"
    elif column.zero_one and column.says_feedback:
        note += f", {s.total / s.finite:.2%} positive: feedback by its name"
        if s.low == s.high and rows >= _FEW_ROWS:
            proposal.maybe.append((table | {"kind": "binary"}, [f"{note}, but every label seen is {s.low:g}"]))
        else:
            proposal.tasks.append((table | {"kind": "binary"}, [note]))
    elif number and column.says_amount:
        kind = "duration" if column.says_duration and s.low >= 0 else "regression"
        proposal.maybe.append((table | {"kind": kind}, [f"{note}: an outcome, therefore not a feature"]))
    elif number and column.says_feedback and column.whole and s.low >= 0:
        why = "whole numbers from 0 up, of feedback by their name, therefore not a feature"
        proposal.maybe.append((table | {"kind": "count"}, [f"{note}: {why}"]))
    elif column.textual and s.distinct == 2 and rows > _FEW_ROWS_VERDICT and verdict:
        values = [value for value, _ in s.top(2)]
        yes = [value for value in values if value.strip().lower() in _YES]
        table |= {"kind": "binary", "positive": yes[0] if yes else values[1]}
        sure = len(yes) == 1 and column.says_feedback
        why = "feedback by its name" if sure else "a label by its name; positive is the rarer of its two values"
        (proposal.tasks if sure else proposal.maybe).append((table, [f"{note}: {why}"]))
    else:
        return False
    return True


def _task(column: Column, proposal: _Proposal) -> dict[str, Any]:
    """Name and column of a task: is_click is the task click; a name is unique, and one for files."""
    tokens = column.tokens
    while len(tokens) > 1 and tokens[0] in ("is", "has", "label"):
        tokens = tokens[1:]
    used = {table["name"] for table, _ in proposal.tasks + proposal.maybe}
    name = "_".join(tokens)
    if name in used or name == column.plain:
        name = re.sub(r"[^\w.-]+", "_", column.name).lstrip(".") or "task"
    numbered = (f"{name}_{number}" for number in count(2))
    while name in used:
        name = next(numbered)
    return {"name": name} if name == column.name else {"name": name, "column": column.name}


def _left_out(column: Column, proposal: _Proposal, rows: int, total: int) -> bool:
    """Note why a column is no feature; False if it may be one."""
    s, reason = column.summary, ""
    seen = "" if rows == total else " in the rows looked at"
    if not column.name:
        reason = "a column without a name"
    elif column.says_clock and (column.date or column.moment):
        reason = "a copy of the clock: its values do not come again"
    elif pa.types.is_temporal(column.type):
        reason = f"{column.type}: derive a number (an age) or a category (the hour) from it"
    elif not column.readable:
        reason = f"{column.type}: no kind of feature takes it"
    elif not s.values:
        reason = f"no value{seen}"
    elif s.distinct == 1 and not s.missing and rows >= _FEW_ROWS:
        reason = f"constant{seen}: {str(s.top(1)[0][0])[:40]!r}"
    elif column.says_passing:
        reason = "it names what does not come again (a request, a session): nothing learned on it carries over"
    elif column.row_key:
        reason = f"a row key: {s.distinct:,} distinct values on {s.values:,} rows"
    elif column.says_id and column.numeric and not column.whole:
        reason = f"ids in {column.type} have collided, or are no whole numbers: store them as int64 or strings"
    if reason:
        proposal.left_out[column.name] = " ".join(reason.split())
    return bool(reason)


def _add_feature(column: Column, columns: Sequence[Column], proposal: _Proposal, scale: float) -> None:
    """Decide the kind, and say why."""
    s, distinct = column.summary, column.summary.distinct
    options: dict[str, Any] = {}
    ids = {table["name"] for table, _ in proposal.features if table["kind"] == "id"}
    if column.listed:
        kind, why, options = _list_kind(column, [c for c in columns if c.name in ids])
    elif delimiter := _delimiter(column):
        lengths = np.repeat(list_lengths(lists(column.values, delimiter)), s.table["count"].to_numpy())
        options = {"delimiter": delimiter} if delimiter != "," else {}
        options["max_length"] = max(int(np.quantile(lengths, 0.99, method="higher")), 1)
        kind, why = "tags", f"texts joined by {delimiter!r}; max_length holds 99 % of them"
    elif column.says_id and (column.textual or column.whole):
        kind, why = "id", "an id by its name"
    elif column.textual or (column.whole and column.says_name):
        what = "texts" if column.textual else "names, says the column's name"
        kind, why = ("category", f"{what}, few") if distinct <= _MANY else ("id", f"{what}, many")
    elif pa.types.is_boolean(column.type):
        kind, why = "category", "yes or no"
    elif column.calendar:
        kind, why = "category", "a place in the calendar"
    elif column.whole and distinct <= _FEW:
        kind, why = "category", "few whole values"
    else:
        kind, why = "number", "many values, and no id by its name" if column.whole else "not whole"
    if s.distinct == 1 and s.missing:
        why += "; it tells only whether there is a value"
    notes = [f"{column.facts()}: {why}"]
    expected = _expected(s, scale)
    if kind == "id" and expected > _HUGE:
        buckets = 2 ** math.ceil(math.log2(expected))
        notes.append(f"hash_buckets = {buckets}   # about {expected:,.0f} ids in all rows; hashing bounds the memory")
    proposal.features.append(({"name": column.name, "kind": kind} | options, notes))


def _list_kind(column: Column, ids: Sequence[Column]) -> tuple[str, str, dict[str, Any]]:
    """Sequence or tags, whose vocabulary it shares, and how long it is."""
    past, longest = column.says_history, len(column.summary.lengths) - 1
    options: dict[str, Any] = {"max_length": min(_LONGEST, max(5 * math.ceil(longest / 5), 5))}
    why = f"lists of up to {longest}; " + ("a history by its name" if past else "no history by its name")
    values, found = keys(column.values, column.name), []
    stems = {token.rstrip("s") for token in column.tokens} - {"id"}
    for place, other in enumerate(ids):
        theirs = keys(other.values, other.name)
        related = bool(stems & {token.rstrip("s") for token in other.tokens})
        # A few small integers are found among any ids; without a related name they prove nothing.
        if theirs.type == values.type and (related or 10 * len(values) >= len(theirs)):
            overlap = pc.mean(pc.is_in(values, value_set=theirs)).as_py()
            found.append((overlap >= _SHARED, related, overlap, -place))
    if found and max(found)[0]:
        _, _, overlap, place = max(found)
        options["shares"] = ids[-place].name
        why += f"; {overlap:.0%} of its values are also in {options['shares']!r}"
    return ("sequence" if past else "tags"), why, options


def _expected(s: Summary, scale: float) -> float:
    """Distinct values in all rows, from those of the sample, by Heaps' law.

    D(N) = D(n)·(N / n)^β; β is the share of the values that were seen once, the slope of log D at n (see Baayen 2001,
    Word Frequency Distributions). A rough guide to the number of buckets, no more.
    """
    once = int(np.count_nonzero(s.table["count"].to_numpy() == 1))
    return float(s.distinct * scale ** (once / s.distinct)) if s.distinct else 0.0


def _delimiter(column: Column) -> str:
    """What stands between the tags of a text; empty if it holds none."""
    if not column.textual or not column.summary.values:
        return ""
    texts, counts = column.values, column.summary.table["count"].to_numpy()
    # "(150,250]" is a range, and "[1, 2]" a list that was printed: neither is split at its comma.
    bracketed = pc.match_substring_regex(texts, r"^\s*[\[({].*[\])}]\s*$").to_numpy(zero_copy_only=False)
    best = (_TAGGED, "")
    for delimiter in (",", "|", ";"):
        has = pc.match_substring(texts, delimiter).to_numpy(zero_copy_only=False) & ~bracketed
        share = counts[has].sum() / counts.sum()
        if share >= best[0] and len(lists(texts, delimiter).flatten().drop_null().unique()) < len(texts):
            best = (share, delimiter)
    return best[1]


def _write(proposal: _Proposal, header: str) -> str:
    """The proposal as TOML with comments."""
    document = tomlkit.document()
    for line in header.splitlines():
        document.add(tomlkit.comment(line))
    if not proposal.tasks:
        document.add(
            tomlkit.comment("TO DO: no task is sure. Take the # off a [[tasks]] below, or name your label there.")
        )
    if not proposal.features:
        document.add(tomlkit.comment("TO DO: no feature was found; see the columns that were left out."))
    document.add(tomlkit.nl())
    for key, value, absent in (
        ("group", proposal.group, 'group = "…": no user column was found; per-user metrics need one'),
        ("time", proposal.time, 'time = "…": no clock was found; a split by time needs one'),
    ):
        if value:
            document.add(key, value)
        else:
            document.add(tomlkit.comment(absent))
    example = ({"name": "click", "column": "is_click", "kind": "binary"}, ["for instance"])
    _add_tables(document, "tasks", proposal.tasks)
    for table, notes in proposal.maybe or ([] if proposal.tasks else [example]):
        document.add(tomlkit.nl())
        for line in [*notes, *tomlkit.dumps({"tasks": [table]}).strip().splitlines()]:
            document.add(tomlkit.comment(line))
    _add_tables(document, "features", proposal.features)
    if proposal.left_out:
        document.add(tomlkit.nl())
        document.add(tomlkit.comment("Left out:"))
        for name, reason in proposal.left_out.items():
            document.add(tomlkit.comment(f"  {repr(name)[1:-1]}: {reason}"))
    return tomlkit.dumps(document)


def _add_tables(document: tomlkit.TOMLDocument, key: str, tables: Iterable[_Table]) -> None:
    array = tomlkit.aot()
    for values, notes in tables:
        table = tomlkit.table()
        for name, value in values.items():
            table.add(name, value)
        for note in notes:
            table.add(tomlkit.comment(note))
        array.append(table)
    if len(array):
        document.add(tomlkit.nl())
        document.add(key, array)
