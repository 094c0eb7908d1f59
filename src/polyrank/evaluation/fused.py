"""How good a fused order is: for every behaviour, within requests, beside every head alone.

A metric is a value per request (`GroupValues`) and its mean; its interval and the interval of a difference come from
one bootstrap over users, in which all rankings see the same resample, and which is a product of two matrices: how often
each request was drawn, and what each request contributes.

| metric | of | what |
|---|---|---|
| `gauc` | behaviour | AUC within requests, weighted by rows; XAUC for numeric labels |
| `ndcg`, `hit_rate` | behaviour | NDCG@k, HR@k; `hit_rate` of binary ones |
| `ndcg` | `reward` | NDCG@k whose gain is the declared reward |
| `mtf_gauc` | `reward` | AUC of a valid view within requests, a row weighing reward + 1 |
| `expected`, `observed` | head, behaviour | predicted and true sums over the first k, per request (see `measure`) |
| `per_minute` | binary head | its expected count over the expected minutes of watching, both over the first k |
| `kendall` | head | τ_b of the fused order and the head alone |
| `composite` | `gauc` | Σ_b v_b GAUC_b / Σ_b v_b with declared v |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Interval

from polyrank.evaluation.requests import Requests
from polyrank.evaluation.seesaw import difference
from polyrank.metrics.bootstrap import group_weights
from polyrank.metrics.checks import Floats, Rows
from polyrank.metrics.concordance import group_xauc, kendall
from polyrank.metrics.grouped import GroupValues, group_auc
from polyrank.metrics.toplists import hit_rate, ndcg, sum_at
from polyrank.progress import Bar

Key = tuple[str, str]  # the metric, and what it is of
REWARD = "reward"
COMPOSITE: Key = ("composite", "gauc")
CORNER = "{} alone"
_CHUNK = 100  # replicates at a time


@dataclass(frozen=True)
class JudgeConfig:
    """How fused orders are judged.

    Attributes:
        k: the places that count for NDCG, HR and the sums.
        valid: the binary behaviour that is a valid view, the label of MTF-GAUC; the first binary one where empty.
        minutes: the head that predicts watch time, for counts per minute; none where empty.
        minute: how much of the head's unit is a minute; 60,000 where it predicts milliseconds.
        weights: v of the composite, by behaviour; every behaviour counts 1 where none is named.
        replicates: bootstrap replicates.
        level: coverage of the intervals.
    """

    k: Annotated[int, Gt(0)] = 3
    valid: str = ""
    minutes: str = ""
    minute: Annotated[float, Gt(0)] = 60_000.0
    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    replicates: Annotated[int, Ge(10)] = 1_000
    level: Annotated[float, Interval(gt=0.5, lt=1)] = 0.95


def measure(data: Requests, scores: Rows, config: JudgeConfig) -> dict[Key, GroupValues]:
    """Every metric of one order, request by request, but the composite.

    What is expected of the first k means what it says of calibrated heads alone. A head that is predicted given others
    counts times the chance that they happen (`Requests.joint`); a missing label counts as nothing that happened.

    Args:
        data: the rows.
        scores: `[N]` finite, the highest first.
        config: what is measured.

    Raises:
        ValueError: scores are not finite or of another length; `valid` or `minutes` is unknown.
    """
    requests, k = data.requests, config.k
    found: dict[Key, GroupValues] = {}
    for name, labels in data.labels.items():
        mine = ~np.isnan(labels)
        own, truth, groups = scores[mine], labels[mine], requests[mine]
        numeric = name in data.numeric
        found["gauc", name] = (group_xauc if numeric else group_auc)(own, truth, groups)
        found["ndcg", name] = ndcg(own, truth, groups, k)
        if not numeric:
            found["hit_rate", name] = hit_rate(own, truth, groups, k)
        found["observed", name] = sum_at(scores, np.nan_to_num(labels), requests, k)
    found["ndcg", REWARD] = ndcg(scores, data.reward, requests, k)
    label = data.labels[valid_view(data, config)]
    mine = ~np.isnan(label)
    found["mtf_gauc", REWARD] = group_auc(scores[mine], label[mine], requests[mine], data.reward[mine] + 1)
    for head in data.heads:
        found["expected", head] = sum_at(scores, data.joint.get(head, data.columns[head]), requests, k)
        found["kendall", head] = kendall(scores, data.columns[head], requests)
    if config.minutes:
        if config.minutes not in data.heads:
            raise ValueError(f"minutes must name a head of {sorted(data.heads)}, got {config.minutes!r}")
        watched = np.maximum(found["expected", config.minutes].values / config.minute, 0)
        for head in data.heads:
            if head not in data.numeric:
                counts = found["expected", head]
                ratio = np.divide(counts.values, watched, out=np.full(len(watched), np.nan), where=watched > 0)
                found["per_minute", head] = GroupValues(counts.groups, ratio, watched)
    return found


def valid_view(data: Requests, config: JudgeConfig) -> str:
    """The behaviour that is MTF-GAUC's label.

    Raises:
        ValueError: it is not a binary behaviour of the data, or there is none.
    """
    binary = [name for name in data.labels if name not in data.numeric]
    name = config.valid or (binary[0] if binary else "")
    if name not in binary:
        raise ValueError(f"valid must name a binary behaviour of {binary}, got {name!r}")
    return name


def judge(
    data: Requests,
    rankings: Mapping[str, Rows],
    reference: str,
    config: JudgeConfig,
    *,
    seed: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """The table: every ranking and every head alone, with intervals, and differences against one of them.

    Args:
        data: the rows; they must not be those that chose a ranking (fit on validation, judge on test).
        rankings: `[N]` scores by name. The corners, every head alone, are added as "<head> alone".
        reference: the ranking that all are compared with; a corner's name too.
        config: what is measured.
        seed: of the bootstrap.
        bar: is advanced by 1 a ranking and by 1 a replicate.

    Returns:
        JSON-ready: `rankings` with `metrics` → metric → of → value, low, high, and `against` → metric → of → mean, low,
        high, verdict (see `seesaw`); None stands where a number is undefined.

    Raises:
        ValueError: as in `measure`; the reference or a weight's behaviour is unknown; no row.
    """
    if not data.rows:
        raise ValueError("a fused order cannot be judged without a row")
    weights = composite_weights(data, config)
    corners = {CORNER.format(head): data.columns[head] for head in data.heads}
    every = {**corners, **rankings}
    if reference not in every:
        raise ValueError(f"the reference must be a ranking of {list(every)}, got {reference!r}")
    measured = {}
    for name, scores in every.items():
        measured[name] = measure(data, np.asarray(scores), config)
        if bar is not None:
            bar.advance(1)
    keys = list(measured[reference])
    points = np.array([[measured[name][key].mean() for key in keys] for name in every])  # [rankings, metrics]
    drawn = _replicates(data, [measured[name][key] for name in every for key in keys], config, seed, bar)
    drawn = drawn.reshape(len(drawn), len(every), len(keys))
    for_composite = np.array([weights.get(of, 0.0) if metric == "gauc" else 0.0 for metric, of in keys])
    keys = [*keys, COMPOSITE]
    points, drawn = (_with_composite(values, for_composite) for values in (points, drawn))
    base = list(every).index(reference)
    tables = []
    for index, name in enumerate(every):
        found: dict[str, Any] = {"name": name, "corner": name in corners, "metrics": {}, "against": {}}
        for column, (metric, of) in enumerate(keys):
            own, others = drawn[:, index, column], drawn[:, base, column]
            low, high = _quantiles(own, config.level)
            value = {"value": _json(points[index, column]), "low": low, "high": high}
            found["metrics"].setdefault(metric, {})[of] = value
            if index != base:
                delta = difference(points[index : index + 1, column] - points[base, column], own - others, config.level)
                entry = {"mean": _json(delta.mean), "low": delta.low, "high": delta.high, "verdict": delta.verdict}
                found["against"].setdefault(metric, {})[of] = entry
        tables.append(found)
    return {
        "format": 1,
        "rows": data.rows,
        "requests": len(np.unique(data.requests)),
        "users": len(np.unique(data.users)),
        "k": config.k,
        "level": config.level,
        "replicates": config.replicates,
        "heads": list(data.heads),
        "behaviours": list(data.labels),
        "valid": valid_view(data, config),
        "weights": weights,
        "reference": reference,
        "rankings": tables,
    }


def composite_weights(data: Requests, config: JudgeConfig) -> dict[str, float]:
    """The weights v of the composite, for every behaviour that counts.

    Raises:
        ValueError: a weight names no behaviour of the data, or all are 0.
    """
    weights = dict(config.weights) or dict.fromkeys(data.labels, 1.0)
    for name in weights:
        if name not in data.labels:
            raise ValueError(f"weights must name behaviours of {list(data.labels)}, got {name!r}")
    if not sum(weights.values()) > 0:
        raise ValueError("one of the weights must be above 0")
    return weights


def _replicates(data: Requests, values: list[GroupValues], config: JudgeConfig, seed: int, bar: Bar | None) -> Floats:
    """The mean of every metric `[R, M]` on every replicate; users are drawn, with all their requests."""
    requests, users = data.request_users()
    # [G, M], 0 where a request does not count for a metric.
    totals, shares = np.zeros((len(requests), len(values))), np.zeros((len(requests), len(values)))
    for column, metric in enumerate(values):
        at = np.searchsorted(requests, metric.groups)
        shares[at, column] = np.where(np.isnan(metric.values), 0, metric.weights)
        totals[at, column] = np.nan_to_num(metric.values) * shares[at, column]
    weights = group_weights(users, len(requests), config.replicates, seed)
    parts = []
    for start in range(0, config.replicates, _CHUNK):
        times = np.stack([next(weights) for _ in range(min(_CHUNK, config.replicates - start))])
        mass = times @ shares
        parts.append(np.divide(times @ totals, mass, out=np.full(mass.shape, np.nan), where=mass > 0))
        if bar is not None:
            bar.advance(len(times))
    return np.concatenate(parts)


def _with_composite(values: Floats, weights: Floats) -> Floats:
    """`[…, M]` → `[…, M + 1]`; a behaviour of weight 0 may be undefined, one that counts may not."""
    counted = weights > 0
    composite = values[..., counted] @ weights[counted] / weights.sum()
    return np.concatenate((values, composite[..., None]), axis=-1)


def _quantiles(values: Floats, level: float) -> tuple[float | None, float | None]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
