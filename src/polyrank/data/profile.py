"""What a data set holds under a schema: label funnel, correlations, missing labels, features, leaks, and warnings."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyrank.data.columns import keys
from polyrank.data.labels import read_labels, read_weights
from polyrank.data.leaks import find_leaks
from polyrank.data.readers import Source
from polyrank.data.schema import Feature, Schema
from polyrank.data.summary import DISTINCT_LIMIT, Summary, feature_values
from polyrank.data.tree import contradictions, settled, told
from polyrank.progress import Progress, Silent

FORMAT = 1
NUMBERS_KEPT = 10_000  # distinct values that are counted of a number
_OFTEN_MISSING_LABEL, _MOSTLY_MISSING, _OFTEN_UNSEEN, _RARE = 0.5, 0.95, 0.2, 0.001


def profile(
    schema: Schema, source: Source, valid: Source | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Describe `source` under `schema`, and how much of `valid` it does not know, in one streaming pass over each.

    `tasks`: rows of each sample space with and without a label, positives and their rate (or the mean label), rows
    outside, and contradictions (the label is 1, an ancestor's is 0); all but the last as the schema's rule for
    contradictions has the labels. `funnel`: over all rows, n(a = 1, b = 1), and
    P(b = 1 | a = 1) among rows where b has a label. `correlations`: Pearson's r over rows where both labels are there.
    `features`: the share of rows without a value, distinct values, the most frequent ones (shares of the values
    present), and `out_of_vocabulary`, the share of the validation values that training has never seen (or fewer than
    `min_count` times); it is null for numbers, and where distinct values are too many to keep. `leaks`: see
    `find_leaks`. `warnings`: sentences. What is not defined is null; every number is finite.

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
    summaries = {f.name: Summary(NUMBERS_KEPT if f.kind == "number" else DISTINCT_LIMIT) for f in schema.features}
    types = _key_types(schema, source.schema)
    labels = _Labels(schema)
    with progress.bar(f"profiling {source.name}", source.count_rows()) as bar:
        for batch in source.batches(schema.columns(labels=True)):
            labels.add(read_labels(schema, batch), read_weights(schema, batch))
            for feature in schema.features:
                array, lengths = feature_values(feature, batch.column(feature.source), types[feature.name])
                summaries[feature.name].add(array, lengths)
            bar.advance(batch.num_rows)
    valid_rows, unseen = _unseen(schema, summaries, types, valid, progress) if valid is not None else (None, {})
    features = []
    for feature in schema.features:
        kind = str(source.schema.field(feature.source).type)
        features.append(_feature(feature, summaries[feature.name], kind, unseen.get(feature.name)))
    result: dict[str, Any] = {
        "format": FORMAT,
        "source": source.name,
        "rows": labels.rows,
        "valid": None if valid is None else valid.name,
        "valid_rows": valid_rows,
        "tasks": labels.tasks(),
        "funnel": labels.funnel(),
        "correlations": labels.correlations(),
        "features": features,
        "leaks": [asdict(leak) for leak in find_leaks(schema, source)],
    }
    keys_of_rows = [f.name for f in schema.features if f.kind in ("id", "category") and summaries[f.name].row_key]
    contradicting = told(schema, np.array([task["contradictions"] for task in result["tasks"]]))
    return result | {"warnings": [*contradicting, *_task_warnings(result), *_feature_warnings(result, keys_of_rows)]}


class _Labels:
    """Sums over the labels, enough for counts, the funnel and the correlations."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.rows = schema, 0
        tasks = len(schema.tasks)
        self._sums = np.zeros((5, tasks))  # labelled, missing, sum of labels, outside, contradictions
        self._shift: np.ndarray | None = None
        # Over rows where i and j have labels: n, Σ x_i, Σ x_i², Σ x_i·x_j; and rows where i = j = 1, i = 1.
        self._pairs = np.zeros((6, tasks, tasks))

    def add(self, labels: np.ndarray, weights: np.ndarray) -> None:
        labels = labels.astype(np.float64)
        self.rows += len(labels)
        contradicting = contradictions(self.schema, labels).sum(0)
        if self.schema.contradiction != "error":  # a profile describes also what training would refuse
            labels = settled(self.schema, labels)
        known = ~np.isnan(labels)
        inside = self.schema.sample_spaces(labels, weights)
        # With its own label filled in, a row is in a task's space if its ancestors and its weight say so.
        members = self.schema.sample_spaces(np.nan_to_num(labels), weights)
        missing, total = (members & ~known).sum(0), np.where(inside, labels, 0).sum(0)
        self._sums += np.stack([inside.sum(0), missing, total, (~members).sum(0), contradicting])
        if self._shift is None:
            # Sums of squares around a value amid the data keep their digits; correlations do not notice.
            self._shift = np.where(known, labels, 0).sum(0) / np.maximum(known.sum(0), 1)
        x, k, one = np.where(known, labels - self._shift, 0), known.astype(np.float64), (labels == 1).astype(np.float64)
        self._pairs += np.stack([k.T @ k, x.T @ k, (x * x).T @ k, x.T @ x, one.T @ one, one.T @ k])

    def tasks(self) -> list[dict[str, Any]]:
        result = []
        for index, task in enumerate(self.schema.tasks):
            labelled, missing, total, outside, contradicting = self._sums[:, index].tolist()
            binary, mean = task.kind == "binary", total / labelled if labelled else None
            result.append(
                {"name": task.name, "column": task.source, "kind": task.kind, "given": task.given or None}
                | {"labelled": int(labelled), "missing": int(missing), "positives": int(total) if binary else None}
                | {"rate": mean if binary else None, "mean": None if binary else mean}
                | {"outside": int(outside), "contradictions": int(contradicting)}
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
        # Rounding may leave a constant label a spread of some 1e-16 of its squares: that is no correlation.
        varied = (spread > 1e-12 * n * xx) & (spread > 0)
        both = varied & varied.T
        scale = np.sqrt(np.where(both, spread * spread.T, 1))
        values = np.where(both, np.clip(covariance / scale, -1, 1), np.nan)
        return {"tasks": list(self.schema.task_names), "values": _nullable(values)}


def _nullable(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else value for value in row] for row in matrix.tolist()]


def _key_types(schema: Schema, data: pa.Schema) -> dict[str, pa.DataType]:
    """The type each feature's values are looked up in: that of the vocabulary they share, as in training."""
    own = {f.name: feature_values(f, pa.array([], data.field(f.source).type))[0].type for f in schema.features}
    return {f.name: own[f.shares or f.name] for f in schema.features}


def _vocabulary(
    schema: Schema, owner: Feature, summaries: Mapping[str, Summary], key_type: pa.DataType
) -> pa.Array | None:
    """The values that training would know: the union over the features that share it; None if they are too many."""
    parts = [summaries[f.name] for f in schema.features if (f.shares or f.name) == owner.name]
    if any(part.capped for part in parts):
        return None
    tables = [part.table.set_column(0, "value", part.table["value"].cast(key_type)) for part in parts]
    counted = pa.concat_tables(tables).group_by("value", use_threads=False).aggregate([("count", "sum")])
    floor = 1 if owner.hash_buckets else owner.min_count
    return counted.filter(pc.greater_equal(counted["count_sum"], floor))["value"]


def _unseen(
    schema: Schema,
    summaries: Mapping[str, Summary],
    types: Mapping[str, pa.DataType],
    valid: Source,
    progress: Progress,
) -> tuple[int, dict[str, float]]:
    """Validation rows, and the share of each feature's values that are out of vocabulary, where that is known."""
    valued = [f for f in schema.features if f.kind != "number"]
    known = {f.name: _vocabulary(schema, f, summaries, types[f.name]) for f in valued if not f.shares}
    asked = [f for f in valued if known[f.shares or f.name] is not None]
    rows = valid.count_rows()
    present, found = ({f.name: 0 for f in asked} for _ in range(2))
    with progress.bar(f"profiling {valid.name}", rows) as bar:
        for batch in valid.batches(schema.columns(labels=False)):
            for feature in asked:
                # A text among integers is null as a key, but it is a value that training has not seen.
                natural, _ = feature_values(feature, batch.column(feature.source))
                present[feature.name] += len(natural) - natural.null_count
                array = keys(natural, feature.source, types[feature.name])
                seen = pc.is_in(array, value_set=known[feature.shares or feature.name])
                found[feature.name] += int(np.count_nonzero(seen.to_numpy(zero_copy_only=False)))
            bar.advance(batch.num_rows)
    return rows, {name: (count - found[name]) / count for name, count in present.items() if count}


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
        "top": [[_shown(value), share] for value, share in summary.top()],
        "out_of_vocabulary": unseen,
        "mean": summary.total / summary.finite if number else None,
        "min": summary.low if number else None,
        "max": summary.high if number else None,
        "mean_length": summary.mean_length,
    }


def _shown(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _task_warnings(result: dict[str, Any]) -> Iterable[str]:
    for task in result["tasks"]:
        name, labelled, positives = task["name"], task["labelled"], task["positives"]
        asked = labelled + task["missing"]
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
            yield f"{name}: only {1 - feature['missing']:.2%} of the rows have a value."
        if unseen is not None and unseen > _OFTEN_UNSEEN:
            yield f"{name}: {unseen:.1%} of the validation values were never seen in training."
        if feature["distinct_is_lower_bound"] and feature["kind"] != "number":
            yield (
                f"{name}: more than {DISTINCT_LIMIT:,} distinct values; counting stopped there, and values unseen in "
                "training were not looked for. Consider hash_buckets or min_count."
            )
