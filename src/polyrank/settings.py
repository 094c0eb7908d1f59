"""An experiment file: its sections, each checked against the config of the part it is for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from polyrank import config
from polyrank.balancing.balancer import BALANCERS
from polyrank.data.leaves import LeavesConfig
from polyrank.datasets import absolute
from polyrank.errors import ConfigError
from polyrank.fusion.config import FusionConfig
from polyrank.models.ranker import ARCHITECTURES, RankerConfig
from polyrank.rl_settings import RLSettings, parse_rl
from polyrank.spaces import SpaceConfig
from polyrank.training.loop import TrainConfig

SECTIONS = ("data", "model", "space", "balance", "train", "compare", "fusion", "tune", "rl")


@dataclass(frozen=True)
class DataConfig:
    """`[data]`: what is read.

    Attributes:
        schema: the schema file.
        train: training data: a file, a directory, a glob, a URI, or `builtin:census/train`.
        valid: validation data; where not given, `valid_share` of the training data is set aside (the latest rows if the
            schema has a clock, else random ones).
        test: test data; where not given, `test_share` is set aside likewise (only where a command needs test data).
        valid_share: see `valid`.
        test_share: see `test`.
        tasks: the tasks to train, all where empty; sample spaces always follow the whole schema.
        leak_guard: warn of features that alone give AUC > 0.99.
        leaves: tree leaves as further features.
    """

    schema: Annotated[str, MinLen(1)]
    train: Annotated[str, MinLen(1)]
    valid: str = ""
    test: str = ""
    valid_share: Annotated[float, Interval(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Interval(gt=0, lt=0.5)] = 0.1
    tasks: tuple[str, ...] = ()
    leak_guard: bool = True
    leaves: LeavesConfig = field(default_factory=LeavesConfig)


@dataclass(frozen=True)
class BalanceConfig:
    """`[balance]`. Attributes: `method`: a key of BALANCERS."""

    method: str = "static"


@dataclass(frozen=True)
class CompareConfig:
    """`[compare]`: the seesaw study.

    Attributes:
        architectures: which multi-task models are compared.
        balancers: with which balancers each architecture is trained; where empty, with `balance.method` alone.
        seeds: each model is trained once with every seed, and paired by it with the single-task models.
        lightgbm: also compare with a LightGBM per task.
        lightgbm_rows: train LightGBM on at most so many rows, chosen at random: it holds them in memory.
        replicates: bootstrap replicates.
        level: coverage of the intervals.
        jobs: trainings side by side, among which the processors are shared out; 0 for as many as there are processors
            that this process may use, at most 8.
    """

    architectures: Annotated[tuple[str, ...], MinLen(1)] = ("shared_bottom", "mmoe", "ple")
    balancers: tuple[str, ...] = ()
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0, 1, 2)
    lightgbm: bool = True
    lightgbm_rows: Annotated[int, Ge(1)] = 2_000_000
    replicates: Annotated[int, Ge(10)] = 200
    level: Annotated[float, Interval(gt=0.5, lt=1)] = 0.95
    jobs: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class Range:
    """What a key may be in a search: any number from `low` to `high`, or one of `choices`.

    Attributes:
        low: the least number.
        high: the largest number, included; where both ends are whole, only whole numbers are drawn.
        log: draw evenly on a logarithmic scale: for learning rates, loss weights, all whose ratios matter.
        step: draw only `low`, `low + step`, `low + 2·step` …
        choices: draw one of these: numbers, words, or lists such as [64, 32].
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: Annotated[int | float, Gt(0)] | None = None
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class TuneConfig:
    """`[tune]`: a search for loss weights and other settings.

    Attributes:
        objectives: what is maximised on validation data: `mean` (over the tasks' AUC, XAUC for regression) or a task's
            name; two tasks or more are maximised together: the result is their Pareto front.
        trials: how many settings are tried.
        sampler: who proposes them: `tpe` (tree-structured Parzen estimator, also for several objectives), `nsga2` (an
            evolution of `population`), or `random` (the control: a search that cannot beat it has learnt nothing).
        startup: trials drawn at random before `tpe` begins to learn from the others.
        population: of `nsga2`.
        prune: end a trial early whose best value lies below the median of the others' at the same evaluation (one
            objective only). Set train.evaluations_per_epoch higher to give it more to go by.
        prune_after: evaluations that every trial is given first.
        seed: of the sampler.
        space: by key (`train.learning_rate`, `balance.static.weights.like`) what may be tried; where empty, the
            learning rate, the embeddings' dropout, and every task's loss weight but the first's, which stays as it is.
    """

    objectives: Annotated[tuple[str, ...], MinLen(1)] = ("mean",)
    trials: Annotated[int, Ge(1)] = 50
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    startup: Annotated[int, Ge(1)] = 10
    population: Annotated[int, Ge(2)] = 16
    prune: bool = True
    prune_after: Annotated[int, Ge(0)] = 1
    seed: Annotated[int, Ge(0)] = 0
    space: dict[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """A whole experiment, every section typed.

    Attributes:
        base: the directory that relative paths start from.
        options: `[model.<architecture>]`: every architecture's own config, by name.
        balancers: `[balance.<method>]`: every balancer's own config, by name.
    """

    data: DataConfig
    model: RankerConfig
    space: SpaceConfig
    balance: BalanceConfig
    train: TrainConfig
    compare: CompareConfig
    tune: TuneConfig
    base: Path
    fusion: FusionConfig = field(default_factory=FusionConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    balancers: Mapping[str, Any] = field(default_factory=dict)

    def with_model(self, architecture: str, seed: int, tasks: Iterable[str] = (), balancer: str = "") -> "Settings":
        """The same experiment with another architecture, seed, and (where given) tasks and balancer.

        A metric or balance of tasks that are left out falls back: to `mean`, and to no balance for a task alone, which
        also has its own sample space only.
        """
        metric = self.train.metric
        tasks = tuple(tasks) or self.data.tasks
        alone = len(tasks) == 1
        return replace(
            self,
            data=replace(self.data, tasks=tasks),
            model=replace(self.model, architecture=architecture),
            space=SpaceConfig() if alone else self.space,
            balance=BalanceConfig() if alone else replace(self.balance, method=balancer or self.balance.method),
            balancers={name: entry.config() for name, entry in BALANCERS.items()} if alone else self.balancers,
            train=replace(self.train, seed=seed, metric=metric if metric in tasks or not tasks else "mean"),
        )

    def table(self, *, run: bool) -> dict[str, Any]:
        """As it is saved; of a `run`, only what that run used, with places that can be read from anywhere."""
        architectures = [self.model.architecture] if run else list(self.options)
        methods = [self.balance.method] if run else list(self.balancers)
        table = {
            "data": config.to_table(self.data),
            "model": config.to_table(self.model)
            | {name: config.to_table(self.options[name]) for name in architectures},
            "space": config.to_table(self.space),
            "balance": config.to_table(self.balance)
            | {name: config.to_table(self.balancers[name]) for name in methods},
            "train": config.to_table(self.train),
        }
        if not run:
            return table | {"compare": config.to_table(self.compare)}
        places = {key: absolute(table["data"][key], self.base) for key in ("schema", "train", "valid", "test")}
        warm = absolute(self.train.warm_start, self.base)
        return table | {"data": table["data"] | places, "train": table["train"] | {"warm_start": warm}}


def load_settings(path: Path, overrides: Iterable[str] = ()) -> Settings:
    """Read an experiment file and apply `--set` overrides; relative paths start from the file's directory.

    Raises:
        ConfigError: an unknown section, key or name, or a value out of bounds.
    """
    return parse_settings(config.override(config.read_toml(path), overrides), path.resolve().parent)


def load_rl(path: Path, overrides: Iterable[str] = ()) -> RLSettings:
    """The section `[rl]` of an experiment file, which may have no other.

    Raises:
        ConfigError: see `load_settings`; or there is no such section.
    """
    table = config.override(config.read_toml(path), overrides)
    check_sections(table)
    if "rl" not in table:
        raise ConfigError(
            "learning a policy needs the section [rl]", received=f"{path} without it", mend="give rl.log and rl.method"
        )
    return parse_rl(table["rl"], path.resolve().parent)


def check_sections(table: Mapping[str, Any]) -> None:
    """Whether a table has only sections that there are.

    Raises:
        ConfigError: it has another, or a value in the place of one.
    """
    for name, section in table.items():
        if name not in SECTIONS:
            raise ConfigError("a config has no such section", received=name, mend=config.nearest(name, SECTIONS))
        if not isinstance(section, Mapping):
            raise ConfigError(
                f"{name} must be a section", received=f"{name} = {section!r}", mend=f"write its keys below [{name}]"
            )


def parse_settings(table: Mapping[str, Any], base: Path) -> Settings:
    """Check every section of an experiment table.

    Raises:
        ConfigError: see `load_settings`.
    """
    check_sections(table)
    if "data" not in table:
        raise ConfigError(
            "a config must have the section [data]", received="none", mend="give data.schema and data.train"
        )
    if "rl" in table:
        parse_rl(table["rl"], base)  # for `load_rl`; a mistake in it is told by every command
    parts = {name: dict(table.get(name, {})) for name in SECTIONS}
    options = {
        name: config.build(entry.config, parts["model"].pop(name, {}), f"model.{name}")
        for name, entry in ARCHITECTURES.items()
    }
    balancers = {
        name: config.build(entry.config, parts["balance"].pop(name, {}), f"balance.{name}")
        for name, entry in BALANCERS.items()
    }
    parts_of_model = [part.name for part in fields(RankerConfig) if is_dataclass(part.default_factory)]
    for section, names in (("model", [*ARCHITECTURES, *parts_of_model]), ("balance", list(BALANCERS))):
        for name, value in parts[section].items():
            if isinstance(value, Mapping) and name not in names:
                raise ConfigError(
                    f"[{section}] has no such part", received=f"[{section}.{name}]", mend=config.nearest(name, names)
                )
    settings = Settings(
        config.build(DataConfig, parts["data"], "data"),
        config.build(RankerConfig, parts["model"], "model"),
        config.build(SpaceConfig, parts["space"], "space"),
        config.build(BalanceConfig, parts["balance"], "balance"),
        config.build(TrainConfig, parts["train"], "train"),
        config.build(CompareConfig, parts["compare"], "compare"),
        config.build(TuneConfig, parts["tune"] | {"space": _space(parts["tune"].get("space", {}))}, "tune"),
        base,
        config.build(FusionConfig, parts["fusion"], "fusion"),
        options,
        balancers,
    )
    for where, name, known in (
        ("model.architecture", settings.model.architecture, ARCHITECTURES),
        *(("compare.architectures", name, ARCHITECTURES) for name in settings.compare.architectures),
        *(("compare.balancers", name, BALANCERS) for name in settings.compare.balancers),
        ("balance.method", settings.balance.method, BALANCERS),
    ):
        if name not in known:
            raise ConfigError(f"{where} must be known", received=name, mend=config.nearest(name, known))
    for key in ("architectures", "balancers", "seeds"):
        chosen = getattr(settings.compare, key)
        if len(set(chosen)) < len(chosen):
            received = ", ".join(map(str, chosen))
            raise ConfigError(f"compare.{key} must name each once", received=received, mend="remove the repetition")
    if settings.train.freeze != "none" and not settings.train.warm_start:
        raise ConfigError(
            "train.freeze keeps what train.warm_start brings",
            received=f"train.freeze = {settings.train.freeze!r} without train.warm_start",
            mend="name the old run, or remove train.freeze",
        )
    if "single_task" in settings.compare.architectures:
        raise ConfigError(
            "compare.architectures are multi-task models; single-task ones are always trained beside them",
            received="single_task",
            mend="remove it",
        )
    return settings


def _space(table: Any, prefix: str = "") -> Any:
    """A space by whole keys, whether they were written quoted, dotted or as tables within tables."""
    if not isinstance(table, Mapping):
        return table
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and not {"low", "high", "choices"} & value.keys():
            flat |= _space(value, f"{prefix}{key}.")
        elif isinstance(value, Mapping):
            flat[f"{prefix}{key}"] = value
        else:
            raise ConfigError(
                f"tune.space.{prefix}{key} must be a range or choices",
                received=repr(value),
                mend="write { low = 0.1, high = 10.0, log = true } or { choices = [1, 2] }",
            )
    return flat
