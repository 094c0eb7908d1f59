"""What a study trains, and what each training is called."""

from dataclasses import replace
from pathlib import Path

import pytest

from polyrank.errors import ConfigError
from polyrank.settings import Settings, parse_settings
from polyrank.trainings import Contender, Training, contenders, plan


def study(*, own: str = "static", **compare: object) -> Settings:
    settings = parse_settings({"data": {"schema": "s", "train": "t"}}, Path())
    return replace(
        settings, balance=replace(settings.balance, method=own), compare=replace(settings.compare, **compare)
    )


def test_names_of_directories() -> None:
    assert Training("ple", 3).name == "ple-seed3"
    assert Training("single_task", 0, "like").name == "single_task-like-seed0"
    assert Training("mmoe", 1, balancer="dwa").name == "mmoe-dwa-seed1"


def test_every_training_once() -> None:
    trainings = plan(study(architectures=("shared_bottom", "mmoe"), seeds=(0, 1)), ("click", "watch"))
    assert {training.name for training in trainings} == {
        *(f"{model}-seed{seed}" for model in ("shared_bottom", "mmoe") for seed in (0, 1)),
        *(f"single_task-{task}-seed{seed}" for task in ("click", "watch") for seed in (0, 1)),
        *(f"lightgbm-{task}-seed0" for task in ("click", "watch")),
    }
    assert len(trainings) == 4 + 4 + 2
    assert not any(training.model == "lightgbm" for training in plan(study(lightgbm=False), ("click",)))


def test_every_architecture_with_every_balancer() -> None:
    settings = study(architectures=("mmoe", "ple"), balancers=("static", "dwa"), seeds=(0, 1), lightgbm=False)
    assert contenders(settings) == [
        Contender("mmoe + static", "mmoe", ""),
        Contender("mmoe + dwa", "mmoe", "dwa"),
        Contender("ple + static", "ple", ""),
        Contender("ple + dwa", "ple", "dwa"),
    ]
    # The directories of the config's own balancer are those of a study without balancers: it can be extended by them.
    assert [training.name for training in plan(settings, ())] == [
        *("mmoe-seed0", "mmoe-seed1", "mmoe-dwa-seed0", "mmoe-dwa-seed1"),
        *("ple-seed0", "ple-seed1", "ple-dwa-seed0", "ple-dwa-seed1"),
    ]


@pytest.mark.parametrize(
    ("own", "balancers", "name", "balancer"),
    [
        ("static", (), "mmoe", ""),
        ("static", ("static",), "mmoe", ""),
        ("dwa", (), "mmoe", ""),
        ("static", ("dwa",), "mmoe + dwa", "dwa"),
        ("dwa", ("static",), "mmoe + static", "static"),
    ],
)
def test_a_balancer_is_named_where_it_is_not_simply_the_configs(
    own: str, balancers: tuple[str, ...], name: str, balancer: str
) -> None:
    (one,) = contenders(study(own=own, architectures=("mmoe",), balancers=balancers))
    assert (one.name, one.balancer) == (name, balancer)


@pytest.mark.parametrize(
    ("key", "value"), [("architectures", ["mmoe", "mmoe"]), ("balancers", ["static", "static"]), ("seeds", [1, 1])]
)
def test_what_is_named_twice_is_refused(key: str, value: list[object]) -> None:
    with pytest.raises(ConfigError, match=f"compare.{key} must name each once"):
        parse_settings({"data": {"schema": "s", "train": "t"}, "compare": {key: value}}, Path())


def test_an_unknown_balancer_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"compare\.balancers must be known") as raised:
        parse_settings({"data": {"schema": "s", "train": "t"}, "compare": {"balancers": ["statik"]}}, Path())
    assert "'static'" in raised.value.mend
