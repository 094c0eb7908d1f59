"""The space of a search: keys of a config and what they may be, checked before anything is encoded or trained."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from polyrank.balancing.balancer import BALANCERS
from polyrank.config import override
from polyrank.errors import ConfigError
from polyrank.settings import Range, Settings, parse_settings

SECTIONS = ("model", "balance", "train")
_RANGE = "write { low = 0.1, high = 10.0, log = true } or { choices = [1, 2] }"


def usual_space(settings: Settings, tasks: Sequence[str]) -> dict[str, Range]:
    """What is searched where `[tune.space]` says nothing.

    The learning rate within a factor of 5 of the config's, the embeddings' dropout, and, where the balancer has
    weights, every task's within a factor of 10 of equality; the first task's stays, as only ratios matter.
    """
    method, rate = settings.balance.method, settings.train.learning_rate
    weighted = "weights" in {field.name for field in fields(BALANCERS[method].config)}
    return {
        **{f"balance.{method}.weights.{task}": Range(0.1, 10.0, log=True) for task in tasks[1:] if weighted},
        "train.learning_rate": Range(rate / 5, rate * 5, log=True),
        "model.embedding_dropout": Range(0.0, 0.5),
    }


def check_space(
    space: Mapping[str, Range], table: Mapping[str, Any], base: Path, check: Callable[[Settings], None]
) -> None:
    """Refuse a space that could propose what the config would refuse: every end and every choice is put to the test.

    Args:
        space: by whole key.
        table: the experiment, as it was read.
        base: the directory that its relative paths start from.
        check: refuses settings that do not suit the data's schema.

    Raises:
        ConfigError: an unknown key (its nearest neighbour is named), a range that is none, a value out of bounds.
    """
    for key, span in space.items():
        if key.split(".")[0] not in SECTIONS or key == "train.metric":
            raise ConfigError(
                f"a search may vary keys of {', '.join(SECTIONS)}, and not train.metric, which follows tune.objectives",
                received=f"tune.space.{key}",
                mend="remove it",
            )
        _check_range(key, span)
        for value in span.choices or (span.low, span.high):
            try:
                check(parse_settings(applied(table, {key: value}), base))
            except ConfigError as error:
                rule = f"[tune.space] {key} = {json.dumps(value)}: {error.rule}"
                raise ConfigError(rule, received=error.received, mend=error.mend) from error


def applied(table: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment with other values at these whole keys."""
    # What JSON writes of a number, a word, a truth or a list is TOML, too.
    return override(dict(table), [f"{key}={json.dumps(value)}" for key, value in values.items()])


def suggest(trial: Trial, space: Mapping[str, Range]) -> dict[str, Any]:
    """A trial's values, by key; choices travel as JSON text, so that lists can be chosen from."""
    for key, span in space.items():
        match _distribution(span):
            case CategoricalDistribution(choices=choices):
                trial.suggest_categorical(key, choices)
            case IntDistribution(low=low, high=high, step=step, log=log):
                trial.suggest_int(key, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                trial.suggest_float(key, low, high, step=step, log=log)
    return decoded(space, trial.params)


def decoded(space: Mapping[str, Range], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna proposes, as values of the config."""
    return {key: json.loads(v) if space[key].choices else v for key, v in parameters.items()}


def own_values(space: Mapping[str, Range], settings: Settings) -> dict[str, Any] | None:
    """The config's own values as Optuna takes them; None where one lies outside the space."""
    table = settings.table(run=False)
    found = {key: _inside(span, _value_at(table, key)) for key, span in space.items()}
    return None if None in found.values() else found


def _value_at(table: Mapping[str, Any], key: str) -> Any:
    """The value at a whole key; a loss weight that is not given is 1."""
    *parents, last = key.split(".")
    level: Any = table
    for part in parents:
        level = level.get(part, {})
    return level.get(last, 1.0 if parents[-1] == "weights" else None)


def _inside(span: Range, value: Any) -> Any:
    """The value as Optuna takes it, None where it is outside the range or none of the choices."""
    if span.choices:
        text = json.dumps(value)
        return text if text in map(json.dumps, span.choices) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or (_whole(span) and value != int(value)):
        return None
    return (int if _whole(span) else float)(value) if _distribution(span)._contains(value) else None


def _distribution(span: Range) -> BaseDistribution:
    if span.choices:
        return CategoricalDistribution([json.dumps(value) for value in span.choices])
    low, high, step = span.low, span.high, span.step
    assert low is not None
    assert high is not None
    if step is not None:
        high = low + math.floor((high - low) / step + 1e-9) * step  # the last that a step reaches
    if _whole(span):
        return IntDistribution(int(low), int(high), log=span.log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=span.log, step=step)


def _whole(span: Range) -> bool:
    return isinstance(span.low, int) and isinstance(span.high, int)


def _check_range(key: str, span: Range) -> None:
    """Raise ConfigError for the first rule that a range breaks."""
    for rule in _broken(span):
        given = {field.name: getattr(span, field.name) for field in fields(Range)}
        received = ", ".join(f"{name} = {value}" for name, value in given.items() if value not in (None, False, ()))
        raise ConfigError(f"tune.space.{key} {rule}", received=received or "nothing", mend=_RANGE)


def _broken(span: Range) -> Iterator[str]:
    low, high, step = span.low, span.high, span.step
    if span.choices:
        if (low, high, step) != (None, None, None) or span.log:
            yield "must have choices, or low and high, not both"
        if len(set(map(json.dumps, span.choices))) < len(span.choices):
            yield "must name each choice once"
        return
    if low is None or high is None:
        yield "must have both low and high, or choices"
    elif not (math.isfinite(low) and math.isfinite(high) and low < high):
        yield "must have a finite low below a finite high"
    elif span.log and low <= 0:
        yield "must have a low above 0 to be drawn on a logarithmic scale"
    elif span.log and step is not None:
        yield "must have a step or a logarithmic scale, not both"
    elif step is not None and (step > high - low or (_whole(span) and step != int(step))):
        yield "must have a step that fits into the range, whole where its ends are"
