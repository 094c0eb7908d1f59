"""What a search may try: every key, end and choice is checked; values survive the way through Optuna."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from polyrank.errors import ConfigError
from polyrank.search_space import applied, check_space, own_values, suggest, usual_space
from polyrank.settings import Range, Settings, parse_settings

TABLE: dict[str, Any] = {"data": {"schema": "s", "train": "t"}, "model": {"architecture": "mmoe"}}


def parsed(**sections: Mapping[str, object]) -> Settings:
    return parse_settings({**TABLE, **sections}, Path())


def checked(key: str, **span: object) -> None:
    space = parsed(tune={"space": {key: span}}).tune.space
    check_space(space, TABLE, Path(), lambda settings: None)


def test_a_space_may_be_quoted_dotted_or_nested() -> None:
    rate = {"low": 1e-4, "high": 1e-2, "log": True}
    expected = {
        "train.learning_rate": Range(1e-4, 1e-2, log=True),
        "model.architecture": Range(choices=("mmoe", "ple")),
    }
    quoted = {"train.learning_rate": rate, "model.architecture": {"choices": ["mmoe", "ple"]}}
    nested = {"train": {"learning_rate": rate}, "model": {"architecture": {"choices": ["mmoe", "ple"]}}}
    assert parsed(tune={"space": quoted}).tune.space == expected
    assert parsed(tune={"space": nested}).tune.space == expected


def test_whole_ends_stay_whole() -> None:
    span = parsed(tune={"space": {"model.mmoe.experts": {"low": 2, "high": 8}}}).tune.space["model.mmoe.experts"]
    assert (type(span.low), type(span.high)) == (int, int)


@pytest.mark.parametrize(
    ("key", "span", "rule", "mend"),
    [
        ("train.learning_rat", {"low": 1e-4, "high": 1e-2}, r"\[train\] has no key 'learning_rat'", "'learning_rate'"),
        ("model.mmoee.experts", {"low": 2, "high": 8}, r"\[model\] has no key 'mmoee'|has no such part", "mmoe"),
        ("train.learning_rate", {"low": -1.0, "high": 1.0}, "train.learning_rate: input should be greater than 0", ""),
        ("model.mmoe.experts", {"low": 2.5, "high": 8.5}, "experts", ""),
        ("model.architecture", {"choices": ["mmoe", "plee"]}, "model.architecture must be known", "'ple'"),
        ("data.train", {"choices": ["a", "b"]}, "may vary keys of model, balance, train", "remove"),
        ("train.metric", {"choices": ["a", "b"]}, "not train.metric", "remove"),
        ("train.epochs", {"low": 3}, "both low and high", "low"),
        ("train.epochs", {"low": 3, "high": 3}, "low below a finite high", "low"),
        ("train.epochs", {"low": 1, "high": 5, "choices": [1]}, "not both", "choices"),
        ("train.epochs", {"low": 1, "high": 5, "step": 0.5}, "step that fits", "low"),
        ("train.epochs", {"low": 1, "high": 5, "step": 7}, "step that fits", "low"),
        ("train.weight_decay", {"low": 0.0, "high": 1.0, "log": True}, "above 0", "log"),
        ("train.weight_decay", {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "not both", "log"),
        ("train.schedule", {"choices": ["cosine", "cosine"]}, "each choice once", "choices"),
    ],
)
def test_what_a_space_may_not_hold(key: str, span: dict[str, object], rule: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=rule) as raised:
        checked(key, **span)
    assert mend in raised.value.mend
    assert key in f"{raised.value.rule} {raised.value.received}"


def test_a_key_without_a_range_is_told_how_to_write_one() -> None:
    with pytest.raises(ConfigError, match=r"tune\.space\.train\.learning_rate\.lo must be a range") as raised:
        parsed(tune={"space": {"train": {"learning_rate": {"lo": 1e-4}}}})
    assert "{ low = 0.1, high = 10.0, log = true }" in raised.value.mend
    with pytest.raises(ConfigError, match="has no key 'hi'") as raised:
        parsed(tune={"space": {"train": {"learning_rate": {"low": 1e-4, "hi": 1e-2}}}})
    assert "'high'" in raised.value.mend


def test_what_the_schema_refuses_is_refused() -> None:
    def refuse(settings: Settings) -> None:
        raise ConfigError("weights must name tasks", received="like", mend="did you mean 'liked'?")

    space = {"balance.static.weights.like": Range(0.1, 10.0)}
    with pytest.raises(ConfigError, match=r"balance\.static\.weights\.like = 0\.1: weights must name tasks") as raised:
        check_space(space, TABLE, Path(), refuse)
    assert raised.value.mend == "did you mean 'liked'?"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.learning_rate", 1.25e-05),
        ("model.towers", [64, 32]),
        ("train.schedule", "constant"),
        ("train.tensorboard", True),
        ("train.epochs", 3),
        ("balance.static.weights.like", 0.5),
    ],
)
def test_values_reach_the_settings_as_they_are(key: str, value: object) -> None:
    level: Any = parse_settings(applied(TABLE, {key: value}), Path()).table(run=False)
    for part in key.split("."):
        level = level[part]
    assert level == value
    assert "train" not in TABLE


SPACE = {
    "balance.static.weights.like": Range(0.1, 10.0, log=True),
    "train.epochs": Range(1, 9, step=3),
    "model.towers": Range(choices=((32,), (64, 32))),
    "train.schedule": Range(choices=("cosine", "constant")),
}


def test_suggestions_are_values_of_the_config() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), SPACE) for _ in range(40)]
    assert {found["train.epochs"] for found in drawn} == {1, 4, 7}
    assert {tuple(found["model.towers"]) for found in drawn} == {(32,), (64, 32)}
    assert {found["train.schedule"] for found in drawn} == {"cosine", "constant"}
    assert all(0.1 <= found["balance.static.weights.like"] <= 10 for found in drawn)
    assert sum(found["balance.static.weights.like"] < 1 for found in drawn) > 10  # half of a logarithmic scale


def test_the_configs_own_values() -> None:
    own = own_values(SPACE, parsed(train={"epochs": 4}))
    assert own == {
        "balance.static.weights.like": 1.0,
        "train.epochs": 4,
        "model.towers": "[32]",
        "train.schedule": '"cosine"',
    }


@pytest.mark.parametrize(
    ("key", "span"),
    [
        ("train.epochs", Range(1, 9, step=3)),  # 8 is not on the grid
        ("train.epochs", Range(9, 12)),
        ("train.learning_rate", Range(0.1, 0.2)),
        ("train.schedule", Range(choices=("constant",))),
        ("train.embedding_learning_rate", Range(0.1, 0.2)),  # has no value: it follows another key
        ("train.tensorboard", Range(0, 1)),
    ],
)
def test_own_values_outside_the_space_are_none(key: str, span: Range) -> None:
    assert own_values({key: span}, parsed()) is None


def test_the_usual_space() -> None:
    settings = parsed(train={"learning_rate": 0.01})
    space = usual_space(settings, ["click", "like", "share"])
    assert space == {
        "balance.static.weights.like": Range(0.1, 10.0, log=True),
        "balance.static.weights.share": Range(0.1, 10.0, log=True),
        "train.learning_rate": Range(0.002, 0.05, log=True),
        "model.embedding_dropout": Range(0.0, 0.5),
    }
    check_space(space, TABLE, Path(), lambda settings: None)
    assert own_values(space, settings) is not None
    assert "balance.static.weights.click" not in usual_space(settings, ["click"])
