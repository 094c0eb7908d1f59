"""What a data set holds under a schema: the label funnel, correlations, missing labels, features, leaks; in words too."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.data.columns import keys, list_lengths, lists, numbers
from polyrank.data.encoders import read_labels
from polyrank.data.fitting import ValueCounts
from polyrank.data.leaks import find_leaks
from polyrank.data.readers import Source
from polyrank.data.schema import Feature, Schema
from polyrank.progress import Progress, Silent

FORMAT = 1
DISTINCT_LIMIT, DISTINCT_LIMIT_NUMBERS = 2_000_000, 10_000
ROW_KEY_SHARE, ROW_KEY_ROWS = 0.95, 1_000  # more distinct values than so: each row has its own
_TOP = 5
_OFTEN_MISSING_LABEL, _MOSTLY_MISSING, _OFTEN_UNSEEN, _RARE = 0.5, 0.95, 0.2, 0.001


class Summary:
    """Counts, range, mean and list lengths of one column, in one pass.

    Memory grows with the distinct values up to `limit`; then counting stops, `capped` is set, and what was counted so far
    stays: a lower bound of the distinct values, and the most frequent ones of the first rows.

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
            array: int64, float64 or large_string, null where missing; for lists the values of all lists, one after the other.
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

    def top(self, k: int = _TOP) -> list[tuple[Any, float]]:
        """The k most frequent values and their shares of the values counted; of equal ones the smaller first."""
        order = [("count", "descending"), ("value", "ascending")]
        first = self.table.take(pc.select_k_unstable(self.table, k=min(k, self.distinct), sort_keys=order))
        pairs = zip(first["value"].to_pylist(), first["count"].to_pylist(), strict=True)
        return [(value, count / self.counted) for value, count in pairs]


def profile(
    schema: Schema, source: Source, valid: Source | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Describe `source` under `schema`, and how much of `valid` it does not know, in one streaming pass over each.

    `tasks`: rows of each sample space with and without a label, positives and their rate (or the mean label), rows outside,
    and contradictions (the label is 1, the parent's is 0). `funnel`: over all rows, n(a = 1, b = 1), and
    P(b = 1 | a = 1) among rows where b has a label. `correlations`: Pearson's r over rows where both labels are there.
    `features`: the share of rows without a value, distinct values, the most frequent ones (shares of the values present),
    and `out_of_vocabulary`, the share of the validation values that training has never seen (or fewer than `min_count`
    times); it is null for numbers, and where distinct values are too many to keep. `leaks`: see `find_leaks`.
    `warnings`: sentences. What is not defined is null; every number is finite.

    Args:
        schema: features and tasks.
        source: the training data, with labels.
        valid: the validation data; its labels are not read.
        progress: where to report.

    Returns:
        A dictionary that is JSON, format 1.

    Raises:
        DataError: a column is missing or of the wrong type, or a value breaks a rule of its column.
    """
    schema.check(source.schema, source.name)
    if valid is not None:
        schema.check(valid.schema, valid.name, labels=False)
    progress = progress or Silent()
    summaries = {
        f.name: Summary(DISTINCT_LIMIT_NUMBERS if f.kind == "number" else DISTINCT_LIMIT) for f in schema.features
    }
    types = _key_types(schema, source.schema)
    labels = _Labels(schema)
    with progress.bar(f"profiling {source.name}", source.count_rows()) as bar:
        for batch in source.batches(schema.columns(labels=True)):
            labels.add(read_labels(schema, batch))
            for feature in schema.features:
                array, lengths = feature_values(feature, batch.column(feature.source), types[feature.name])
                summaries[feature.name].add(array, lengths)
            bar.advance(batch.num_rows)
    unseen = _unseen(schema, summaries, types, valid, progress) if valid is not None else {}
    features = []
    for feature in schema.features:
        kind = str(source.schema.field(feature.source).type)
        features.append(_feature(feature, summaries[feature.name], kind, unseen.get(feature.name)))
    result: dict[str, Any] = {
        "format": FORMAT,
        "source": source.name,
        "rows": labels.rows,
        "valid": None if valid is None else valid.name,
        "valid_rows": None if valid is None else valid.count_rows(),
        "tasks": labels.tasks(),
        "funnel": labels.funnel(),
        "correlations": labels.correlations(),
        "features": features,
        "leaks": [vars(leak) for leak in find_leaks(schema, source)],
    }
    keys_of_rows = [name for name, summary in summaries.items() if _row_key(schema, name, summary)]
    return result | {"warnings": [*_task_warnings(result), *_feature_warnings(result, keys_of_rows)]}


def feature_values(
    feature: Feature, array: pa.Array, key_type: pa.DataType | None = None
) -> tuple[pa.Array, np.ndarray | None]:
    """A feature's values as a `Summary` takes them: numbers as float64, all else as keys; lists flattened, with lengths."""
    if feature.kind == "number":
        return pa.array(numbers(array, feature.source), from_pandas=True), None
    if feature.kind not in ("tags", "sequence"):
        return keys(array, feature.source, key_type), None
    bags = lists(array, feature.delimiter)
    flat = bags.flatten()
    rows = np.repeat(np.arange(len(bags)), list_lengths(bags))
    present = flat.is_valid().to_numpy(zero_copy_only=False)
    return keys(flat, feature.source, key_type), np.bincount(rows[present], minlength=len(bags))


class _Labels:
    """Sums over the labels, enough for counts, the funnel and the correlations."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.rows = schema, 0
        tasks = len(schema.tasks)
        self._sums = np.zeros((5, tasks))  # labelled, missing, sum of labels, outside, contradictions
        self._shift: np.ndarray | None = None
        # Over rows where i and j have labels: n, Σ x_i, Σ x_i², Σ x_i·x_j; and rows where i = j = 1, i = 1.
        self._pairs = np.zeros((6, tasks, tasks))

    def add(self, labels: np.ndarray) -> None:
        labels = labels.astype(np.float64)
        self.rows += len(labels)
        known = ~np.isnan(labels)
        inside = self.schema.sample_spaces(labels)
        # With its own label filled in, a row is in a task's space if its ancestors say so.
        members = self.schema.sample_spaces(np.nan_to_num(labels))
        names = self.schema.task_names
        contradictions = [
            ((labels[:, index] == 1) & (labels[:, names.index(task.given)] == 0)).sum() if task.given else 0
            for index, task in enumerate(self.schema.tasks)
        ]
        missing, total = (members & ~known).sum(0), np.where(inside, labels, 0).sum(0)
        self._sums += np.stack([inside.sum(0), missing, total, (~members).sum(0), np.array(contradictions)])
        if self._shift is None:
            # Sums of squares around a value amid the data keep their digits; correlations do not notice.
            self._shift = np.where(known, labels, 0).sum(0) / np.maximum(known.sum(0), 1)
        x, k, one = np.where(known, labels - self._shift, 0), known.astype(np.float64), (labels == 1).astype(np.float64)
        self._pairs += np.stack([k.T @ k, x.T @ k, (x * x).T @ k, x.T @ x, one.T @ one, one.T @ k])

    def tasks(self) -> list[dict[str, Any]]:
        result = []
        for index, task in enumerate(self.schema.tasks):
            labelled, missing, total, outside, contradictions = self._sums[:, index].tolist()
            binary, mean = task.kind == "binary", total / labelled if labelled else None
            result.append(
                {"name": task.name, "column": task.source, "kind": task.kind, "given": task.given or None}
                | {"labelled": int(labelled), "missing": int(missing), "positives": int(total) if binary else None}
                | {"rate": mean if binary else None, "mean": None if binary else mean}
                | {"outside": int(outside), "contradictions": int(contradictions)}
            )
        return result

    def funnel(self) -> dict[str, Any]:
        binary = [index for index, task in enumerate(self.schema.tasks) if task.kind == "binary"]
        both, given = (self._pairs[part][np.ix_(binary, binary)] for part in (4, 5))
        return {
            "tasks": [self.schema.tasks[index].name for index in binary],
            "conditional": _nullable(np.divide(both, given, out=np.full_like(both, np.nan), where=given > 0)),
            "counts": both.astype(np.int64).tolist(),
        }

    def correlations(self) -> dict[str, Any]:
        n, x, xx, xy = self._pairs[:4]
        spread = n * xx - x * x  # n²·var of i over the rows of (i, j); its transpose is that of j
        covariance = n * xy - x * x.T
        # Rounding leaves a constant label with a spread of about 1e-16 of its squares: no correlation, not a random one.
        varied = (spread > 1e-12 * n * xx) & (spread > 0)
        varied &= varied.T
        scale = np.sqrt(np.where(varied, spread, 1) * np.where(varied.T, spread.T, 1))
        values = np.where(varied, np.clip(covariance / scale, -1, 1), np.nan)
        return {"tasks": list(self.schema.task_names), "values": _nullable(values)}


def _nullable(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else value for value in row] for row in matrix.tolist()]


def _key_types(schema: Schema, data: pa.Schema) -> dict[str, pa.DataType | None]:
    """The type each feature's values are looked up in: that of the vocabulary they share, as in training."""
    own = {f.name: feature_values(f, pa.array([], data.field(f.source).type))[0].type for f in schema.features}
    return {f.name: own[f.shares or f.name] for f in schema.features}


def _vocabulary(schema: Schema, owner: Feature, summaries: dict[str, Summary]) -> pa.Array | None:
    """The values that training would know: the union over the features that share it; None if they are too many."""
    parts = [summaries[f.name] for f in schema.features if (f.shares or f.name) == owner.name]
    if any(part.capped for part in parts):
        return None
    joined = pa.concat_tables([part.table for part in parts], promote_options="permissive")
    counted = joined.group_by("value", use_threads=False).aggregate([("count", "sum")])
    floor = 1 if owner.hash_buckets else owner.min_count
    return counted.filter(pc.greater_equal(counted["count_sum"], floor))["value"].combine_chunks()


def _unseen(
    schema: Schema,
    summaries: dict[str, Summary],
    types: dict[str, pa.DataType | None],
    valid: Source,
    progress: Progress,
) -> dict[str, float]:
    """Share of each feature's validation values that are out of vocabulary; features without an answer are left out."""
    owners = {f.name: _vocabulary(schema, f, summaries) for f in schema.features if f.kind != "number" and not f.shares}
    known = {f.name: owners[f.shares or f.name] for f in schema.features if f.kind != "number"}
    known = {name: values for name, values in known.items() if values is not None}
    present, found = dict.fromkeys(known, 0), dict.fromkeys(known, 0)
    with progress.bar(f"profiling {valid.name}", valid.count_rows()) as bar:
        for batch in valid.batches(schema.columns(labels=False)):
            for feature in schema.features:
                if feature.name in known:
                    column, values = batch.column(feature.source), known[feature.name]
                    present[feature.name] += _present(feature, column)
                    array, _ = feature_values(feature, column, types[feature.name])
                    found[feature.name] += pc.sum(pc.is_in(array, value_set=values.cast(array.type))).as_py() or 0
            bar.advance(batch.num_rows)
    return {name: 1 - found[name] / present[name] for name in known if present[name]}


def _present(feature: Feature, array: pa.Array) -> int:
    """Values that are not null, before any that does not fit the vocabulary's type (a text among integers) became so."""
    natural, _ = feature_values(feature, array)
    return len(natural) - natural.null_count


def _feature(feature: Feature, summary: Summary, kind: str, unseen: float | None) -> dict[str, Any]:
    number = feature.kind == "number" and summary.finite > 0
    return {
        "name": feature.name,
        "kind": feature.kind,
        "column": feature.source,
        "type": kind,
        "missing": summary.missing / summary.rows,
        "distinct": summary.distinct,
        "distinct_is_lower_bound": summary.capped,
        "top": [[str(value), share] for value, share in summary.top()],
        "out_of_vocabulary": unseen,
        "mean": summary.total / summary.finite if number else None,
        "min": summary.low if number else None,
        "max": summary.high if number else None,
        "mean_length": summary.mean_length,
    }


def _row_key(schema: Schema, name: str, summary: Summary) -> bool:
    kind = next(feature.kind for feature in schema.features if feature.name == name)
    many = summary.counted > ROW_KEY_ROWS and summary.distinct > ROW_KEY_SHARE * summary.counted
    return kind in ("id", "category") and many


def _task_warnings(result: dict[str, Any]) -> Iterable[str]:
    for task in result["tasks"]:
        name, labelled, positives = task["name"], task["labelled"], task["positives"]
        asked = labelled + task["missing"]
        if task["contradictions"]:
            yield (
                f"{name}: {task['contradictions']:,} rows have {name} = 1 although {task['given']} = 0; they are outside its "
                f"sample space and train nothing. Is given = {task['given']!r} right?"
            )
        if not labelled:
            yield f"{name}: no row of its sample space has a label; training will refuse it."
            continue
        if task["missing"] > _OFTEN_MISSING_LABEL * asked:
            yield f"{name}: the label is missing on {task['missing'] / asked:.1%} of the rows of its sample space."
        if positives in (0, labelled):
            yield f"{name}: all {labelled:,} labels are {int(positives > 0)}; training needs both classes."
        elif positives is not None and positives < _RARE * labelled:
            yield f"{name}: only {positives:,} of {labelled:,} labels ({positives / labelled:.3%}) are positive."


def _feature_warnings(result: dict[str, Any], keys_of_rows: Iterable[str]) -> Iterable[str]:
    for leak in result["leaks"]:
        yield f"{leak['feature']} alone gives {leak['task']} an AUC of {leak['auc']:.4f}: was it made from the label?"
    for name in keys_of_rows:
        yield f"{name}: almost every row has its own value: a row key teaches nothing; remove the feature."
    for feature in result["features"]:
        name, unseen = feature["name"], feature["out_of_vocabulary"]
        if feature["missing"] > _MOSTLY_MISSING:
            yield f"{name}: {feature['missing']:.1%} of the rows have no value."
        if unseen is not None and unseen > _OFTEN_UNSEEN:
            yield f"{name}: {unseen:.1%} of the validation values were never seen in training."
        if feature["distinct_is_lower_bound"] and feature["kind"] != "number":
            yield (
                f"{name}: more than {DISTINCT_LIMIT:,} distinct values; counting stopped there, and values unseen in training "
                "were not looked for. Consider hash_buckets or min_count."
            )
