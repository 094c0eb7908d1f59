"""Weights of a session reward, from a delayed outcome: what did those sessions have after which users came back?

S sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from annotated_types import Interval as Within
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear
from scipy.stats import rankdata

from polyrank.errors import DataError
from polyrank.fusion.session_reward import ASPECTS, Aspect, SatisfactionConfig, aspects, check, satisfaction, variants
from polyrank.fusion.sessions import SessionLog
from polyrank.metrics.bootstrap import Interval, bootstrap_values
from polyrank.metrics.checks import Floats, Rows


@dataclass(frozen=True)
class FittedWeights:
    """What one unit of each signal went with, in units of the outcome.

    Attributes:
        config: the fitted reward.
        intervals: bootstrap of each weight, by signal.
        explained: R², the share of the outcome's variance that signals and controls explain.
        rank_correlation: Spearman's ρ of a session's reward with its outcome.
    """

    config: SatisfactionConfig
    intervals: Mapping[str, Interval]
    explained: float
    rank_correlation: float


def fit_weights(
    log: SessionLog,
    outcome: Rows,
    signals: Mapping[Aspect, tuple[str, ...]],
    *,
    caps: Mapping[str, float] | None = None,
    controls: Rows | None = None,
    clusters: Rows | None = None,
    replicates: Annotated[int, Gt(0)] = 200,
    level: Annotated[float, Within(gt=0, lt=1)] = 0.95,
    seed: int = 0,
) -> FittedWeights:
    """Regress a delayed outcome of a session (next-day dwell, return) on the sums of its signals.

    `y_s = b + Σ_i ± w_i · Σ_{t ∈ s} min(v_it, cap_i) + c' x_s + ε_s`, least squares under w ≥ 0, + for stickiness and
    activeness, − for aversion. BatchRL-MTF sets its weights "by statistical analysis of the relation between the
    behaviour and future app dwell time" (Zhang et al., KDD 2022) and publishes neither the analysis nor the weights;
    this regression is ours. It finds association: what users bring along (an active user likes more and returns more)
    is in the weights unless `controls` hold it.

    Args:
        log: with signals.
        outcome: `[S]`, the larger the better.
        signals: names of signals by aspect.
        caps: as in `SatisfactionConfig`.
        controls: `[S, C]` what is known of a session's user before it, `log.states[log.starts[:-1]]` for instance.
        clusters: `[S]` the user of each session: users are drawn whole; None: sessions are independent.
        replicates: of the bootstrap of sessions or users. An interval that touches 0 says that the bound w ≥ 0 was
            met, or nearly.
        level: coverage of the intervals.
        seed: of the bootstrap.

    Raises:
        ConfigError: a name is not a signal of the log.
        DataError: outcome or controls are not one finite entry a session, or the columns are linearly dependent.
    """
    capped = SatisfactionConfig(caps=caps or {})
    equal = capped.with_weights({aspect: dict.fromkeys(named, 1.0) for aspect, named in signals.items()})
    check(log.signals, equal)
    names = [name for aspect in ASPECTS for name in equal.weights(aspect)]
    count = len(names)
    y = np.asarray(outcome, np.float64)
    for part in (y, *(() if controls is None else (controls,))):
        if len(part) != len(log.sessions) or not np.isfinite(part).all():
            rule = "a reward's weights are fitted to one finite number a session"
            raise DataError(rule, received=f"{part.shape} for {len(log.sessions):,} sessions", mend="correct it")
    others = np.ones((len(y), 1)) if controls is None else np.column_stack([np.ones(len(y)), controls])
    x = np.column_stack([*(_session_sums(log, column) for column in _columns(log, equal)), others])
    scales = np.maximum(np.sqrt((x**2).mean(axis=0)), 1e-12)
    x /= scales
    _independent(x, names)
    lowest = np.full(x.shape[1], -np.inf)
    lowest[:count] = 0.0

    def solve(times: Floats) -> Floats:
        weighted = x * times[:, None]
        gram = weighted.T @ x
        # a signal that a replicate never drew has weight 0 in it, which this much of a ridge says
        factor = np.linalg.cholesky(gram + 1e-9 * len(y) * np.eye(len(gram)))
        target = solve_triangular(factor, weighted.T @ y, lower=True)
        found: Floats = lsq_linear(factor.T, target, (lowest, np.inf)).x / scales
        return found

    best = solve(np.ones(len(y)))
    drawn = bootstrap_values(solve, clusters, len(y), replicates=replicates, seed=seed)
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    weights = dict(zip(names, best.tolist(), strict=False))
    fitted = equal.with_weights({a: {name: weights[name] for name in equal.weights(a)} for a in ASPECTS})
    residual = y - (x * scales) @ best
    total = _session_sums(log, sum(w * c for w, c in zip(best, _columns(log, equal), strict=False)))
    return FittedWeights(
        fitted,
        {name: Interval(float(ends[0, k]), float(ends[1, k])) for k, name in enumerate(names)},
        float(1 - residual.var() / y.var()) if y.var() > 0 else np.nan,
        _spearman(total, y),
    )


def sensitivity(
    log: SessionLog, config: SatisfactionConfig, outcome: Rows | None = None, factors: tuple[float, ...] = (0, 0.5, 2)
) -> list[dict[str, Any]]:
    """How far the reward of sessions depends on each weight: a row for the config and for each of its `variants`.

    What a policy makes of another reward is seen by fitting one to each variant; this needs none, and says which are
    worth that.

    Returns:
        JSON-ready rows: `signal` and `factor` (None for the config itself), `rank_correlation` with the rewards of the
        config over sessions, `shares` of stickiness, activeness and aversion in the sum of all three, and, with an
        outcome `[S]`, Spearman's ρ with it (`outcome`).
    """
    base = _session_sums(log, satisfaction(log.signals, config))
    rows = []
    for signal, factor, variant in [(None, None, config), *variants(config, factors)]:
        totals = {aspect: float(part.sum()) for aspect, part in aspects(log.signals, variant).items()}
        all_of_them = sum(totals.values())
        own = _session_sums(log, satisfaction(log.signals, variant))
        row: dict[str, Any] = {"signal": signal, "factor": factor, "rank_correlation": _spearman(own, base)}
        row["shares"] = {aspect: part / all_of_them if all_of_them else None for aspect, part in totals.items()}
        rows.append(row if outcome is None else row | {"outcome": _spearman(own, np.asarray(outcome, np.float64))})
    return rows


def _columns(log: SessionLog, config: SatisfactionConfig) -> list[Floats]:
    """`[N]` of each signal, capped, negative for aversion, in the order of the config."""
    found = []
    for aspect in ASPECTS:
        for name in config.weights(aspect):
            column = np.minimum(np.nan_to_num(log.signals[name].astype(np.float64)), config.caps.get(name, np.inf))
            found.append(-column if aspect == "aversion" else column)
    return found


def _session_sums(log: SessionLog, values: Floats) -> Floats:
    return np.add.reduceat(values, log.starts[:-1])


def _independent(x: Floats, names: list[str]) -> None:
    if np.linalg.eigvalsh(x.T @ x / len(x))[0] > 1e-8:
        return
    idle = [name for name, column in zip(names, x.T, strict=False) if not column.any()]
    raise DataError(
        "weights can be told apart only for signals that happen, and not always together",
        received=f"{', '.join(idle)} never happens" if idle else f"linearly dependent sums of {', '.join(names)}",
        mend="leave a signal or a control out",
    )


def _spearman(one: Floats, other: Floats) -> float:
    """ρ; nan where one of them is constant."""
    ranks = np.stack([rankdata(one), rankdata(other)])
    spread = ranks.std(axis=1)
    return (
        float(((ranks - ranks.mean(axis=1, keepdims=True)).prod(axis=0)).mean() / spread.prod())
        if spread.all()
        else np.nan
    )
