"""New tasks on an old model: what a run takes over from the run that `train.warm_start` names.

RUN/base/config.toml        the old run's settings, its tasks by name: what the old model is built from
RUN/checkpoints/            of the whole new model: the old run is not needed again
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from polyrank import config
from polyrank.data.encoders import Encoders
from polyrank.data.readers import Source
from polyrank.data.schema import Schema, load_schema
from polyrank.errors import ConfigError, RunError
from polyrank.progress import Progress
from polyrank.settings import Settings, load_settings
from polyrank.training.checkpoint import load_checkpoint

_MEND = "restore it, or train a new model without train.warm_start"


@dataclass(frozen=True)
class OldRun:
    """A finished run to build on: its settings, schema and encoders, and its model's weights."""

    directory: Path
    settings: Settings
    schema: Schema
    encoders: Encoders

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read a run directory, all but the weights.

        Raises:
            RunError: it is none, or is damaged, or was itself made from another run.
        """
        if not (directory / "checkpoints/best.safetensors").exists():
            raise RunError(
                "train.warm_start must name a finished run", received=str(directory), mend="check the path, or train it"
            )
        settings = load_settings(directory / "config.toml")
        if settings.train.warm_start:
            raise RunError(
                "new tasks are added to a model that was trained as one",
                received=f"{directory} was itself made with train.warm_start = {settings.train.warm_start!r}",
                mend="name that run, and give all new tasks at once",
            )
        schema = load_schema(directory / "schema.toml")
        return cls(directory, settings, schema, Encoders.load(directory / "encoders", schema))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The old model's tasks, in order."""
        return self.settings.data.tasks or self.schema.task_names

    def check(self, settings: Settings, schema: Schema) -> None:
        """Whether a new run can be built on it.

        Raises:
            ConfigError: a feature, an old task or a key of [model] differs, no task is new, or the old ones do not come
                first.
        """
        old, new = ({f.name: f for f in s.features} for s in (self.schema, schema))
        for name in [*old, *new]:
            if old.get(name) != new.get(name):
                raise ConfigError(
                    "a warm start takes vocabularies and embeddings over: the features must be those of the old run",
                    received=f"feature {name!r} {_difference(old.get(name), new.get(name))}",
                    mend=_MEND,
                )
        if self.settings.model.ensemble.members > 1 or self.settings.data.leaves.trees:
            raise ConfigError(
                "a warm start takes one model over: no ensemble, and no leaves of trees grown on the old labels",
                received=f"{self.directory} with model.ensemble.members = {self.settings.model.ensemble.members}, "
                f"data.leaves.trees = {self.settings.data.leaves.trees}",
                mend="name a run without them",
            )
        if tuple(old) != tuple(new):
            raise ConfigError(
                "a warm start takes embeddings over: the features must stand in the old run's order",
                received=", ".join(new),
                mend="restore the order",
            )
        names = settings.data.tasks or schema.task_names
        if names[: len(self.tasks)] != self.tasks or len(names) == len(self.tasks):
            raise ConfigError(
                "a warm start adds tasks: those of the old run come first, in their order, then at least one new one",
                received=f"{', '.join(names)}; the old run has {', '.join(self.tasks)}",
                mend="order the tasks in data.tasks or in the schema",
            )
        known = {task.name: task for task in schema.tasks}
        for task in self.schema.tasks:
            if task.name in self.tasks and known[task.name] != task:
                raise ConfigError(
                    "a warm start keeps the old tasks as they are",
                    received=f"task {task.name!r} {_difference(task, known[task.name])}",
                    mend=_MEND,
                )
        was, now = (_model(s) for s in (self.settings, settings))
        for key in {**was, **now}:
            if was.get(key) != now.get(key):
                raise ConfigError(
                    "a warm start keeps the old model: [model] (but for [model.extension]) and [space]",
                    received=f"{key} = {now.get(key)!r}, and {was.get(key)!r} there",
                    mend="restore it",
                )

    def fit(self, schema: Schema, source: Source, progress: Progress) -> Encoders:
        """Encoders of the new run: the old run's, with the label statistics of the new tasks learned from `source`.

        Raises:
            DataError: see `Encoders.fit`.
        """
        fitted = Encoders.fit(schema, source, progress, known=self.encoders)
        before = dict(zip(self.schema.task_names, self.encoders.statistics, strict=True))
        statistics = (
            before[name] if name in self.tasks else new
            for name, new in zip(schema.task_names, fitted.statistics, strict=True)
        )
        return replace(fitted, statistics=tuple(statistics))

    def weights(self) -> dict[str, Any]:
        """The old model's parameters and constants, as at its best."""
        state: dict[str, Any] = load_checkpoint(self.directory / "checkpoints/best.safetensors")["model"]
        return state

    def note(self, directory: Path) -> None:
        """Write into a new run what its model is built from, so that it can be loaded without the old run."""
        table = self.settings.table(run=True)
        table["data"] = table["data"] | {"tasks": list(self.tasks)}
        config.write_toml(directory / "base/config.toml", table)


def base_settings(directory: Path) -> Settings:
    """The settings of the old model inside a run that was made from it: what `OldRun.note` wrote."""
    return load_settings(directory / "base/config.toml")


def _model(settings: Settings) -> dict[str, Any]:
    """What a model is built from, by key."""
    table = settings.table(run=True)
    model = {f"model.{key}": value for key, value in table["model"].items() if key != "extension"}
    return model | {f"space.{key}": value for key, value in table["space"].items()}


def _difference(old: Any, new: Any) -> str:
    if old is None or new is None:
        return "is new" if old is None else "is missing"
    was, now = config.to_table(old), config.to_table(new)
    key = next(key for key in {**was, **now} if was.get(key) != now.get(key))
    return f"has {key} = {now.get(key)!r}, and {was.get(key)!r} there"
